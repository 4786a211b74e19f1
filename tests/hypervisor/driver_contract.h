// What every driver must do, whatever it drives: included by one test program per driver, which
// instantiates DriverContract with its own World.
#pragma once

#include "tests/hypervisor/driver_fixture.h"

namespace hatchery::hypervisor {

TEST_P(DriverContract, AColdVmRunsPausesAndStops) {
  auto vm = Create(Cold());
  EXPECT_EQ(vm->state(), VmState::kCreated);
  ASSERT_TRUE(Run(vm->Start(Soon())).has_value());
  EXPECT_EQ(vm->state(), VmState::kRunning);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(Run(vm->Pause(Soon())).has_value());
    EXPECT_EQ(vm->state(), VmState::kPaused);
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(Run(vm->Resume(Soon())).has_value());
    EXPECT_EQ(vm->state(), VmState::kRunning);
  }
  Stop(*vm);
  Stop(*vm);
}

TEST_P(DriverContract, RefusesVerbsOutsideTheirState) {
  auto vm = Create(Cold());
  ExpectOnly(*vm, {"Start"});
  ASSERT_TRUE(Run(vm->Start(Soon())).has_value());
  ExpectOnly(*vm, {"Pause", "Resume", "AddVcpus", "AddMemory", "RemoveVcpus", "RemoveMemory"});
  ASSERT_TRUE(Run(vm->Pause(Soon())).has_value());
  // Save as well: it is no template.
  ExpectOnly(*vm, {"Pause", "Resume", "AddVcpus", "AddMemory", "HandOver"});
  Stop(*vm);
  ExpectOnly(*vm, {});

  const UniqueFd memory = SealedMemory();
  auto clone = Started(Clone(memory.get()));
  EXPECT_EQ(clone->state(), VmState::kLoading);
  ExpectOnly(*clone, {"Load"});
  Stop(*clone);
}

TEST_P(DriverContract, StopsFromEveryState) {
  auto created = Create(Cold());
  Stop(*created);
  ExpectOnly(*created, {});

  const UniqueFd memory = SealedMemory();
  auto loading = Started(Clone(memory.get()));
  Stop(*loading);

  auto paused = Started(Cold());
  ASSERT_TRUE(Run(paused->Pause(Soon())).has_value());
  Stop(*paused);

  auto crashed = Started(Cold());
  world_->Crash(*crashed);
  Stop(*crashed);
}

TEST_P(DriverContract, SeveralMayWaitForTheEndAndAgain) {
  auto vm = Started(Cold());
  auto early = Run(vm->Wait(After(milliseconds(1))));
  ASSERT_FALSE(early.has_value());
  EXPECT_EQ(early.error().code, Code::kDeadlineExceeded);

  TaskScope scope(io_.get_executor());
  int ended = 0;
  for (int i = 0; i < 3; ++i) {
    scope.Spawn("waiter", [](Vm& v, int& count) -> asio::awaitable<void> {
      const auto reason = co_await v.Wait(Soon());
      if (reason && reason->kind == ExitReason::Kind::kStopped) ++count;
    }(*vm, ended));
  }
  Stop(*vm);
  Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope))
      .value();
  EXPECT_EQ(ended, 3);
  EXPECT_EQ(Run(vm->Wait(Soon())).value().kind, ExitReason::Kind::kStopped);
}

TEST_P(DriverContract, ACrashEndsTheVm) {
  auto vm = Started(Cold());
  world_->Crash(*vm);
  const auto reason = Run(vm->Wait(Soon()));
  ASSERT_TRUE(reason.has_value()) << ToString(reason.error());
  EXPECT_EQ(reason->kind, ExitReason::Kind::kVmmExited);
  EXPECT_FALSE(reason->detail.empty());
  EXPECT_EQ(vm->state(), VmState::kStopped);
  ExpectOnly(*vm, {});
  Stop(*vm);
  EXPECT_EQ(Run(vm->Wait(Soon())).value().kind, ExitReason::Kind::kVmmExited);
}

TEST_P(DriverContract, ClonesOfOneStateRunSideBySide) {
  const Saved saved = SaveTemplate();
  std::vector<std::unique_ptr<Vm>> clones;
  for (int i = 0; i < 2; ++i) clones.push_back(Started(Clone(saved.memory.get())));
  TaskScope scope(io_.get_executor());
  for (auto& clone : clones) {
    // At once, from one descriptor.
    scope.Spawn("load", [](Vm& vm, int fd) -> asio::awaitable<void> {
      auto loaded = co_await vm.Load(fd, Soon());
      EXPECT_TRUE(loaded.has_value()) << ToString(loaded.error());
    }(*clone, saved.state.get()));
  }
  Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope))
      .value();
  for (auto& clone : clones) {
    EXPECT_EQ(clone->state(), VmState::kPaused);
    EXPECT_TRUE(Run(clone->Resume(Soon())).has_value());
    EXPECT_TRUE(Run(clone->Pause(Soon())).has_value());
    Stop(*clone);
  }
}

