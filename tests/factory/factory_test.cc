// One VM made ready and ended, on a fake VMM and a fake guest.
#include "factory/factory.h"

#include <gtest/gtest.h>

#include "agent/fake/fake_agent.h"
#include "base/files.h"
#include "base/run.h"
#include "hypervisor/fake/fake_driver.h"
#include "template/memory.h"

namespace hatchery::factory {
namespace {

using agent::Method;
using hypervisor::VmState;
using hypervisor::fake::Fault;
using hypervisor::fake::Verb;

constexpr auto kMoment = std::chrono::milliseconds(50);
constexpr auto kLong = std::chrono::seconds(30);
constexpr Bytes kMemory = Bytes::MiB(128);

class FactoryTest : public testing::Test {
 protected:
  FactoryTest() {
    EXPECT_TRUE(MakeDirectories(vms_).has_value());
    UseTemplate(hypervisor::Accelerator::kKvm);
  }

  void UseTemplate(hypervisor::Accelerator accelerator) {
    tmpl::Manifest manifest;
    manifest.accelerator = accelerator;
    manifest.shape = {.vcpus = 1, .max_vcpus = 4, .memory = kMemory, .max_memory = Bytes::MiB(512)};
    UniqueFd memory = tmpl::CreateMemory(kMemory).value();
    EXPECT_TRUE(tmpl::SealMemory(memory.get()).has_value());
    // What the fake VMM saves.
    UniqueFd state = tmpl::CreateSealed("hatchery fake device state 1\n").value();
    template_ =
        std::make_shared<tmpl::LoadedTemplate>(manifest, std::move(memory), std::move(state));
  }

  template <class T>
  T Run(asio::awaitable<T> body) {
    return RunUntilDone(io_, std::move(body));
  }
  Result<void> Clone(Machine& machine, StageObserver observer = Accept, std::uint32_t vcpus = 1,
                     Bytes memory = kMemory, std::chrono::nanoseconds timeout = kLong) {
    CloneRequest request{VmId("vm-1"), template_, vcpus, memory};
    return Run(factory_.Clone(machine, request, std::move(observer), After(timeout)));
  }
  Result<Assigned> Assign(Machine& machine, Assignment assignment) {
    return Run(factory_.Assign(machine, std::move(assignment), After(kLong)));
  }
  Result<void> Destroy(Machine& machine, std::chrono::nanoseconds timeout = kLong) {
    return Run(factory_.Destroy(machine, After(timeout)));
  }
  agent::FakeGuest& GuestOf(const Machine& machine) {
    return agents_.guest(machine.vm->endpoints().agent);
  }
  void ExpectNothingLeft() {
    EXPECT_TRUE(host_.live().empty());
    EXPECT_TRUE(fs::is_empty(vms_));
  }
  static Result<void> Accept(CloneStage, const hypervisor::Vm&) { return {}; }

