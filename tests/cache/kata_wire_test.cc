// The bytes of Kata's VM cache protocol, which its clients have from somebody else: each message
// against what protobuf's encoding rules give, worked out by hand, in both directions.
//
// A field is a tag, number << 3 | wire type (0: varint, 2: length and bytes), and a value. A varint
// is 7 bits a byte, lowest first, 0x80 set in all but the last. What has its default is not sent.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kata/cache.pb.h"

namespace hatchery::cache {
namespace {

using google::protobuf::Descriptor;
using testing::ElementsAre;

// "0a 04" to its two bytes.
std::string FromHex(const std::string& hex) {
  std::string bytes, digits;
  for (const char c : hex) {
    if (c != ' ') digits.push_back(c);
    if (digits.size() < 2) continue;
    bytes.push_back(static_cast<char>(std::stoi(digits, nullptr, 16)));
    digits.clear();
  }
  EXPECT_EQ(digits, "") << "half a byte";
  return bytes;
}

std::string ToHex(const std::string& bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (!hex.empty()) hex.push_back(' ');
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

template <class Message>
Message Parsed(const std::string& hex) {
  Message message;
  EXPECT_TRUE(message.ParseFromString(FromHex(hex))) << hex;
  return message;
}

// "int64 pid = 1", in the order of the numbers.
std::vector<std::string> FieldsOf(const Descriptor& message) {
  std::vector<std::string> fields;
  for (int i = 0; i < message.field_count(); ++i) {
    const auto* field = message.field(i);
    const std::string type =
        field->message_type() != nullptr ? field->message_type()->full_name() : field->type_name();
    fields.push_back((field->is_repeated() ? "repeated " : "") + type + " " + field->name() +
                     " = " + std::to_string(field->number()));
  }
  return fields;
}

TEST(KataWire, Config) {
  //                         1: "{}"      2: "[1]"
  const std::string kHex = "0a 02 7b 7d 12 03 5b 31 5d";
  ::cache::GrpcVMConfig config;
  config.set_data("{}");
  config.set_agentconfig("[1]");
  EXPECT_EQ(ToHex(config.SerializeAsString()), kHex);

  const auto parsed = Parsed<::cache::GrpcVMConfig>(kHex);
  EXPECT_EQ(parsed.data(), "{}");
  EXPECT_EQ(parsed.agentconfig(), "[1]");
}

TEST(KataWire, Vm) {
  const std::string kHex =
      "0a 04 76 6d 2d 31"                  // 1: "vm-1"
      " 12 02 7b 7d"                       // 2: "{}"
      " 18 ac 02"                          // 3: 300 = 2 << 7 | 0x2c
      " 22 09 75 6e 69 78 3a 2f 2f 2f 61"  // 4: "unix:///a"
      " 28 02"                             // 5: 2
      " 30 80 10"                          // 6: 2048 = 16 << 7
      " 38 01";                            // 7: 1
  ::cache::GrpcVM vm;
  vm.set_id("vm-1");
  vm.set_hypervisor("{}");
  vm.set_proxypid(300);
  vm.set_proxyurl("unix:///a");
  vm.set_cpu(2);
  vm.set_memory(2048);
  vm.set_cpudelta(1);
  EXPECT_EQ(ToHex(vm.SerializeAsString()), kHex);

  const auto parsed = Parsed<::cache::GrpcVM>(kHex);
  EXPECT_EQ(parsed.id(), "vm-1");
  EXPECT_EQ(parsed.hypervisor(), "{}");
  EXPECT_EQ(parsed.proxypid(), 300);
  EXPECT_EQ(parsed.proxyurl(), "unix:///a");
  EXPECT_EQ(parsed.cpu(), 2u);
  EXPECT_EQ(parsed.memory(), 2048u);
  EXPECT_EQ(parsed.cpudelta(), 1u);
}

TEST(KataWire, WhatIsHandedOverHasNoProxyAndNothingOffline) {
  // Fields 3 and 7 are 0, and so they are not there.
  const std::string kHex = "0a 01 61 28 01 30 80 02";
  ::cache::GrpcVM vm;
  vm.set_id("a");
  vm.set_proxypid(0);
  vm.set_cpu(1);
  vm.set_memory(256);  // 2 << 7
  vm.set_cpudelta(0);
  EXPECT_EQ(ToHex(vm.SerializeAsString()), kHex);

  const auto parsed = Parsed<::cache::GrpcVM>(kHex);
  EXPECT_EQ(parsed.hypervisor(), "");
  EXPECT_EQ(parsed.proxypid(), 0);
  EXPECT_EQ(parsed.proxyurl(), "");
  EXPECT_EQ(parsed.memory(), 256u);
  EXPECT_EQ(parsed.cpudelta(), 0u);
}

TEST(KataWire, NumbersAtTheirBounds) {
  const std::string kHex =
      "18 ff ff ff ff ff ff ff ff ff 01"  // 3: -1, as 64 bits
      " 30 ff ff ff ff 0f";               // 6: 32 bits
  ::cache::GrpcVM vm;
  vm.set_proxypid(-1);
  vm.set_memory(std::numeric_limits<std::uint32_t>::max());
  EXPECT_EQ(ToHex(vm.SerializeAsString()), kHex);

  const auto parsed = Parsed<::cache::GrpcVM>(kHex);
  EXPECT_EQ(parsed.proxypid(), -1);
  EXPECT_EQ(parsed.memory(), std::numeric_limits<std::uint32_t>::max());
}

TEST(KataWire, BytesNeedNotBeText) {
  const std::string kHex = "12 03 ff 00 80";
  ::cache::GrpcVM vm;
  vm.set_hypervisor(std::string("\xff\0\x80", 3));
  EXPECT_EQ(ToHex(vm.SerializeAsString()), kHex);
  EXPECT_EQ(Parsed<::cache::GrpcVM>(kHex).hypervisor(), vm.hypervisor());
}

TEST(KataWire, Status) {
  const std::string kHex =
      "08 92 21"                        // 1: 4242 = 33 << 7 | 0x12
      " 12 07 08 4d 10 01 18 80 02"     // 2: pid 77, cpu 1, memory 256
      " 12 08 08 4e 10 80 01 18 80 20"  // 2: pid 78, cpu 128, memory 4096
      " 12 00";                         // 2: one of which nothing is known
  ::cache::GrpcStatus status;
  status.set_pid(4242);
  auto* vm = status.add_vmstatus();
  vm->set_pid(77);
  vm->set_cpu(1);
  vm->set_memory(256);
  vm = status.add_vmstatus();
  vm->set_pid(78);
  vm->set_cpu(128);
  vm->set_memory(4096);
  status.add_vmstatus();
  EXPECT_EQ(ToHex(status.SerializeAsString()), kHex);

  const auto parsed = Parsed<::cache::GrpcStatus>(kHex);
  EXPECT_EQ(parsed.pid(), 4242);
  ASSERT_EQ(parsed.vmstatus_size(), 3);
  EXPECT_EQ(parsed.vmstatus(0).pid(), 77);
  EXPECT_EQ(parsed.vmstatus(0).cpu(), 1u);
  EXPECT_EQ(parsed.vmstatus(0).memory(), 256u);
  EXPECT_EQ(parsed.vmstatus(1).pid(), 78);
  EXPECT_EQ(parsed.vmstatus(1).cpu(), 128u);
  EXPECT_EQ(parsed.vmstatus(1).memory(), 4096u);
  EXPECT_EQ(parsed.vmstatus(2).pid(), 0);
}

TEST(KataWire, DefaultsAreNoBytes) {
  EXPECT_EQ(::cache::GrpcVMConfig().SerializeAsString(), "");
  EXPECT_EQ(::cache::GrpcVM().SerializeAsString(), "");
  EXPECT_EQ(::cache::GrpcVMStatus().SerializeAsString(), "");
  EXPECT_EQ(::cache::GrpcStatus().SerializeAsString(), "");
  EXPECT_EQ(Parsed<::cache::GrpcVM>("").id(), "");
}

TEST(KataWire, FieldsHaveKatasNamesNumbersAndTypes) {
  EXPECT_THAT(FieldsOf(*::cache::GrpcVMConfig::descriptor()),
              ElementsAre("bytes Data = 1", "bytes AgentConfig = 2"));
  EXPECT_THAT(FieldsOf(*::cache::GrpcVM::descriptor()),
              ElementsAre("string id = 1", "bytes hypervisor = 2", "int64 proxyPid = 3",
                          "string proxyURL = 4", "uint32 cpu = 5", "uint32 memory = 6",
                          "uint32 cpuDelta = 7"));
  EXPECT_THAT(FieldsOf(*::cache::GrpcVMStatus::descriptor()),
              ElementsAre("int64 pid = 1", "uint32 cpu = 2", "uint32 memory = 3"));
  EXPECT_THAT(FieldsOf(*::cache::GrpcStatus::descriptor()),
              ElementsAre("int64 pid = 1", "repeated cache.GrpcVMStatus vmstatus = 2"));
}

TEST(KataWire, TheServiceHasFourCallsThatAskWithNothing) {
  const auto* service = ::cache::GrpcVM::descriptor()->file()->FindServiceByName("CacheService");
  ASSERT_NE(service, nullptr);
  EXPECT_EQ(service->full_name(), "cache.CacheService");
  std::vector<std::string> calls;
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* method = service->method(i);
    EXPECT_EQ(method->input_type()->full_name(), "google.protobuf.Empty") << method->name();
    EXPECT_FALSE(method->client_streaming() || method->server_streaming()) << method->name();
    calls.push_back(method->name() + " -> " + method->output_type()->full_name());
  }
  EXPECT_THAT(calls, ElementsAre("Config -> cache.GrpcVMConfig", "GetBaseVM -> cache.GrpcVM",
                                 "Status -> cache.GrpcStatus", "Quit -> google.protobuf.Empty"));
}

}  // namespace
}  // namespace hatchery::cache
