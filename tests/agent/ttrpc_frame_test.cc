#include <gtest/gtest.h>

#include <random>

#include "agent/ttrpc/frame.h"
#include "base/ids.h"

namespace hatchery::agent::ttrpc {
namespace {

std::string Hex(std::string_view text) { return FromHex(text).value(); }

TEST(Frame, IsLaidOutAsTtrpcSays) {
  const Frame frame{.stream_id = 0x01020305, .type = MessageType::kRequest, .data = "abc"};
  EXPECT_EQ(ToHex(EncodeFrame(frame).value()), "00000003010203050100616263");
  const Frame empty{.stream_id = 7, .type = MessageType::kData, .flags = kFlagNoData};
  EXPECT_EQ(ToHex(EncodeFrame(empty).value()), "00000000000000070304");
}

TEST(Frame, RefusesToEncodeMoreThanFourMebibytes) {
  EXPECT_TRUE(EncodeFrame({.data = std::string(kMaxDataBytes, 'x')}).has_value());
  const auto over = EncodeFrame({.data = std::string(kMaxDataBytes + 1, 'x')});
  ASSERT_FALSE(over.has_value());
  EXPECT_EQ(over.error().code, Code::kInvalidArgument);
}

TEST(FrameDecoder, GivesBackWhatWasEncodedByteByByte) {
  const std::vector<Frame> frames = {
      {.stream_id = 1, .type = MessageType::kRequest, .data = "first"},
      {.stream_id = 0xffffffff, .type = MessageType::kResponse, .flags = 0xff, .data = ""},
      {.stream_id = 3, .type = MessageType::kData, .data = std::string(70'000, '\0')}};
  std::string bytes;
  for (const Frame& frame : frames) bytes += EncodeFrame(frame).value();
  FrameDecoder decoder;
  std::vector<Frame> seen;
  for (const char byte : bytes) {
    decoder.Append({&byte, 1});
    auto next = decoder.Next();
    ASSERT_TRUE(next.has_value());
    if (*next) seen.push_back(**next);
  }
  EXPECT_EQ(seen, frames);
}

TEST(FrameDecoder, TakesSeveralFramesFromOneRead) {
  std::string bytes;
  for (std::uint32_t i = 1; i < 200; i += 2) {
    bytes += EncodeFrame({.stream_id = i, .data = std::string(i, 'd')}).value();
  }
  FrameDecoder decoder;
  decoder.Append(bytes);
  for (std::uint32_t i = 1; i < 200; i += 2) {
    auto next = decoder.Next();
    ASSERT_TRUE(next.has_value() && *next);
    EXPECT_EQ((*next)->stream_id, i);
    EXPECT_EQ((*next)->data.size(), i);
  }
  EXPECT_EQ(decoder.Next().value(), std::nullopt);
}

TEST(FrameDecoder, WaitsForTheRestOfATruncatedFrame) {
  FrameDecoder decoder;
  decoder.Append(Hex("000000030000000101006162"));
  EXPECT_EQ(decoder.Next().value(), std::nullopt);
  decoder.Append("c");
  EXPECT_EQ(decoder.Next().value()->data, "abc");
}

TEST(FrameDecoder, FailsForGoodOnAHeaderThatCannotBeOne) {
  for (const char* bad : {"00400001000000010100",     // one byte over 4 MiB
                          "ffffffff000000010100",     // huge
                          "00000000000000010000",     // type 0
                          "00000000000000010400"}) {  // type 4
    FrameDecoder decoder;
    decoder.Append(Hex(bad));
    const auto next = decoder.Next();
    ASSERT_FALSE(next.has_value()) << bad;
    EXPECT_EQ(next.error().code, Code::kDataLoss);
    decoder.Append(Hex("00000000000000010100"));
    EXPECT_FALSE(decoder.Next().has_value()) << bad;
    decoder.Reset();
    decoder.Append(Hex("00000000000000010100"));
    EXPECT_TRUE(decoder.Next().value().has_value()) << bad;
  }
}

TEST(FrameDecoder, AcceptsExactlyFourMebibytes) {
  FrameDecoder decoder;
  decoder.Append(Hex("00400000000000010100"));
  EXPECT_EQ(decoder.Next().value(), std::nullopt);
}

TEST(FrameDecoder, ResetForgetsHalfAFrame) {
  FrameDecoder decoder;
  decoder.Append(Hex("00000003000000010100"));
  decoder.Reset();
  decoder.Append(Hex("0000000100000005010061"));
  EXPECT_EQ(decoder.Next().value()->stream_id, 5u);
}

TEST(FrameDecoder, SurvivesRandomBytes) {
  std::mt19937 random(20240607);
  int failures = 0;
  for (int round = 0; round < 2000; ++round) {
    FrameDecoder decoder;
    for (int piece = 0; piece < 8; ++piece) {
      std::string bytes(random() % 64, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random());
      // Every other round gets a plausible start, so that bodies are reached too.
      if (round % 2 == 0 && bytes.size() > 9) bytes.replace(0, 3, 3, '\0'), bytes[8] = 1;
      decoder.Append(bytes);
      for (auto next = decoder.Next();; next = decoder.Next()) {
        if (!next) ++failures;
        if (!next || !*next) break;
        EXPECT_LE((*next)->data.size(), kMaxDataBytes);
      }
    }
  }
  EXPECT_GT(failures, 1000);
}

}  // namespace
}  // namespace hatchery::agent::ttrpc
