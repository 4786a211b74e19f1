#include "cache/health.h"

#include <gmock/gmock.h>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using testing::HasSubstr;

class HealthTest : public CacheFixture {
 protected:
  HealthTest() : CacheFixture(/*keep_warm=*/true) {
    Again([](Settings& s) {
      s.health.agent_interval = std::chrono::milliseconds(10);
      s.health.agent_timeout = std::chrono::milliseconds(50);
    });
  }
  template <class Change>
  void Again(Change change) {
    Finish();
    change(settings_);
    Begin();
  }
  template <class Condition>
  ::testing::AssertionResult Until(Condition met) {
    const auto bound = After(kLong);
    while (!met()) {
      if (std::chrono::steady_clock::now() > bound) return ::testing::AssertionFailure();
      Run(SleepFor(std::chrono::milliseconds(1))).value();
    }
    return ::testing::AssertionSuccess();
  }
  std::size_t Checks() { return outside_.agents.CountCalls(agent::Method::kCheck); }
  std::size_t ChecksOf(const VmPtr& vm) {
    const agent::FakeCall check{AgentOf(vm), agent::Method::kCheck};
    return static_cast<std::size_t>(std::ranges::count(outside_.agents.calls(), check));
  }
  std::vector<std::string> ProblemsTold(const VmPtr& vm) {
    std::vector<std::string> told;
    auto at = Events::kBeginning;
    while (const auto* event = cache().events().After(at)) {
      at = event->revision();
      if (event->health_changed() && event->vm_id() == vm->record.id()) {
        told.push_back(event->problem());
      }
    }
    return told;
  }
};

TEST_F(HealthTest, ASilentAgentIsReportedAndSoIsItsReturn) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  outside_.agents.HangNext(agent::Method::kCheck, 2);
  ASSERT_TRUE(Until([&] { return ProblemsTold(vm).size() == 2; }));
  EXPECT_THAT(ProblemsTold(vm)[0], HasSubstr("does not answer"));
  EXPECT_EQ(ProblemsTold(vm)[1], "");
  EXPECT_EQ(vm->problem, "");
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  Die();
  settings_.health.agent_interval = {};
  Begin();
  EXPECT_EQ(cache().vms().Find(vm->id())->problem, "");
  EXPECT_EQ(ProblemsTold(vm).size(), 2u) << "the next daemon knows of its return";
}

TEST_F(HealthTest, OneMissedAnswerIsNoProblem) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  for (int i = 0; i < 3; ++i) {
    outside_.agents.HangNext(agent::Method::kCheck);
    const auto checks = Checks();
    ASSERT_TRUE(Until([&] { return Checks() >= checks + 3; }));
  }
  EXPECT_TRUE(ProblemsTold(vm).empty());
}

TEST_F(HealthTest, AProblemOutlivesTheDaemonThatSawIt) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  outside_.agents.HangNext(agent::Method::kCheck, 1000);
  ASSERT_TRUE(Until([&] { return !vm->problem.empty(); }));
  const auto problem = vm->problem;
  Die();
  settings_.health.agent_interval = {};
  Begin();
  EXPECT_EQ(cache().vms().Find(vm->id())->problem, problem);
}

TEST_F(HealthTest, OneThatIsSilentForTooLongIsEndedIfTheOperatorSaysSo) {
  Again([](Settings& s) { s.health.end_silent_after = std::chrono::milliseconds(200); });
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  outside_.agents.HangNext(agent::Method::kCheck, 1000);
  Run(vm->gone.Wait(After(kLong))).value();
  EXPECT_EQ(vm->phase(), record::VM_PHASE_FAILED);
  EXPECT_THAT(*cache().events().EndOf(vm->id()), HasSubstr("silent"));
  ExpectVms(0);
}