TEST_P(DriverContract, ATruncatedStateIsRefused) {
  const Saved saved = SaveTemplate();
  const off_t size = ::lseek(saved.state.get(), 0, SEEK_END);
  ASSERT_GT(size, 0);
  ASSERT_EQ(::ftruncate(saved.state.get(), size / 2), 0);
  ::lseek(saved.state.get(), 0, SEEK_SET);
  auto clone = Started(Clone(saved.memory.get()));
  auto loaded = Run(clone->Load(saved.state.get(), Soon()));
  ASSERT_FALSE(loaded.has_value());
  EXPECT_GT(loaded.error().message.size(), 30u) << loaded.error().message;
  EXPECT_TRUE(clone->state() == VmState::kFailed || clone->state() == VmState::kStopped);
  ExpectOnly(*clone, {});
  Stop(*clone);
}

TEST_P(DriverContract, HotAddsUpToItsMaximaAndNoFurther) {
  auto vm = Started(Cold());
  EXPECT_EQ(vm->vcpus(), 1u);
  ASSERT_TRUE(Run(vm->AddVcpus(1, Soon())).has_value());
  ASSERT_TRUE(Run(vm->AddMemory(kMemoryBlock, Soon())).has_value());
  ASSERT_TRUE(Run(vm->Pause(Soon())).has_value());
  auto added = Run(vm->AddVcpus(2, Soon()));
  ASSERT_TRUE(added.has_value()) << ToString(added.error());
  added = Run(vm->AddMemory(Bytes::MiB(512), Soon()));
  ASSERT_TRUE(added.has_value()) << ToString(added.error());
  EXPECT_EQ(vm->vcpus(), 4u);
  EXPECT_EQ(vm->memory(), Bytes::MiB(768));

  EXPECT_EQ(Run(vm->AddVcpus(1, Soon())).error().code, Code::kResourceExhausted);
  EXPECT_EQ(Run(vm->AddMemory(Bytes::MiB(384), Soon())).error().code, Code::kResourceExhausted);
  EXPECT_EQ(Run(vm->AddMemory(Bytes::MiB(100), Soon())).error().code, Code::kInvalidArgument);
  EXPECT_EQ(Run(vm->AddMemory(Bytes(), Soon())).error().code, Code::kInvalidArgument);
  EXPECT_EQ(vm->vcpus(), 4u);
  EXPECT_EQ(vm->memory(), Bytes::MiB(768));
  EXPECT_EQ(vm->state(), VmState::kPaused);
  EXPECT_TRUE(Run(vm->Resume(Soon())).has_value());
  Stop(*vm);
}

TEST_P(DriverContract, RunsOutOfMemorySlots) {
  VmConfig config = Cold();
  config.max_memory = Bytes::GiB(2);
  auto vm = Started(config);
  for (std::uint32_t i = 0; i < kMemorySlots; ++i) {
    ASSERT_TRUE(Run(vm->AddMemory(kMemoryBlock, Soon())).has_value());
  }
  EXPECT_EQ(Run(vm->AddMemory(kMemoryBlock, Soon())).error().code, Code::kResourceExhausted);
  EXPECT_EQ(vm->state(), VmState::kRunning);
  Stop(*vm);
}

TEST_P(DriverContract, RemovesOnlyWhatWasHotAdded) {
  auto vm = Started(Cold());
  EXPECT_EQ(Run(vm->RemoveVcpus(1, Soon())).error().code,
            vm->Supports(Resource::kVcpu, Operation::kHotRemove) ? Code::kResourceExhausted
                                                                 : Code::kUnimplemented);
  EXPECT_EQ(Run(vm->RemoveMemory(kMemoryBlock, Soon())).error().code, Code::kResourceExhausted);
  ASSERT_TRUE(Run(vm->AddMemory(Bytes::MiB(256), Soon())).has_value());
  // Half a piece.
  EXPECT_EQ(Run(vm->RemoveMemory(kMemoryBlock, Soon())).error().code, Code::kInvalidArgument);
  EXPECT_EQ(vm->memory(), kSize + Bytes::MiB(256));
  EXPECT_EQ(vm->state(), VmState::kRunning);
  Stop(*vm);
}