  asio::io_context io_;
  TempDir dir_ = TempDir::Create("/tmp", "hatchery-factory-").value();
  fs::path vms_ = dir_.path() / "vms";
  FakeClock clock_;
  hypervisor::fake::FakeHost host_{io_.get_executor()};
  hypervisor::fake::FakeDriver driver_{host_};
  agent::FakeAgents agents_{io_.get_executor()};
  tmpl::AcceleratorVerdicts verdicts_{dir_.path() / "accelerator.json"};
  tmpl::Booter booter_{driver_, agents_, verdicts_, vms_};
  WorkerPool workers_{1};
  Factory factory_{driver_, agents_, booter_, workers_, clock_};
  std::shared_ptr<const tmpl::LoadedTemplate> template_;
};

TEST_F(FactoryTest, TellsEachStageBeforeItsFirstStep) {
  std::vector<CloneStage> stages;
  auto observer = [&](CloneStage stage, const hypervisor::Vm& vm) -> Result<void> {
    stages.push_back(stage);
    switch (stage) {
      case CloneStage::kSpawning:
        EXPECT_EQ(vm.state(), VmState::kCreated);
        EXPECT_EQ(host_.calls(Verb::kStart), 0u);
        break;
      case CloneStage::kLoaded:
        EXPECT_EQ(vm.state(), VmState::kPaused);
        EXPECT_EQ(host_.calls(Verb::kAddVcpus), 0u);
        break;
      case CloneStage::kWarming:
        EXPECT_EQ(vm.state(), VmState::kPaused);
        EXPECT_EQ(vm.vcpus(), 2u);
        EXPECT_EQ(host_.calls(Verb::kResume), 0u);
        EXPECT_TRUE(agents_.calls().empty());
        break;
    }
    return {};
  };
  Machine machine;
  auto made = Clone(machine, observer, 2);
  ASSERT_TRUE(made.has_value()) << ToString(made.error());
  EXPECT_EQ(stages,
            (std::vector{CloneStage::kSpawning, CloneStage::kLoaded, CloneStage::kWarming}));
  EXPECT_EQ(machine.vm->state(), VmState::kPaused);
  EXPECT_EQ(machine.from, template_);
  ASSERT_TRUE(Destroy(machine).has_value());
  ExpectNothingLeft();
}

TEST_F(FactoryTest, WarmingRehearsesAnAssignmentAndOneCommand) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  std::vector<Method> methods;
  for (const auto& call : agents_.calls()) methods.push_back(call.method);
  EXPECT_EQ(methods, (std::vector{Method::kConnect, Method::kPersonalize, Method::kPersonalize,
                                  Method::kExec}));
  EXPECT_EQ(GuestOf(machine).hostname, "warm");
  // Nothing of the rehearsal is left in what is handed out.
  const auto rehearsed = GuestOf(machine);
  ASSERT_TRUE(
      Assign(machine,
             {.vcpus = 1, .memory = kMemory, .hostname = "one", .machine_id = NewMachineId()})
          .has_value());
  const auto& guest = GuestOf(machine);
  EXPECT_EQ(guest.hostname, "one");
  EXPECT_NE(guest.machine_id, rehearsed.machine_id);
  EXPECT_NE(guest.boot_id, rehearsed.boot_id);
  EXPECT_NE(guest.seeds.at(1), guest.seeds.at(0));
  EXPECT_EQ(guest.time, clock_.Now());
}

TEST_F(FactoryTest, AnAssignmentNeedNotWaitForTheGuestsResize) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  auto assigned = Assign(machine, {.vcpus = 3,
                                   .memory = Bytes::MiB(512),
                                   .hostname = "one",
                                   .machine_id = NewMachineId(),
                                   .await_resize = false});
  ASSERT_TRUE(assigned.has_value()) << ToString(assigned.error());
  EXPECT_EQ(machine.vm->vcpus(), 3u);
  EXPECT_EQ(machine.vm->memory(), Bytes::MiB(512));
  EXPECT_EQ(assigned->report.online_vcpus, 1u);
  EXPECT_EQ(assigned->report.online_memory, GuestOf(machine).online_memory);
  EXPECT_LT(assigned->report.online_memory, Bytes::MiB(512));
  EXPECT_EQ(GuestOf(machine).hostname, "one");
  // A guest that has not even got them by then is no failure of the assignment.
  Machine other;
  ASSERT_TRUE(
      Run(factory_.Clone(other, {VmId("vm-2"), template_, 1, kMemory}, Accept, After(kLong)))
          .has_value());
  GuestOf(other).present_vcpus = 1;
  EXPECT_FALSE(Assign(other, {.vcpus = 2, .memory = kMemory, .hostname = "two"}).has_value());
  agents_.SkipReseedNext();
  auto unconfirmed =
      Assign(other, {.vcpus = 2, .memory = kMemory, .hostname = "two", .await_resize = false});
  EXPECT_FALSE(unconfirmed.has_value()) << "fails closed as ever";
}

// Where it would cost memory for translated code.
TEST_F(FactoryTest, WarmingRunsNoCommandUnderEmulation) {
  UseTemplate(hypervisor::Accelerator::kTcg);
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  EXPECT_EQ(agents_.CountCalls(Method::kPersonalize), 2u);
  EXPECT_EQ(agents_.CountCalls(Method::kExec), 0u);
}

