// A daemon that is killed, stopped or refused, on a real QEMU: who of the VMs is there afterwards.
#include <gmock/gmock.h>

#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsSubsetOf;

api::AcquireResponse Acquired(TestDaemon& daemon) {
  api::AcquireResponse reply;
  const auto status = daemon.Acquire(&reply);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return reply;
}

api::Vm Show(TestDaemon& daemon, const std::string& vm_id) {
  api::GetVmRequest request;
  request.set_vm_id(vm_id);
  api::GetVmResponse reply;
  const auto status = daemon.cache->GetVm(TestDaemon::Context().get(), request, &reply);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return reply.vm();
}

class RestartTest : public testing::Test {
 protected:
  // A process that ends with the test.
  std::unique_ptr<Process> Spawn(std::vector<std::string> argv) {
    SpawnRequest request;
    request.argv = std::move(argv);
    request.env = MinimalEnvironment();
    return spawner_.Spawn(request).value();
  }
  asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};
};

TEST_F(RestartTest, AKilledDaemonLosesNothing) {
  TestDaemon daemon;
  ASSERT_TRUE(daemon.Init(3).ok());
  const auto running = Acquired(daemon), stopped = Acquired(daemon);
  daemon.Shell(running.vm().vm_id(), "echo still here > /tmp/mark");
  ASSERT_TRUE(Eventually([&] { return daemon.Vmms().size() == 5; }));
  ASSERT_TRUE(daemon.Init(3).ok());  // the clones are warm
  const auto before = daemon.Vmms();

  daemon.Kill();
  const auto stopped_pid = static_cast<pid_t>(stopped.vm().pid());
  ASSERT_EQ(::kill(stopped_pid, SIGSTOP), 0);
  // Who only looks at what a VM printed is none of its VMMs.
  const auto bystander = Spawn({"tail", "-f", running.vm().console_log()});
  daemon.Start();

  // From the pool, whose VMs are the ones that were there.
  const auto another = Acquired(daemon);
  EXPECT_EQ(another.source(), api::AcquireResponse::POOL);
  EXPECT_TRUE(before.contains(static_cast<pid_t>(another.vm().pid())));
  EXPECT_THAT(before, IsSubsetOf(daemon.Vmms()));
  EXPECT_EQ(daemon.Shell(running.vm().vm_id(), "cat /tmp/mark"), "still here");

  // The one that cannot answer is leased as before, and says so.
  const auto& id = stopped.vm().vm_id();
  ASSERT_TRUE(Eventually([&] { return !Show(daemon, id).problem().empty(); }));
  EXPECT_THAT(Show(daemon, id).problem(), HasSubstr("its VMM cannot be reached"));
  EXPECT_EQ(Show(daemon, id).state(), api::VM_STATE_ASSIGNED);
  api::ExecResponse ran;
  EXPECT_EQ(daemon.Exec(id, {"true"}, &ran).error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_EQ(::kill(stopped_pid, SIGCONT), 0);
  EXPECT_TRUE(Eventually([&] { return daemon.Exec(id, {"true"}, &ran).ok(); }));
  EXPECT_TRUE(Eventually([&] { return Show(daemon, id).problem().empty(); }));

  EXPECT_FALSE(bystander->ended());
  EXPECT_TRUE(RunUntilDone(io_, bystander->Kill(After(seconds(10)))).has_value());
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(RestartTest, StoppedVmmsCanBeReleasedAndDestroyed) {
  TestDaemon daemon;
  ASSERT_TRUE(daemon.Init(1).ok());
  const auto released = Acquired(daemon), destroyed = Acquired(daemon);
  daemon.Kill();
  for (const pid_t pid : daemon.Vmms()) ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  daemon.Start();
  EXPECT_TRUE(daemon.Release(released.vm().vm_id()).ok());
  EXPECT_EQ(Show(daemon, destroyed.vm().vm_id()).state(), api::VM_STATE_ASSIGNED);
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(RestartTest, SigtermKeepsLeasedVmsAndEndsTheOthers) {
  TestDaemon daemon;
  ASSERT_TRUE(daemon.Init(2).ok());
  const auto leased = Acquired(daemon);
  EXPECT_EQ(daemon.Stop(), 0);
  const std::set<pid_t> kept = {static_cast<pid_t>(leased.vm().pid())};
  EXPECT_TRUE(Eventually([&] { return daemon.Vmms() == kept; })) << daemon.log();
  daemon.Start();
  EXPECT_EQ(daemon.Shell(leased.vm().vm_id(), "echo here"), "here");
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(RestartTest, WarmVmsAreKeptIfSoConfiguredAndWhenTheSocketIsTaken) {
  TestDaemon daemon({"--stop-warm", "keep"});
  ASSERT_TRUE(daemon.Init(2).ok());
  EXPECT_EQ(daemon.Stop(), 0);
  const auto warm = daemon.Vmms();
  EXPECT_EQ(warm.size(), 2u);
  {
    const auto somebody = ListenUnix(daemon.dir() / "hatchery.sock", 0600);
    ASSERT_TRUE(somebody.has_value());
    auto refused = RunUntilDone(
        io_, RunCommand(spawner_,
                        {(BinDir() / "hatcheryd").string(), "--state-dir", daemon.dir().string()},
                        After(seconds(30))));
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->status.value, 1);
    EXPECT_THAT(refused->err, HasSubstr("another daemon serves"));
  }
  EXPECT_EQ(daemon.Vmms(), warm);
  daemon.Start();
  EXPECT_TRUE(warm.contains(static_cast<pid_t>(Acquired(daemon).vm().pid())));
  daemon.ExpectDestroyLeavesNothing();
}

}  // namespace
}  // namespace hatchery::e2e