TEST_P(DriverContract, AnotherDriverTakesOver) {
  auto vm = Started(Cold());
  ASSERT_TRUE(Run(vm->AddVcpus(2, Soon())).has_value());
  ASSERT_TRUE(Run(vm->AddMemory(Bytes::MiB(256), Soon())).has_value());
  ASSERT_TRUE(Run(vm->Pause(Soon())).has_value());
  const std::string handle = vm->Handle();
  const VmConfig config = vm->config();
  vm.reset();

  const auto driver = world_->AnotherDriver();
  auto adopted = Run(driver->Adopt(handle, Soon()));
  ASSERT_TRUE(adopted.has_value()) << ToString(adopted.error());
  Vm& again = **adopted;
  EXPECT_EQ(again.state(), VmState::kPaused);
  EXPECT_EQ(again.config().id, config.id);
  EXPECT_EQ(again.config().run_dir, config.run_dir);
  EXPECT_EQ(again.config().max_vcpus, config.max_vcpus);
  EXPECT_EQ(again.vcpus(), 3u);
  EXPECT_EQ(again.memory(), kSize + Bytes::MiB(256));
  EXPECT_TRUE(Run(again.AddVcpus(1, Soon())).has_value());
  EXPECT_TRUE(Run(again.AddMemory(kMemoryBlock, Soon())).has_value());
  EXPECT_TRUE(Run(again.Resume(Soon())).has_value());
  Stop(again);
  EXPECT_EQ(Run(driver->Adopt(handle, Soon())).error().code, Code::kNotFound);
}

TEST_P(DriverContract, FindsItsVmmsWithoutARecord) {
  auto vm = Started(Cold());
  const auto id = vm->config().id;
  const auto root = vm->config().run_dir.parent_path();
  const auto driver = world_->AnotherDriver();
  const auto found = driver->FindStrays(root);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].id, id);
  EXPECT_EQ(found[0].process.pid, vm->endpoints().pid);
  EXPECT_TRUE(driver->FindStrays(root.parent_path()).empty()) << "another daemon's";
  EXPECT_TRUE(driver->FindStrays(root / "elsewhere").empty());
  // What is known is left alone.
  driver->RemoveRemains(root, [&](const VmId& other) { return other == id; });
  EXPECT_EQ(world_->Alive(), 1u);
  Stop(*vm);
  EXPECT_TRUE(driver->FindStrays(root).empty());
}

TEST_P(DriverContract, AdoptsAWaitingCloneAndItsCrash) {
  const Saved saved = SaveTemplate();
  auto vm = Started(Clone(saved.memory.get()));
  const std::string handle = vm->Handle();
  vm.reset();
  auto adopted = Run(world_->driver().Adopt(handle, Soon()));
  ASSERT_TRUE(adopted.has_value()) << ToString(adopted.error());
  EXPECT_EQ((*adopted)->state(), VmState::kLoading);
  auto loaded = Run((*adopted)->Load(saved.state.get(), Soon()));
  EXPECT_TRUE(loaded.has_value()) << ToString(loaded.error());
  world_->Crash(**adopted);
  EXPECT_EQ(Run((*adopted)->Wait(Soon())).value().kind, ExitReason::Kind::kVmmExited);
  Stop(**adopted);
}

TEST_P(DriverContract, HandsAPausedVmOver) {
  auto vm = Started(Cold());
  ASSERT_TRUE(Run(vm->AddVcpus(2, Soon())).has_value());
  ASSERT_TRUE(Run(vm->Pause(Soon())).has_value());
  const auto handover = Run(vm->HandOver(Soon()));
  ASSERT_TRUE(handover.has_value()) << ToString(handover.error());
  EXPECT_FALSE(handover->uuid.empty());
  EXPECT_EQ(handover->vcpus, 1u);
  EXPECT_EQ(handover->max_vcpus, 4u);
  EXPECT_EQ(handover->hot_vcpus, (std::vector<std::string>{"cpu-0", "cpu-1"}));
  ASSERT_EQ(handover->bridges.size(), 1u);
  EXPECT_EQ(handover->bridges[0].id, "pci-bridge-0");

  EXPECT_EQ(vm->state(), VmState::kHandedOver);
  EXPECT_FALSE(vm->reachable());
  ExpectOnly(*vm, {});
  EXPECT_EQ(Run(vm->Reconnect(Soon())).error().code, Code::kFailedPrecondition);
  EXPECT_TRUE(Run(vm->Stats(Soon())).has_value());
  EXPECT_EQ(world_->Alive(), 1u);
  Stop(*vm);
}

