#include "hypervisor/qemu/handle.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace hatchery::hypervisor::qemu {
namespace {

HandleData Data() {
  return {.process = {.pid = 4711, .start_ticks = 123456789},
          .config = {.id = VmId("vm-1"),
                     .run_dir = "/run/vm \"1\"",
                     .kernel_params = "quiet",
                     .accelerator = Accelerator::kTcg,
                     .vcpus = 1,
                     .max_vcpus = 8,
                     .memory = Bytes::MiB(256),
                     .max_memory = Bytes::GiB(2),
                     .boot_from_template = true,
                     .template_memory_fd = 7,
                     .cid = 4000}};
}

TEST(Handle, ComesBackAsItWas) {
  const auto data = DecodeHandle(EncodeHandle(Data()));
  ASSERT_TRUE(data.has_value()) << ToString(data.error());
  EXPECT_EQ(data->process, Data().process);
  EXPECT_EQ(data->config.template_memory_fd, -1);
  EXPECT_EQ(data->config.cid, 4000u);
  EXPECT_EQ(EncodeHandle(*data), EncodeHandle(Data()));
}

TEST(Handle, EveryMemberIsNeeded) {
  const Json whole = ParseJson(EncodeHandle(Data()), "it").value();
  for (const auto& [name, value] : whole.items()) {
    Json without = whole;
    without.erase(name);
    EXPECT_FALSE(DecodeHandle(DumpJson(without)).has_value()) << name;
    if (!value.is_object()) continue;
    for (const auto& [inner, ignored] : value.items()) {
      for (const Json& bad : {Json(), Json::array(), Json(-1)}) {
        Json damaged = whole;
        damaged[name][inner] = bad;
        const auto result = DecodeHandle(DumpJson(damaged));
        ASSERT_FALSE(result.has_value()) << name << "." << inner << " " << bad;
        EXPECT_EQ(result.error().code, Code::kDataLoss);
      }
    }
  }
}

TEST(Handle, RefusesAnyTruncation) {
  const std::string whole = EncodeHandle(Data());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(DecodeHandle(whole.substr(0, size)).error().code, Code::kDataLoss);
  }
}

TEST(Handle, NeverNamesInit) {
  HandleData data = Data();
  for (const pid_t pid : {0, 1}) {
    data.process.pid = pid;
    EXPECT_FALSE(DecodeHandle(EncodeHandle(data)).has_value());
  }
}

// Cut to 32 bits, it would name another process.
TEST(Handle, RefusesANumberThatDoesNotFit) {
  for (const auto& [object, name] :
       {std::pair("process", "pid"), std::pair("config", "vcpus"), std::pair("config", "cid")}) {
    Json json = ParseJson(EncodeHandle(Data()), "it").value();
    json[object][name] = (std::uint64_t{1} << 32) + 4711;
    EXPECT_EQ(DecodeHandle(DumpJson(json)).error().code, Code::kDataLoss) << name;
  }
}

TEST(Handle, OfAVmWithoutVsock) {
  HandleData data = Data();
  data.config.cid = 0;
  EXPECT_EQ(DecodeHandle(EncodeHandle(data)).value().config.cid, 0u);
}

TEST(Handle, NeverNamesAReservedContextId) {
  HandleData data = Data();
  for (const std::uint32_t cid : {1u, 2u, 0x80000000u, 0xffffffffu}) {
    data.config.cid = cid;
    const auto result = DecodeHandle(EncodeHandle(data));
    ASSERT_FALSE(result.has_value()) << cid;
    EXPECT_EQ(result.error().code, Code::kDataLoss);
  }
}

TEST(Handle, ThoseOfEarlierVersionsHaveNoContextId) {
  for (const int version : {1, 2}) {
    Json json = ParseJson(EncodeHandle(Data()), "it").value();
    json["version"] = version;
    json["config"].erase("cid");
    json.erase("handed_over");
    const auto data = DecodeHandle(DumpJson(json));
    ASSERT_TRUE(data.has_value()) << ToString(data.error());
    EXPECT_EQ(data->config.cid, 0u);
    EXPECT_FALSE(data->handed_over);
  }
}

TEST(Handle, SaysWhetherItsVmWasHandedOver) {
  HandleData data = Data();
  EXPECT_FALSE(DecodeHandle(EncodeHandle(data)).value().handed_over);
  data.handed_over = true;
  EXPECT_TRUE(DecodeHandle(EncodeHandle(data)).value().handed_over);
}

TEST(Handle, TellsAnotherDriversAndALaterVersion) {
  EXPECT_EQ(DecodeHandle(R"({"driver":"x","version":1})").error().code, Code::kFailedPrecondition);
  Json json = ParseJson(EncodeHandle(Data()), "it").value();
  json["version"] = 4;
  EXPECT_EQ(DecodeHandle(DumpJson(json)).error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