TEST_F(FactoryTest, ACommandIsRehearsedWhereItIsAskedFor) {
  UseTemplate(hypervisor::Accelerator::kTcg);
  Factory always(driver_, agents_, booter_, workers_, clock_, RehearseCommand::kAlways);
  Factory never(driver_, agents_, booter_, workers_, clock_, RehearseCommand::kNever);
  auto commands_of = [&](Factory& factory) {
    Machine machine;
    const auto before = agents_.CountCalls(Method::kExec);
    CloneRequest request{VmId("vm-1"), template_, 1, kMemory};
    EXPECT_TRUE(Run(factory.Clone(machine, request, Accept, After(kLong))).has_value());
    EXPECT_TRUE(Destroy(machine).has_value());
    return agents_.CountCalls(Method::kExec) - before;
  };
  EXPECT_EQ(commands_of(always), 1u);
  UseTemplate(hypervisor::Accelerator::kKvm);
  EXPECT_EQ(commands_of(never), 0u);
}

// Its own assignment follows at once.
TEST_F(FactoryTest, AnUnrehearsedCloneIsWarmOnceItsAgentAnswers) {
  Machine machine;
  CloneRequest request{VmId("vm-1"), template_, 1, kMemory, /*rehearse=*/false};
  ASSERT_TRUE(Run(factory_.Clone(machine, request, Accept, After(kLong))).has_value());
  std::vector<Method> methods;
  for (const auto& call : agents_.calls()) methods.push_back(call.method);
  EXPECT_EQ(methods, (std::vector{Method::kConnect, Method::kCheck}));
  EXPECT_EQ(machine.vm->state(), VmState::kPaused);
  agents_.FailNext(Method::kCheck, {Code::kUnavailable, "no answer"});
  ASSERT_TRUE(Destroy(machine).has_value());
  Machine silent;
  EXPECT_FALSE(Run(factory_.Clone(silent, request, Accept, After(kLong))).has_value());
}

TEST_F(FactoryTest, AGuestWithoutTheRehearsedCommandIsWarmAllTheSame) {
  agents_.FailNext(Method::kExec, {Code::kNotFound, "no true here"});
  Machine machine;
  EXPECT_TRUE(Clone(machine).has_value());
}

std::vector<Method> MethodsOf(const agent::FakeAgents& agents, std::size_t from = 0) {
  std::vector<Method> methods;
  for (std::size_t i = from; i < agents.calls().size(); ++i) {
    methods.push_back(agents.calls()[i].method);
  }
  return methods;
}

TEST_F(FactoryTest, AForeignAgentIsToldOfEachNewCpuOnce) {
  UseTemplate(hypervisor::Accelerator::kTcg);
  agents_.SetForeign(true);
  Machine machine;
  auto made = Clone(machine, Accept, 2, Bytes::MiB(256));
  ASSERT_TRUE(made.has_value()) << ToString(made.error());
  // What was added before it ran is brought online in the first rehearsal.
  EXPECT_EQ(MethodsOf(agents_), (std::vector{Method::kConnect, Method::kReseedRandomDev,
                                             Method::kSetGuestDateTime, Method::kOnlineCpuMem,
                                             Method::kReseedRandomDev, Method::kSetGuestDateTime}));
  EXPECT_EQ(GuestOf(machine).online_vcpus, 2u);

  const auto before = agents_.calls().size();
  auto assigned = Assign(
      machine,
      {.vcpus = 3, .memory = Bytes::MiB(384), .hostname = "one", .machine_id = NewMachineId()});
  ASSERT_TRUE(assigned.has_value()) << ToString(assigned.error());
  EXPECT_TRUE(assigned->report.foreign);
  EXPECT_EQ(assigned->report.online_vcpus, 3u);
  EXPECT_EQ(assigned->report.online_memory, Bytes::MiB(384));
  EXPECT_EQ(
      MethodsOf(agents_, before),
      (std::vector{Method::kReseedRandomDev, Method::kSetGuestDateTime, Method::kOnlineCpuMem}));
  EXPECT_EQ(GuestOf(machine).online_vcpus, 3u);
  EXPECT_EQ(GuestOf(machine).seeds.size(), 3u);
  EXPECT_EQ(GuestOf(machine).hostname, "template");
}

