#include "hypervisor/qemu/qmp_message.h"

#include <gtest/gtest.h>

#include <random>

namespace hatchery::hypervisor::qemu {
namespace {

template <class T>
T Parse(std::string_view line) {
  auto message = ParseQmpMessage(line);
  EXPECT_TRUE(message.has_value()) << ToString(message.error());
  return std::get<T>(*std::move(message));
}

TEST(QmpMessage, ReadsEachKind) {
  (void)Parse<QmpGreeting>(R"({"QMP": {"version": {}, "capabilities": ["oob"]}})");
  const auto event = Parse<QmpEvent>(
      R"({"timestamp": {"seconds": 1}, "event": "MIGRATION", "data": {"status": "active"}})");
  EXPECT_EQ(event.name, "MIGRATION");
  EXPECT_EQ(event.data["status"], "active");
  EXPECT_TRUE(Parse<QmpEvent>(R"({"event": "STOP"})").data.is_object());
  const auto reply = Parse<QmpReply>(R"({"return": {"running": true}, "id": 7})");
  EXPECT_EQ(reply.id, 7u);
  EXPECT_EQ(reply.result.value()["running"], true);
}

TEST(QmpMessage, KeepsQemusWords) {
  auto error = [](const char* kind) {
    return Parse<QmpReply>(R"({"id": 1, "error": {"class": ")" + std::string(kind) +
                           R"(", "desc": "no such thing"}})")
        .result.error();
  };
  EXPECT_EQ(error("DeviceNotFound").code, Code::kNotFound);
  EXPECT_EQ(error("CommandNotFound").code, Code::kUnimplemented);
  EXPECT_EQ(error("GenericError").code, Code::kInternal);
  EXPECT_EQ(error("GenericError").message, "no such thing");
  EXPECT_FALSE(Parse<QmpReply>(R"({"id": 1, "error": {}})").result.error().message.empty());
}

TEST(QmpMessage, RefusesWhatIsNone) {
  for (const char* bad :
       {"", "x", "{", "[]", "1", "null", "{}", R"({"return": {}})", R"({"return": {}, "id": "1"})",
        R"({"return": {}, "id": -1})", R"({"return": {}, "id": 1.5})", R"({"event": 1})",
        R"({"event": "X", "data": []})", R"({"error": {"desc": "x"}})",
        R"({"error": "x", "id": 1})", "{\"event\": \"\xff\"}"}) {
    const auto message = ParseQmpMessage(bad);
    ASSERT_FALSE(message.has_value()) << bad;
    EXPECT_EQ(message.error().code, Code::kDataLoss);
    for (const char c : message.error().message) EXPECT_FALSE(std::iscntrl(c)) << bad;
  }
}

TEST(QmpMessage, SurvivesDamage) {
  const std::string good[] = {
      R"({"QMP": {"version": {"qemu": {"micro": 22}}, "capabilities": []}})",
      R"({"timestamp": {"seconds": 1, "microseconds": 2}, "event": "A", "data": {"b": [1, {}]}})",
      R"({"return": [{"type": "t", "props": {"core-id": 0}}], "id": 3})",
      R"({"id": 4, "error": {"class": "GenericError", "desc": "d"}})"};
  std::mt19937 random(1);  // NOLINT: the same damage each time
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string line = good[random() % std::size(good)];
    for (unsigned i = 0; i <= random() % 3; ++i) {
      const std::size_t at = random() % line.size();
      switch (random() % 3) {
        case 0: line[at] = static_cast<char>(random()); break;
        case 1: line.erase(at, 1 + random() % 4); break;
        case 2: line.insert(at, 1, "{}[]\",:\\0"[random() % 9]); break;
      }
      if (line.empty()) break;
    }
    if (!ParseQmpMessage(line)) ++refused;
  }
  EXPECT_GT(refused, 5'000);
}

TEST(QmpMessage, EncodesACommandOnOneLine) {
  EXPECT_EQ(EncodeQmpCommand("stop", {}, 1), "{\"execute\":\"stop\",\"id\":1}\n");
  EXPECT_EQ(EncodeQmpCommand("getfd", {{"fdname", "a\nb"}}, 2),
            "{\"execute\":\"getfd\",\"id\":2,\"arguments\":{\"fdname\":\"a\\nb\"}}\n");
}

TEST(QmpMessage, WhatIsNestedWithoutEndIsRefused) {
  const auto nested = [](std::size_t levels) {
    return ParseQmpMessage("{\"return\": " + std::string(levels, '[') + std::string(levels, ']') +
                           ", \"id\": 1}");
  };
  EXPECT_TRUE(nested(20).has_value());
  for (const std::size_t levels : {100, 400'000}) {
    EXPECT_EQ(nested(levels).error().code, Code::kDataLoss) << levels;
  }
}

TEST(LineBuffer, CutsLinesHoweverTheBytesArrive) {
  const std::string stream = "one\r\ntwo\n\r\n\nthree\r\nrest";
  for (std::size_t step = 1; step <= stream.size(); ++step) {
    LineBuffer buffer;
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < stream.size(); at += step) {
      ASSERT_TRUE(buffer.Append(std::string_view(stream).substr(at, step)).has_value());
      while (auto line = buffer.Next()) lines.push_back(*line);
    }
    EXPECT_EQ(lines, (std::vector<std::string>{"one", "two", "three"})) << step;
  }
}

TEST(LineBuffer, RefusesALineWithoutEnd) {
  LineBuffer buffer;
  const std::string block(64 << 10, 'x');
  Result<void> last;
  for (int i = 0; i < 17 && last; ++i) {
    last = buffer.Append(block);
    EXPECT_FALSE(buffer.Next().has_value());
  }
  EXPECT_EQ(last.error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
