#include <sys/stat.h>

#include "tests/agent/guest_harness.h"

namespace hatchery::agent::guest {
namespace {

class PersonalizeTest : public GuestTest {
 protected:
  static v1::PersonalizeRequest Full() {
    v1::PersonalizeRequest request;
    request.set_seed(std::string(32, 's'));
    request.set_time_unix_ns(1'700'000'000'123'456'789);
    request.set_hostname("sandbox-1");
    request.set_machine_id("0123456789ABCDEF0123456789abcdef");
    request.set_renew_boot_id(true);
    request.set_vcpus(1);
    request.set_memory_bytes(256u << 20);
    return request;
  }
  Result<v1::PersonalizeResponse> Personalize(TestClient& client,
                                              const v1::PersonalizeRequest& request,
                                              std::chrono::nanoseconds timeout = {}) {
    return client.Ask<v1::PersonalizeResponse>(kGuest, "Personalize", request, timeout);
  }
};

TEST_F(PersonalizeTest, ConfirmsEveryPart) {
  TestClient client = Connect();
  const auto response = Personalize(client, Full());
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_TRUE(response->reseeded() && response->clock_set() && response->hostname_set() &&
              response->machine_id_set());
  EXPECT_EQ(response->online_vcpus(), 1u);
  EXPECT_EQ(response->online_memory_bytes(), 256u << 20);
  EXPECT_THAT(guest_.Effects(),
              testing::ElementsAre("seed 32", "clock 1700000000123456789", "hostname sandbox-1",
                                   "bind /proc/sys/kernel/random/boot_id"));
  EXPECT_EQ(guest_.Read("/etc/hostname"), "sandbox-1");
  EXPECT_EQ(guest_.Read("/etc/machine-id"), "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(guest_.Read("/proc/sys/kernel/random/boot_id"), response->boot_id());
}

TEST_F(PersonalizeTest, LeavesAloneWhatIsEmpty) {
  TestClient client = Connect();
  v1::PersonalizeRequest request;
  request.set_seed(std::string(64, 's'));
  request.set_time_unix_ns(1);
  const auto response = Personalize(client, request);
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_FALSE(response->hostname_set() || response->machine_id_set());
  EXPECT_EQ(response->boot_id(), "");
  EXPECT_THAT(guest_.Effects(), testing::ElementsAre("seed 64", "clock 1"));
}

TEST_F(PersonalizeTest, RenewsTheBootIdAgain) {
  TestClient client = Connect();
  const auto first = Personalize(client, Full());
  const auto second = Personalize(client, Full());
  EXPECT_NE(first->boot_id(), second->boot_id());
  EXPECT_THAT(second->boot_id(),
              testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-"
                                    "[0-9a-f]{12}"));
  EXPECT_EQ(guest_.Read("/proc/sys/kernel/random/boot_id"), second->boot_id());
  const auto effects = guest_.Effects();
  EXPECT_EQ(std::count(effects.begin(), effects.end(), "bind /proc/sys/kernel/random/boot_id"), 1)
      << "mounted once, then rewritten";
}

TEST_F(PersonalizeTest, RewritesItsFilesInPlace) {
  TestClient client = Connect();
  auto request = Full();
  request.set_hostname("a-rather-long-hostname");
  ASSERT_TRUE(Personalize(client, request).has_value());
  // It stays the same file, as it may be a bind mount, and nothing of the longer name is left.
  struct stat before{}, after{};
  ASSERT_EQ(::stat(guest_.Path("/etc/hostname").c_str(), &before), 0);
  request.set_hostname("short");
  ASSERT_TRUE(Personalize(client, request).has_value());
  ASSERT_EQ(::stat(guest_.Path("/etc/hostname").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(*ReadFile(guest_.Path("/etc/hostname")), "short\n");
}

TEST_F(PersonalizeTest, FollowsAFileThatWasReplaced) {
  TestClient client = Connect();
  ASSERT_TRUE(Personalize(client, Full()).has_value());
  guest_.Put("/etc/hostname", "by somebody else\n");  // renamed into place
  ASSERT_TRUE(Personalize(client, Full()).has_value());
  EXPECT_EQ(guest_.Read("/etc/hostname"), "sandbox-1");
}

TEST_F(PersonalizeTest, RefusesABadRequestBeforeAnyEffect) {
  TestClient client = Connect();
  std::map<std::string, v1::PersonalizeRequest> bad;
  (bad["seed"] = Full()).set_seed(std::string(31, 's'));
  (bad["time_unix_ns"] = Full()).set_time_unix_ns(0);
  (bad["hostname"] = Full()).set_hostname("two words");
  (bad["machine_id"] = Full()).set_machine_id("0123");
  for (const auto& [field, request] : bad) {
    const auto response = Personalize(client, request);
    ASSERT_FALSE(response.has_value()) << field;
    EXPECT_EQ(response.error().code, Code::kInvalidArgument);
    EXPECT_THAT(response.error().message, testing::StartsWith(field + ": "));
  }
  EXPECT_THAT(guest_.Effects(), testing::IsEmpty());
}

TEST_F(PersonalizeTest, NamesThePartThatFailedAndDoesNoneAfterIt) {
  TestClient client = Connect();
  const std::map<std::string, std::string> parts = {
      {"seed", "seed"}, {"clock", "clock"}, {"hostname", "hostname"}, {"bind", "boot_id"}};
  for (const auto& [failing, part] : parts) {
    guest_.Heal();
    guest_.Fail(failing, Error{Code::kPermissionDenied, "not allowed"});
    const auto response = Personalize(client, Full());
    ASSERT_FALSE(response.has_value()) << part;
    EXPECT_EQ(response.error().code, Code::kInternal);
    EXPECT_THAT(response.error().message, testing::StartsWith(part + ": "));
  }
  guest_.Heal();
  guest_.Fail("seed", Error{Code::kInternal, "no"});
  const auto before = guest_.Effects();
  EXPECT_FALSE(Personalize(client, Full()).has_value());
  EXPECT_EQ(guest_.Effects(), before);
}

TEST_F(PersonalizeTest, WaitsForACpuThatAppearsLater) {
  TestClient client = Connect();
  v1::PersonalizeRequest request = Full();
  request.set_vcpus(2);
  const std::uint32_t id = client.Send(kGuest, "Personalize", request.SerializeAsString());
  ASSERT_TRUE(client.Check().has_value()) << "the loop must not be blocked";
  guest_.AddCpu(1, "0");
  Announce("cpu");
  const auto payload = client.AnswerTo(id);
  ASSERT_TRUE(payload.has_value()) << ToString(payload.error());
  v1::PersonalizeResponse response;
  ASSERT_TRUE(response.ParseFromString(*payload));
  EXPECT_EQ(response.online_vcpus(), 2u);
  EXPECT_EQ(guest_.Read("/sys/devices/system/cpu/cpu1/online"), "1");
}

TEST_F(PersonalizeTest, DoesNotMissWhatAppearsWhileItIsBusy) {
  // The worker stands in the write that onlines cpu1 until cpu2 was added and announced.
  std::atomic<bool> writing = false, go_on = false;
  guest_.before_write = [&](std::string_view path) {
    if (!path.ends_with("cpu1/online")) return;
    writing = true;
    writing.notify_all();
    go_on.wait(false);
  };
  TestClient client = Connect();
  v1::PersonalizeRequest request = Full();
  request.set_vcpus(3);
  const std::uint32_t id = client.Send(kGuest, "Personalize", request.SerializeAsString());
  ASSERT_TRUE(client.Check().has_value());
  guest_.AddCpu(1, "0");
  Announce("cpu");
  writing.wait(false);
  guest_.AddCpu(2, "0");
  Announce("cpu");
  ASSERT_TRUE(client.Check().has_value()) << "so that the event has been handled";
  go_on = true;
  go_on.notify_all();
  EXPECT_TRUE(client.AnswerTo(id).has_value());
}

TEST_F(PersonalizeTest, DoesNotWaitForWhatIsNotAskedFor) {
  // The worker stands in the write that onlines cpu1 until the reply is there.
  std::atomic<bool> go_on = false;
  guest_.before_write = [&](std::string_view path) {
    if (path.ends_with("cpu1/online")) go_on.wait(false);
  };
  TestClient client = Connect();
  guest_.AddCpu(1, "0");
  Announce("cpu");
  v1::PersonalizeRequest request = Full();
  request.set_vcpus(0);
  request.set_memory_bytes(0);
  const auto response = Personalize(client, request);
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_TRUE(response->reseeded() && response->clock_set() && response->hostname_set() &&
              response->machine_id_set());
  EXPECT_EQ(response->online_vcpus(), 1u);
  EXPECT_EQ(response->online_memory_bytes(), 256u << 20);

  v1::AwaitOnlineRequest all;
  all.set_vcpus(2);
  all.set_memory_bytes(256u << 20);
  const std::uint32_t id = client.Send(kGuest, "AwaitOnline", all.SerializeAsString());
  ASSERT_TRUE(client.Check().has_value());
  go_on = true;
  go_on.notify_all();
  const auto payload = client.AnswerTo(id);
  ASSERT_TRUE(payload.has_value()) << ToString(payload.error());
  v1::AwaitOnlineResponse online;
  ASSERT_TRUE(online.ParseFromString(*payload));
  EXPECT_EQ(online.online_vcpus(), 2u);
  EXPECT_EQ(online.problem(), "");
}

TEST_F(PersonalizeTest, AwaitOnlineSaysWhatThereIsAtItsTimeout) {
  guest_.AddMemoryBlock(32, "offline");
  TestClient client = Connect();
  v1::AwaitOnlineRequest request;
  request.set_vcpus(2);
  request.set_memory_bytes(384u << 20);
  request.set_timeout_ms(50);
  const auto online = client.Ask<v1::AwaitOnlineResponse>(kGuest, "AwaitOnline", request);
  ASSERT_TRUE(online.has_value()) << ToString(online.error());
  EXPECT_EQ(online->problem(), "vcpus: 1 of 2 online after 50 ms");
  EXPECT_EQ(online->online_vcpus(), 1u);
  EXPECT_EQ(online->online_memory_bytes(), 384u << 20);
}

TEST_F(PersonalizeTest, OnlinesMemoryAsMovable) {
  TestClient client = Connect();
  v1::PersonalizeRequest request = Full();
  request.set_memory_bytes(512u << 20);
  const std::uint32_t id = client.Send(kGuest, "Personalize", request.SerializeAsString());
  guest_.AddMemoryBlock(32, "offline");
  guest_.AddMemoryBlock(33, "offline");
  Announce("memory");
  const auto payload = client.AnswerTo(id);
  ASSERT_TRUE(payload.has_value()) << ToString(payload.error());
  EXPECT_THAT(guest_.Effects(),
              testing::IsSupersetOf({"/sys/devices/system/memory/memory32/state=online_movable",
                                     "/sys/devices/system/memory/memory33/state=online_movable"}));
}

TEST_F(PersonalizeTest, SaysHowMuchIsMissingAtTheTimeout) {
  TestClient client = Connect();
  v1::PersonalizeRequest request = Full();
  request.set_vcpus(2);
  request.set_timeout_ms(50);
  const auto cpus = Personalize(client, request);
  ASSERT_FALSE(cpus.has_value());
  EXPECT_EQ(cpus.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(cpus.error().message, "vcpus: 1 of 2 online after 50 ms");
  request.set_vcpus(1);
  request.set_memory_bytes(384u << 20);
  EXPECT_EQ(Personalize(client, request).error().message,
            "memory: 256 MiB of 384 MiB online after 50 ms");
}

TEST_F(PersonalizeTest, TheEnvelopesTimeoutBoundsTheWaitToo) {
  TestClient client = Connect();
  v1::PersonalizeRequest request = Full();
  request.set_vcpus(2);
  const auto response = Personalize(client, request, std::chrono::milliseconds(50));
  EXPECT_EQ(response.error().code, Code::kDeadlineExceeded);
}

TEST_F(PersonalizeTest, RetriesAWriteThatFailedForAMoment) {
  guest_.Fail("/sys/devices/system/cpu/cpu1/online", Error{Code::kInternal, "busy"});
  guest_.AddCpu(1, "0");
  TestClient client = Connect();
  v1::PersonalizeRequest request = Full();
  request.set_vcpus(2);
  request.set_timeout_ms(100);
  EXPECT_EQ(Personalize(client, request).error().message,
            "vcpus: 1 of 2 online after 100 ms (busy)");
  request.set_timeout_ms(20'000);
  const std::uint32_t id = client.Send(kGuest, "Personalize", request.SerializeAsString());
  ASSERT_TRUE(client.Check().has_value());
  guest_.Heal();
  EXPECT_TRUE(client.AnswerTo(id).has_value()) << "without any further uevent";
}

TEST_F(PersonalizeTest, BringsOnlineWithoutBeingAsked) {
  TestClient client = Connect();
  guest_.AddCpu(1, "0");
  Announce("cpu");
  grpc::OnlineCPUMemRequest kata;
  kata.set_wait(true);
  kata.set_nb_cpus(1);
  EXPECT_TRUE(client.Call("grpc.AgentService", "OnlineCPUMem", kata.SerializeAsString()));
  EXPECT_EQ(guest_.Read("/sys/devices/system/cpu/cpu1/online"), "1");
}

TEST_F(PersonalizeTest, LeavesOfflineWhatSomebodyTookOffline) {
  TestClient client = Connect();
  guest_.AddCpu(1, "0");
  server_->InjectUevent({.action = "offline", .subsystem = "cpu"});
  ASSERT_TRUE(client.Call(kGuest, "PrepareSave", "").has_value()) << "after it on the same worker";
  EXPECT_EQ(guest_.Read("/sys/devices/system/cpu/cpu1/online"), "0");
}

TEST_F(PersonalizeTest, KataReseedsAndSetsTheClock) {
  TestClient client = Connect();
  EXPECT_EQ(client.Call("grpc.AgentService", "ReseedRandomDev", "").error().code,
            Code::kInvalidArgument);
  grpc::ReseedRandomDevRequest seed;
  seed.set_data("sixteen bytes ok");
  EXPECT_TRUE(client.Call("grpc.AgentService", "ReseedRandomDev", seed.SerializeAsString()));
  grpc::SetGuestDateTimeRequest time;
  time.set_sec(1'700'000'000);
  time.set_usec(42);
  EXPECT_TRUE(client.Call("grpc.AgentService", "SetGuestDateTime", time.SerializeAsString()));
  time.set_usec(1'000'000);
  EXPECT_EQ(
      client.Call("grpc.AgentService", "SetGuestDateTime", time.SerializeAsString()).error().code,
      Code::kInvalidArgument);
  EXPECT_THAT(guest_.Effects(), testing::ElementsAre("seed 16", "clock 1700000000000042000"));
  grpc::GuestDetailsRequest details;
  details.set_mem_block_size(true);
  details.set_mem_hotplug_probe(true);
  const auto answer =
      client.Ask<grpc::GuestDetailsResponse>("grpc.AgentService", "GetGuestDetails", details);
  EXPECT_EQ(answer->mem_block_size_bytes(), 128u << 20);
  EXPECT_FALSE(answer->support_mem_hotplug_probe());
  EXPECT_EQ(answer->agent_details().version(), HATCHERY_VERSION);
}

TEST(CountCpuList, ReadsTheKernelsLists) {
  EXPECT_EQ(CountCpuList("0"), 1u);
  EXPECT_EQ(CountCpuList("0-3,5,7-8"), 7u);
  for (const char* bad : {"", "x", "3-1", "0-", "0;1"}) EXPECT_EQ(CountCpuList(bad), 0u) << bad;
}

}  // namespace
}  // namespace hatchery::agent::guest