// As after a restart of the daemon, which knows only what a VM has.
TEST_F(FactoryTest, WhatAWarmVmHasIsOnline) {
  agents_.SetForeign(true);
  Machine machine;
  ASSERT_TRUE(Clone(machine, Accept, 2).has_value()) << "its command is refused, and not missed";
  machine.online_vcpus = 0;
  machine.online_memory = Bytes();
  auto assigned = Assign(machine, {.vcpus = 4, .memory = kMemory, .await_resize = false});
  ASSERT_TRUE(assigned.has_value()) << ToString(assigned.error());
  EXPECT_EQ(assigned->report.online_vcpus, 2u);
  EXPECT_EQ(assigned->report.online_memory, kMemory);
  EXPECT_EQ(GuestOf(machine).online_vcpus, 2u);
}

TEST_F(FactoryTest, AForeignAgentThatDoesNotReseedFailsTheAssignment) {
  agents_.SetForeign(true);
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  agents_.FailNext(Method::kReseedRandomDev, {Code::kInternal, "no entropy"});
  EXPECT_FALSE(Assign(machine, {.vcpus = 1, .memory = kMemory, .hostname = "one"}).has_value());
}

TEST_F(FactoryTest, ACloneThatFailsAnywhereLeavesNothing) {
  auto expect_failure = [&](const std::string& where, StageObserver observer = Accept) {
    Machine machine;
    auto made = Clone(machine, std::move(observer), 2, Bytes::MiB(256), kLong);
    EXPECT_FALSE(made.has_value()) << where;
    EXPECT_EQ(machine.vm, nullptr) << where;
    ExpectNothingLeft();
  };
  for (const Verb verb : {Verb::kStart, Verb::kLoad, Verb::kAddVcpus, Verb::kAddMemory,
                          Verb::kResume, Verb::kPause}) {
    for (const auto kind : {Fault::Kind::kFail, Fault::Kind::kVmmDies}) {
      host_.Inject(verb, {kind, {Code::kInternal, "injected"}});
      expect_failure("verb " + std::to_string(static_cast<int>(verb)));
    }
  }
  for (const Method method : {Method::kConnect, Method::kPersonalize, Method::kExec}) {
    agents_.GarbleNext(method);
    expect_failure("method " + std::to_string(static_cast<int>(method)));
  }
  for (const CloneStage at : {CloneStage::kSpawning, CloneStage::kLoaded, CloneStage::kWarming}) {
    expect_failure("stage " + std::to_string(static_cast<int>(at)),
                   [at](CloneStage stage, const hypervisor::Vm&) -> Result<void> {
                     if (stage == at) return Unavailable("not recorded");
                     return {};
                   });
  }
}

TEST_F(FactoryTest, ACancelledCloneLeavesNothing) {
  agents_.HangNext(Method::kPersonalize);
  Machine machine;
  TaskScope scope(io_.get_executor());
  std::optional<Result<void>> made;
  scope.Spawn("clone",
              [](Factory& f, CloneRequest request, Machine& m,
                 std::optional<Result<void>>& out) -> asio::awaitable<void> {
                out = co_await f.Clone(m, std::move(request), Accept, After(kLong));
              }(factory_, CloneRequest{VmId("vm-1"), template_, 1, kMemory}, machine, made));
  Run([](agent::FakeAgents& agents, TaskScope& s) -> Task<void> {
    while (agents.CountCalls(Method::kPersonalize) == 0) {
      CO_RETURN_IF_ERROR(co_await SleepFor(std::chrono::milliseconds(1)));
    }
    s.Cancel();
    co_await s.Join();
    co_return Result<void>();
  }(agents_, scope))
      .value();
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(made->error().code, Code::kCancelled);
  ExpectNothingLeft();
}

TEST_F(FactoryTest, ACloneWhoseVmmCannotBeEndedIsHandedBack) {
  host_.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kInternal, "bad state"}});
  host_.Inject(Verb::kStop, {Fault::Kind::kHang});
  Machine machine;
  auto made = Clone(machine);
  ASSERT_FALSE(made.has_value());
  EXPECT_NE(made.error().message.find("bad state"), std::string::npos);
  ASSERT_NE(machine.vm, nullptr);
  ASSERT_TRUE(Destroy(machine).has_value());
  ExpectNothingLeft();
}