TEST_P(DriverContract, WhatWasHandedOverIsSoForAnotherDriver) {
  auto vm = Started(Cold());
  ASSERT_TRUE(Run(vm->Pause(Soon())).has_value());
  ASSERT_TRUE(Run(vm->HandOver(Soon())).has_value());
  const std::string handle = vm->Handle();
  vm.reset();

  const auto driver = world_->AnotherDriver();
  auto found = driver->Find(handle);
  ASSERT_TRUE(found.has_value()) << ToString(found.error());
  EXPECT_EQ((*found)->state(), VmState::kHandedOver);
  EXPECT_EQ(Run((*found)->Reconnect(Soon())).error().code, Code::kFailedPrecondition);
  EXPECT_EQ((*found)->state(), VmState::kHandedOver);
  world_->Crash(**found);
  EXPECT_TRUE(Run((*found)->Wait(Soon())).has_value());
  Stop(**found);
}

TEST_P(DriverContract, RefusesHandlesThatAreNotItsOwn) {
  for (const char* bad : {"", "x", "[1]", "\xff\xfe"}) {
    auto adopted = Run(world_->driver().Adopt(bad, Soon()));
    ASSERT_FALSE(adopted.has_value());
    EXPECT_EQ(adopted.error().code, Code::kDataLoss) << ToString(adopted.error());
  }
  auto other = Run(world_->driver().Adopt(R"({"driver": "other", "version": 1})", Soon()));
  EXPECT_EQ(other.error().code, Code::kFailedPrecondition);
}

TEST_P(DriverContract, TellsWhatAVmCosts) {
  auto vm = Create(Cold());
  EXPECT_EQ(Run(vm->Stats(Soon())).error().code, Code::kFailedPrecondition);
  ASSERT_TRUE(Run(vm->Start(Soon())).has_value());
  const auto stats = Run(vm->Stats(Soon()));
  ASSERT_TRUE(stats.has_value()) << ToString(stats.error());
  EXPECT_EQ(stats->assigned, kSize);
  EXPECT_GT(stats->resident, Bytes::MiB(1));
  EXPECT_GT(stats->private_memory, Bytes::MiB(1));
  EXPECT_LE(stats->private_memory, stats->resident);
  EXPECT_GT(stats->cpu_time.count(), 0);
  Stop(*vm);
  EXPECT_EQ(Run(vm->Stats(Soon())).error().code, Code::kFailedPrecondition);
}

TEST_P(DriverContract, TheAgentsEndpointIsInTheRunDir) {
  auto vm = Started(Cold());
  EXPECT_EQ(vm->endpoints().agent, Endpoint(UnixEndpoint{vm->config().run_dir / "agent.sock"}));
  Stop(*vm);
}

TEST_P(DriverContract, DescribesEqualVmsEqually) {
  const UniqueFd memory = SealedMemory();
  const VmConfig cold = Cold();
  const auto print = Run(world_->driver().Describe(cold, Soon()));
  ASSERT_TRUE(print.has_value()) << ToString(print.error());
  EXPECT_FALSE(print->at("vmm.version").empty());
  // A clone's devices are its template's; whose VM it is does not matter.
  EXPECT_EQ(*print, Run(world_->driver().Describe(Clone(memory.get()), Soon())).value());
  VmConfig larger = cold;
  larger.vcpus = 2;
  EXPECT_NE(*print, Run(world_->driver().Describe(larger, Soon())).value());
}

TEST_P(DriverContract, RefusesABadConfigBeforeAnythingExists) {
  VmConfig config = Cold();
  config.kernel = "/no/such/kernel";
  auto vm = world_->driver().Create(config);
  ASSERT_FALSE(vm.has_value());
  EXPECT_EQ(vm.error().field, "kernel");
  EXPECT_TRUE(fs::is_empty(config.run_dir));
}

TEST_P(DriverContract, AVmObjectMayGoWhileSomebodyWaits) {
  auto vm = Started(Cold());
  const std::string handle = vm->Handle();
  TaskScope scope(io_.get_executor());
  scope.Spawn("waiter", [](Vm& v) -> asio::awaitable<void> { (void)co_await v.Wait(Soon()); }(*vm));
  Run(SleepFor(milliseconds(1))).value();
  vm.reset();
  auto adopted = Run(world_->driver().Adopt(handle, Soon()));
  ASSERT_TRUE(adopted.has_value()) << ToString(adopted.error());
  Stop(**adopted);
  Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope))
      .value();
}

}  // namespace hatchery::hypervisor