TEST_F(HealthTest, WhoIsPausedWhileItIsAskedHasMissedNothing) {
  ASSERT_TRUE(Init(0).has_value());
  const auto other = Acquire()->vm;
  const auto vm = Acquire()->vm;
  // Far longer than an answer is waited for.
  const auto pass = [&] {
    const auto checks = ChecksOf(other);
    return Until([&] { return ChecksOf(other) > checks + 20; });
  };
  // Of two that are asked in turn: the next answer that is missing is this one's.
  const auto miss = [&] {
    ASSERT_TRUE(Run(other->machine->vm->Pause(After(kLong))).has_value());
    outside_.agents.HangNext(agent::Method::kCheck);
    ASSERT_TRUE(Run(vm->machine->vm->Resume(After(kLong))).has_value());
    const auto asked = ChecksOf(vm);
    ASSERT_TRUE(Until([&] { return ChecksOf(vm) > asked; }));
  };
  ASSERT_TRUE(Run(vm->machine->vm->Pause(After(kLong))).has_value());
  miss();
  ASSERT_TRUE(Run(vm->machine->vm->Pause(After(kLong))).has_value());
  ASSERT_TRUE(Run(other->machine->vm->Resume(After(kLong))).has_value());
  ASSERT_TRUE(pass());
  miss();
  ASSERT_TRUE(Run(other->machine->vm->Resume(After(kLong))).has_value());
  ASSERT_TRUE(pass());
  EXPECT_TRUE(ProblemsTold(vm).empty());
}

TEST_F(HealthTest, WhoIsStillBeingResizedIsNotAsked) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.agents.HangNext(agent::Method::kAwaitOnline);
  const auto vm = Acquire({.vcpus = 3, .resize_in_background = true})->vm;
  ASSERT_TRUE(vm->pending());
  const auto asked = ChecksOf(vm);
  const auto other = Acquire()->vm;
  ASSERT_TRUE(Until([&] { return ChecksOf(other) > 3; }));
  EXPECT_EQ(ChecksOf(vm), asked);
}

TEST_F(HealthTest, PausedVmsAndPooledOnesAreNotAsked) {
  ASSERT_TRUE(Init(1).has_value());
  const auto paused = Acquire()->vm;
  const auto running = Acquire()->vm;
  ASSERT_TRUE(Fill().has_value());
  VmPtr warm;
  for (const auto& vm : cache().vms().List()) {
    if (vm->phase() == record::VM_PHASE_WARM) warm = vm;
  }
  ASSERT_TRUE(warm);
  ASSERT_TRUE(Run(paused->machine->vm->Pause(After(kLong))).has_value());
  const auto asked = ChecksOf(paused), pooled = ChecksOf(warm), now = ChecksOf(running);
  ASSERT_TRUE(Until([&] { return ChecksOf(running) > now + 5; }));
  EXPECT_LE(ChecksOf(paused), asked + 1) << "which was on its way";
  EXPECT_EQ(ChecksOf(warm), pooled);
  ASSERT_TRUE(Run(paused->machine->vm->Resume(After(kLong))).has_value());
  EXPECT_TRUE(Until([&] { return ChecksOf(paused) > asked + 1; }));
}

TEST_F(HealthTest, AFailedVmmIsReportedWhereItIsLeasedAndReplacedWhereItIsWarm) {
  ASSERT_TRUE(Init(1).has_value());
  const auto leased = Acquire()->vm;
  ASSERT_TRUE(Fill().has_value());
  VmPtr warm;
  for (const auto& vm : cache().vms().List()) {
    if (vm->phase() == record::VM_PHASE_WARM) warm = vm;
  }
  ASSERT_TRUE(warm);
  outside_.host.Find(warm->id())->state = hypervisor::VmState::kFailed;
  outside_.host.Find(leased->id())->state = hypervisor::VmState::kFailed;
  Run(warm->gone.Wait(After(kLong))).value();
  ASSERT_TRUE(Until([&] { return !leased->problem.empty(); }));
  EXPECT_EQ(leased->phase(), record::VM_PHASE_ASSIGNED);
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(OnlyPool().warm, 1u);
}