TEST_F(FactoryTest, AssignFailsClosedUnlessTheReseedIsConfirmed) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  agents_.SkipReseedNext();
  EXPECT_FALSE(Assign(machine, {.vcpus = 1, .memory = kMemory, .hostname = "one"}).has_value());
}

TEST_F(FactoryTest, ResizesWhilePausedAndOnlyThenResumes) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  const Assignment larger{.vcpus = 3, .memory = Bytes::MiB(256), .hostname = "one"};
  const auto resumes = host_.calls(Verb::kResume);
  host_.Inject(Verb::kResume, {Fault::Kind::kFail, {Code::kInternal, "not yet"}});
  EXPECT_FALSE(Assign(machine, larger).has_value());
  EXPECT_EQ(machine.vm->vcpus(), 3u);
  EXPECT_EQ(machine.vm->memory(), Bytes::MiB(256));
  ASSERT_TRUE(Destroy(machine).has_value());

  Machine other;
  ASSERT_TRUE(Clone(other).has_value());
  const auto after_warming = host_.calls(Verb::kResume);
  EXPECT_EQ(after_warming, resumes + 3);  // the one above, and two rehearsals
  host_.Inject(Verb::kAddMemory, {Fault::Kind::kFail, {Code::kInternal, "no slot"}});
  EXPECT_FALSE(Assign(other, larger).has_value());
  EXPECT_EQ(host_.calls(Verb::kResume), after_warming);
}

TEST_F(FactoryTest, TheGuestIsToldItsNewSizes) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  auto assigned = Assign(machine, {.vcpus = 3, .memory = Bytes::MiB(256), .hostname = "one"});
  ASSERT_TRUE(assigned.has_value()) << ToString(assigned.error());
  EXPECT_EQ(assigned->report.online_vcpus, 3u);
  EXPECT_EQ(machine.vm->state(), VmState::kRunning);
}

TEST_F(FactoryTest, DestroyTriesAgainUntilTheVmIsGone) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  host_.Inject(Verb::kStop, {Fault::Kind::kFail, {Code::kInternal, "busy"}}, 2);
  EXPECT_TRUE(Destroy(machine).has_value());
  EXPECT_EQ(host_.calls(Verb::kStop), 3u);
  ExpectNothingLeft();
}

TEST_F(FactoryTest, DestroyGivesUpAtItsDeadlineAndCanBeCalledAgain) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  host_.Inject(Verb::kStop, {Fault::Kind::kHang});
  EXPECT_EQ(Destroy(machine, kMoment).error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(host_.live().size(), 1u);
  EXPECT_TRUE(Destroy(machine).has_value());
  ExpectNothingLeft();
}

TEST_F(FactoryTest, DestroyGoesOnAlthoughItsCallerIsCancelled) {
  Machine machine;
  ASSERT_TRUE(Clone(machine).has_value());
  host_.SetDelay(Verb::kStop, std::chrono::milliseconds(20));
  TaskScope scope(io_.get_executor());
  std::optional<Result<void>> destroyed;
  scope.Spawn(
      "destroy",
      [](Factory& f, Machine& m, std::optional<Result<void>>& out) -> asio::awaitable<void> {
        out = co_await f.Destroy(m, After(kLong));
      }(factory_, machine, destroyed));
  Run([](hypervisor::fake::FakeHost& host, TaskScope& s) -> Task<void> {
    while (host.calls(Verb::kStop) == 0) {
      CO_RETURN_IF_ERROR(co_await SleepFor(std::chrono::milliseconds(1)));
    }
    s.Cancel();
    co_await s.Join();
    co_return Result<void>();
  }(host_, scope))
      .value();
  ASSERT_TRUE(destroyed.has_value());
  EXPECT_TRUE(destroyed->has_value());
  ExpectNothingLeft();
}

}  // namespace
}  // namespace hatchery::factory
