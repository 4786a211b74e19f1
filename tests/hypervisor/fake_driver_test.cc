#include "hypervisor/fake/fake_driver.h"

#include "tests/hypervisor/driver_contract.h"

namespace hatchery::hypervisor {
namespace {

using fake::FakeDriver;
using fake::FakeHost;
using fake::Fault;
using fake::Verb;

class FakeWorld final : public World {
 public:
  explicit FakeWorld(Executor executor) : host(std::move(executor)) {}
  Driver& driver() override { return driver_; }
  std::unique_ptr<Driver> AnotherDriver() override { return std::make_unique<FakeDriver>(host); }
  VmConfig Guest() override {
    return {.kernel = "/bin/true", .initrd = "/bin/true", .accelerator = Accelerator::kTcg};
  }
  void Crash(Vm& vm) override { EXPECT_TRUE(host.Kill(vm.config().id).has_value()); }
  std::size_t Alive() override { return host.live().size(); }

  FakeHost host;

 private:
  FakeDriver driver_{host};
};

INSTANTIATE_TEST_SUITE_P(Fake, DriverContract, testing::Values([](asio::io_context& io) {
                           return std::make_unique<FakeWorld>(io.get_executor());
                         }));

class FakeDriverTest : public testing::Test {
 protected:
  std::unique_ptr<Vm> Created() {
    VmConfig config = world_.Guest();
    config.id = VmId(NewId("vm"));
    config.run_dir = "/tmp";
    return world_.driver().Create(config).value();
  }
  std::unique_ptr<Vm> Started() {
    auto vm = Created();
    RunUntilDone(io_, vm->Start(Soon())).value();
    return vm;
  }
  static Deadline Soon() { return After(seconds(20)); }

  asio::io_context io_;
  FakeWorld world_{io_.get_executor()};
  FakeHost& host_ = world_.host;
};

TEST_F(FakeDriverTest, AnInjectedFailureComesOnceAndBreaksTheVm) {
  host_.Inject(Verb::kPause, {.error = {Code::kInternal, "no"}});
  auto vm = Started();
  EXPECT_EQ(RunUntilDone(io_, vm->Pause(Soon())).error().message, "no");
  EXPECT_EQ(vm->state(), VmState::kFailed);
  auto other = Started();
  EXPECT_TRUE(RunUntilDone(io_, other->Pause(Soon())).has_value());
  EXPECT_EQ(host_.live().size(), 2u);
}

TEST_F(FakeDriverTest, VmsHaveContextIdsOfTheirOwnWhereTheHostHasVsock) {
  EXPECT_FALSE(Started()->endpoints().agent_vsock.has_value());
  host_.next_cid = 7;
  auto vm = Started();
  EXPECT_EQ(vm->endpoints().agent_vsock, (VsockEndpoint{.cid = 7, .port = 1024}));
  EXPECT_EQ(Started()->endpoints().agent_vsock, (VsockEndpoint{.cid = 8, .port = 1024}));
  const auto found = world_.driver().Find(vm->Handle()).value();
  EXPECT_EQ(found->endpoints().agent_vsock, vm->endpoints().agent_vsock);
  ASSERT_TRUE(RunUntilDone(io_, vm->Stop(Soon())).has_value());
  EXPECT_FALSE(vm->endpoints().agent_vsock.has_value()) << "it may be another's by now";
}

TEST_F(FakeDriverTest, AFailedStartLeavesNothing) {
  host_.Inject(Verb::kStart, {});
  auto vm = Created();
  EXPECT_FALSE(RunUntilDone(io_, vm->Start(Soon())).has_value());
  EXPECT_EQ(vm->state(), VmState::kFailed);
  EXPECT_TRUE(host_.live().empty());
  EXPECT_TRUE(RunUntilDone(io_, vm->Stop(Soon())).has_value());
}

TEST_F(FakeDriverTest, AHangingVerbEndsAtItsDeadlineOrWithTheVm) {
  host_.Inject(Verb::kResume, {.kind = Fault::Kind::kHang});
  host_.Inject(Verb::kPause, {.kind = Fault::Kind::kHang});
  auto vm = Started();
  EXPECT_EQ(RunUntilDone(io_, vm->Pause(After(milliseconds(2)))).error().code,
            Code::kDeadlineExceeded);
  EXPECT_EQ(vm->state(), VmState::kFailed);

  host_.Inject(Verb::kPause, {.kind = Fault::Kind::kHang});
  auto other = Started();
  std::optional<Result<void>> seen;
  asio::co_spawn(io_, other->Pause(Soon()),
                 [&](std::exception_ptr, Result<void> result) { seen = std::move(result); });
  RunUntilDone(io_, SleepFor(milliseconds(1))).value();
  ASSERT_TRUE(host_.Kill(other->config().id).has_value());
  RunUntilDone(io_, SleepFor(milliseconds(1))).value();
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->error().code, Code::kUnavailable);
  EXPECT_EQ(other->state(), VmState::kStopped);
}

TEST_F(FakeDriverTest, AVmmThatDiesInAVerbEndsTheVm) {
  host_.Inject(Verb::kPause, {.kind = Fault::Kind::kVmmDies});
  auto vm = Started();
  EXPECT_EQ(RunUntilDone(io_, vm->Pause(Soon())).error().code, Code::kUnavailable);
  EXPECT_EQ(vm->state(), VmState::kStopped);
  EXPECT_EQ(RunUntilDone(io_, vm->Wait(Soon())).value().kind, ExitReason::Kind::kVmmExited);
  EXPECT_TRUE(host_.live().empty());
}

TEST_F(FakeDriverTest, ADelayIsKeptAndBoundedByTheDeadline) {
  host_.SetDelay(Verb::kPause, milliseconds(5));
  auto vm = Started();
  const auto before = std::chrono::steady_clock::now();
  EXPECT_TRUE(RunUntilDone(io_, vm->Pause(Soon())).has_value());
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(5));
  host_.SetDelay(Verb::kResume, seconds(1000));
  EXPECT_EQ(RunUntilDone(io_, vm->Resume(After(milliseconds(1)))).error().code,
            Code::kDeadlineExceeded);
}

TEST_F(FakeDriverTest, WhatItDoesNotSupportItRefuses) {
  host_.unsupported.insert({Resource::kMemory, Operation::kHotAdd});
  auto vm = Started();
  EXPECT_FALSE(vm->Supports(Resource::kMemory, Operation::kHotAdd));
  EXPECT_EQ(RunUntilDone(io_, vm->AddMemory(kMemoryBlock, Soon())).error().code,
            Code::kUnimplemented);
  EXPECT_TRUE(RunUntilDone(io_, vm->AddVcpus(1, Soon())).has_value());
  EXPECT_EQ(vm->state(), VmState::kRunning);
}

TEST_F(FakeDriverTest, TenThousandVmsAreCheap) {
  std::vector<std::unique_ptr<Vm>> vms;
  for (int i = 0; i < 10'000; ++i) vms.push_back(Started());
  EXPECT_EQ(host_.live().size(), 10'000u);
  for (auto& vm : vms) RunUntilDone(io_, vm->Stop(Soon())).value();
  EXPECT_TRUE(host_.live().empty());
}

}  // namespace
}  // namespace hatchery::hypervisor