// Waiting for a VM's end may fail for want of memory or descriptors; its end must still be seen.
TEST_F(HealthTest, AVmIsWatchedOnAfterWaitingForItFailed) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kWait, {Fault::Kind::kFail, {Code::kResourceExhausted, "no fd"}}, 2);
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(outside_.host.Kill(vm->id()).has_value());
  Run(vm->gone.Wait(After(kLong))).value();
  EXPECT_EQ(vm->phase(), record::VM_PHASE_FAILED);
}

class QuarantinedTest : public CacheFixture {
 protected:
  void FailClones(std::size_t count) {
    outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kInternal, "bad state"}}, count);
  }
};

TEST_F(QuarantinedTest, ATemplateWhoseClonesKeepFailingIsLeftAloneAndTheOthersGoOn) {
  ASSERT_TRUE(Init(0).has_value());
  ASSERT_TRUE(Init(0, "other").has_value());
  FailClones(settings_.health.quarantine_after);
  for (std::uint32_t i = 0; i < settings_.health.quarantine_after; ++i) {
    EXPECT_EQ(Acquire().error().code, Code::kInternal);
  }
  const auto starts = outside_.host.calls(Verb::kStart);
  const auto refused = Acquire();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kUnavailable);
  EXPECT_GT(refused.error().retry_after, std::chrono::seconds(20));
  EXPECT_THAT(refused.error().message, HasSubstr("bad state"));
  EXPECT_EQ(outside_.host.calls(Verb::kStart), starts) << "nothing was tried";
  const auto info = cache().catalog().Get("default").value();
  EXPECT_GT(info.quarantined_until.value(), outside_.clock.Now());
  EXPECT_THAT(info.problem, HasSubstr("bad state"));
  AcquireParams other;
  other.template_name = "other";
  EXPECT_TRUE(Acquire(other).has_value());
  EXPECT_FALSE(cache().catalog().Get("other")->quarantined_until.has_value());

  // The time comes, one is tried, and it is well.
  outside_.clock.Advance(std::chrono::seconds(40));
  EXPECT_TRUE(Acquire().has_value());
  EXPECT_EQ(cache().catalog().Get("default")->problem, "");
}

TEST_F(QuarantinedTest, APoolWaitsForTheQuarantineAndSaysSo) {
  ASSERT_TRUE(Init(0).has_value());
  FailClones(100);
  for (std::uint32_t i = 0; i < settings_.health.quarantine_after; ++i) (void)Acquire();
  const auto starts = outside_.host.calls(Verb::kStart);
  const auto filled = Init(2);  // one is tried, since somebody asks
  ASSERT_FALSE(filled.has_value());
  EXPECT_THAT(filled.error().message, HasSubstr("bad state"));
  EXPECT_EQ(outside_.host.calls(Verb::kStart), starts + 1);
}

// What its caller or the host lacked is not the template's fault.
TEST_F(QuarantinedTest, FailuresForOtherCausesDoNotCount) {
  ASSERT_TRUE(Init(0).has_value());
  for (std::uint32_t i = 0; i < 2 * settings_.health.quarantine_after; ++i) {
    outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kResourceExhausted, "memory"}});
    EXPECT_FALSE(Acquire().has_value());
    outside_.host.Inject(Verb::kLoad, {Fault::Kind::kHang});
    EXPECT_FALSE(Acquire({}, std::chrono::milliseconds(10)).has_value());
    outside_.store.before_write = [](const KvStore::Batch& batch) -> Result<void> {
      if (batch.label == Name(WritePoint::kVmLoaded)) return Unavailable("disk full");
      return {};
    };
    EXPECT_FALSE(Acquire().has_value());
    outside_.store.before_write = nullptr;
  }
  EXPECT_TRUE(Acquire().has_value());
}

}  // namespace
}  // namespace hatchery::cache
