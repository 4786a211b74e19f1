// The bytes of Kata's agent protocol, whose other end is somebody else's: each message against what
// protobuf's encoding rules give for Kata's field numbers, worked out by hand, in both directions.
// Our agent and our client share one .proto, so that they agree with each other proves nothing.
//
// A field is a tag, number << 3 | wire type (0: varint, 2: length and bytes), and a value.
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "kata/agent.pb.h"

namespace hatchery::agent {
namespace {

using namespace std::string_view_literals;

// `message` is `bytes` on the wire, and the other way round.
template <class Message>
void ExpectBytes(const Message& message, std::string_view bytes) {
  EXPECT_EQ(message.SerializeAsString(), bytes);
  Message parsed;
  ASSERT_TRUE(parsed.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
  EXPECT_EQ(parsed.SerializeAsString(), bytes);
  EXPECT_NE(parsed.ByteSizeLong(), Message().ByteSizeLong()) << "nothing was understood";
}

TEST(KataAgentWire, Health) {
  ::grpc::CheckRequest check;
  check.set_service("s");
  ExpectBytes(check, "\x0a\x01s"sv);
  ::grpc::HealthCheckResponse healthy;
  healthy.set_status(::grpc::HealthCheckResponse::SERVING);
  ExpectBytes(healthy, "\x08\x01"sv);
  healthy.set_status(::grpc::HealthCheckResponse::NOT_SERVING);
  ExpectBytes(healthy, "\x08\x02"sv);
  ::grpc::VersionCheckResponse version;
  version.set_grpc_version("g");
  version.set_agent_version("a");
  ExpectBytes(version,
              "\x0a\x01g\x12\x01"
              "a"sv);
}

TEST(KataAgentWire, OnlineCpuMem) {
  ::grpc::OnlineCPUMemRequest online;
  online.set_wait(true);
  online.set_nb_cpus(300);
  online.set_cpu_only(true);
  ExpectBytes(online, "\x08\x01\x10\xac\x02\x18\x01"sv);
}

// Field 2, and there is no field 1.
TEST(KataAgentWire, ReseedRandomDev) {
  ::grpc::ReseedRandomDevRequest reseed;
  reseed.set_data("seed");
  ExpectBytes(reseed, "\x12\x04seed"sv);
}

TEST(KataAgentWire, SetGuestDateTime) {
  ::grpc::SetGuestDateTimeRequest time;
  time.set_sec(1);
  time.set_usec(999'999);
  ExpectBytes(time, "\x08\x01\x10\xbf\x84\x3d"sv);
}

TEST(KataAgentWire, GetGuestDetails) {
  ::grpc::GuestDetailsRequest wanted;
  wanted.set_mem_block_size(true);
  wanted.set_mem_hotplug_probe(true);
  ExpectBytes(wanted, "\x08\x01\x10\x01"sv);
  ::grpc::GuestDetailsResponse details;
  details.set_mem_block_size_bytes(128 << 20);
  details.mutable_agent_details()->set_version("3");
  details.set_support_mem_hotplug_probe(true);
  ExpectBytes(details, "\x08\x80\x80\x80\x40\x12\x03\x0a\x01\x33\x18\x01"sv);
}

}  // namespace
}  // namespace hatchery::agent
