#include "cache/admission.h"

#include <gmock/gmock.h>

#include <random>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using testing::HasSubstr;

// What each fake VM says it takes.
constexpr Bytes kPrivate = Bytes::MiB(16);
constexpr Bytes kReserve = Bytes::MiB(400);

// A host whose available memory is what a test leaves it, less what its VMs take.
class AdmissionTest : public CacheFixture {
 protected:
  AdmissionTest() : CacheFixture(/*keep_warm=*/true) {
    outside_.memory.read = [this]() -> Result<HostMemory> {
      const auto taken = static_cast<std::int64_t>(outside_.host.live().size() * kPrivate.count());
      const auto left = std::max<std::int64_t>(0, unused_ - taken);
      return HostMemory{Bytes::GiB(64), Bytes(static_cast<std::uint64_t>(left))};
    };
    settings_.limits.host_reserve = kReserve;
    Again();
  }
  // With the settings as they are now.
  void Again() {
    Finish();
    Begin();
  }

  Admission& admission() { return cache().admission(); }
  static std::int64_t MiB(std::int64_t n) { return n << 20; }

  void MeasureAll() {
    for (const auto& vm : cache().vms().List()) Measure(vm);
  }
  void Measure(const VmPtr& vm) {
    Run([](Admission& a, VmPtr v) -> asio::awaitable<bool> {
      co_await a.Measure(v);
      co_return true;
    }(admission(), vm));
  }
  // All that is measured, so much is neither used, reserved nor promised; `room` may be negative.
  void LeaveRoom(std::int64_t room) {
    MeasureAll();
    const auto taken = static_cast<std::int64_t>(outside_.host.live().size() * kPrivate.count());
    const auto promised =
        static_cast<std::int64_t>((kReserve + Bytes(admission().memory()->growth.count() / 100 *
                                                    settings_.limits.growth_percent))
                                      .count());
    unused_ = room + taken + promised;
    admission().Look();
  }
  void SetPool(std::string name, std::uint32_t target) {
    ASSERT_TRUE(
        Run(cache().pools().Set(std::move(name), std::nullopt, std::nullopt, target, After(kLong)))
            .has_value());
  }
  PoolInfo PoolOf(const std::string& name) {
    for (const auto& pool : cache().pools().List()) {
      if (pool.template_name == name) return pool;
    }
    ADD_FAILURE() << "no pool of " << name;
    return {};
  }
  void Settle() {  // until nothing is being ended or made
    for (;;) {
      bool busy = false;
      for (const auto& vm : cache().vms().List()) {
        busy |= vm->phase() != record::VM_PHASE_WARM && vm->phase() != record::VM_PHASE_ASSIGNED;
      }
      if (!busy) return;
      ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
    }
  }
  // Acquires that run beside the test.
  struct Beside {
    explicit Beside(Executor executor) : scope(executor) {}
    TaskScope scope;
    std::vector<Result<Acquired>> results;
  };
  void Start(Beside& beside, AcquireParams params) {
    beside.scope.Spawn(
        "acquire", [](Cache& c, Beside& b, AcquireParams p) -> asio::awaitable<void> {
          b.results.push_back(co_await c.leases().Acquire(std::move(p), After(kLong)));
        }(cache(), beside, std::move(params)));
  }
  void Join(Beside& beside) {
    Run([](TaskScope& scope) -> asio::awaitable<bool> {
      co_await scope.Join();
      co_return true;
    }(beside.scope));
  }

  std::int64_t unused_ = MiB(32 << 10);
};

TEST_F(AdmissionTest, TheAccountAddsUp) {
  ASSERT_TRUE(Init(3).has_value());
  MeasureAll();
  const auto before = *admission().memory();
  EXPECT_EQ(before.reserve, kReserve);
  EXPECT_EQ(before.growth, Bytes());
  EXPECT_GE(before.private_memory, Bytes::MiB(3 * 16));  // and the template
  const auto small = Acquire()->vm;
  const auto large = Acquire({.memory = Bytes::MiB(512)})->vm;
  ASSERT_TRUE(Fill().has_value());
  MeasureAll();
  EXPECT_EQ(admission().memory()->growth, Bytes::MiB(128 - 16 + 512 - 16));
  ASSERT_TRUE(Release(large).has_value());
  EXPECT_EQ(admission().memory()->growth, Bytes::MiB(128 - 16));
  ASSERT_TRUE(Release(small).has_value());
  EXPECT_EQ(admission().memory()->growth, Bytes());
}

TEST_F(AdmissionTest, ALeaseMayGrowByWhatItsVmHasNotTakenYet) {
  ASSERT_TRUE(Init(2).has_value());
  outside_.host.Find(outside_.host.live().front())->private_memory = Bytes::MiB(100);
  MeasureAll();
  ASSERT_TRUE(Acquire().has_value());
  ASSERT_TRUE(Acquire().has_value());
  EXPECT_EQ(admission().memory()->growth, Bytes::MiB(128 - 16 + 128 - 100));
}

TEST_F(AdmissionTest, RefusesWithAHintWhatCouldGrowIntoTheReserve) {
  ASSERT_TRUE(Init(0).has_value());
  const auto first = Acquire()->vm;
  LeaveRoom(MiB(90));
  const auto refused = Acquire();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("a VM of 128 MiB: too little memory"));
  EXPECT_GT(refused.error().retry_after.count(), 0);
  EXPECT_EQ(admission().memory()->growth, Bytes::MiB(112));  // the refused one's is given back
  ExpectVms(1);
  // A release makes room.
  ASSERT_TRUE(Release(first).has_value());
  EXPECT_TRUE(Acquire().has_value());
}

TEST_F(AdmissionTest, AnAcquireThatFitsIsNotRefusedForAnOldLook) {
  ASSERT_TRUE(Init(1).has_value());
  LeaveRoom(MiB(10));
  bool served = false;
  // More than once: the look that comes every second may be the last one, and is not old.
  for (int i = 0; i < 3 && !served; ++i) {
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(25))).has_value());
    unused_ += MiB(1000);  // nobody has looked since
    served = Acquire().has_value();
    unused_ -= MiB(1000);
  }
  EXPECT_TRUE(served);
}

TEST_F(AdmissionTest, SomeOfTheGrowthMayBeTrustedNotToHappen) {
  settings_.limits.growth_percent = 25;
  Again();
  ASSERT_TRUE(Init(2).has_value());
  LeaveRoom(MiB(30));
  EXPECT_TRUE(Acquire().has_value());  // 28 of 112
}

TEST_F(AdmissionTest, AnAcquireEndsIdleVmsOfAnotherPoolForItsMemory) {
  ASSERT_TRUE(Init(0).has_value());
  ASSERT_TRUE(Init(10, "other").has_value());
  const auto leased = Acquire()->vm;
  const auto other = Acquire({.template_name = "other"})->vm;
  ASSERT_TRUE(Fill("other").has_value());
  LeaveRoom(0);
  ASSERT_EQ(PoolOf("other").warm, 10u);
  // It needs 112 MiB to grow and 16 for a clone: eight.
  const auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(PoolOf("other").warm, 2u);
  EXPECT_EQ(leased->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(other->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(acquired->vm->phase(), record::VM_PHASE_ASSIGNED);
}

TEST_F(AdmissionTest, NoIdleVmIsEndedForAnAcquireThatIsRefusedAllTheSame) {
  ASSERT_TRUE(Init(10).has_value());
  LeaveRoom(0);
  EXPECT_EQ(Acquire({.memory = Bytes::MiB(512)}).error().code, Code::kResourceExhausted);
  EXPECT_EQ(OnlyPool().warm, 10u);
}

// With a warm VM for each, so that it is the lease that is refused and not the clone.
TEST_F(AdmissionTest, TwoThatWaitDoNotCountOnTheSameMemory) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Init(9, "other").has_value());
  LeaveRoom(0);  // and idle VMs of 176 MiB: one needs 112
  Beside beside(outside_.io.get_executor());
  Start(beside, {});
  Start(beside, {});
  Join(beside);
  const auto served = std::ranges::count_if(beside.results, [](auto& r) { return r.has_value(); });
  EXPECT_EQ(served, 1);
  EXPECT_GE(admission().memory()->host.available, kReserve + admission().memory()->growth);
}

TEST_F(AdmissionTest, TwoThatWaitEndNoMoreIdleVmsThanBothNeed) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Init(24, "other").has_value());
  LeaveRoom(0);
  Beside beside(outside_.io.get_executor());
  Start(beside, {});
  Start(beside, {});
  Join(beside);
  for (const auto& result : beside.results) EXPECT_TRUE(result.has_value());
  EXPECT_EQ(PoolOf("other").warm, 24u - 2 * 7);  // 112 MiB each
}

TEST_F(AdmissionTest, LearnedPoolsGoFirstAndThenTheFullest) {
  settings_.learn.after = 1;
  settings_.learn.size = 1;
  Again();
  ASSERT_TRUE(Init(3).has_value());
  ASSERT_TRUE(Init(1, "small").has_value());
  ASSERT_TRUE(Release(Acquire({.vcpus = 2})->vm).has_value());
  while (cache().pools().List().size() < 3) {
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  }
  ASSERT_TRUE(Fill().has_value());
  std::vector<std::string> order;
  for (const auto& vm : cache().pools().Idle()) {
    order.push_back(std::to_string(vm->record.vcpus()) + " of " + vm->record.template_name());
  }
  ASSERT_EQ(order.size(), 5u);
  EXPECT_EQ(order[0], "2 of default");
  EXPECT_EQ(order[1], "1 of default");
  EXPECT_EQ(order[2], "1 of default");
  EXPECT_NE(order[3], order[4]);  // the last of each
}

TEST_F(AdmissionTest, APoolShrinksUnderPressureAndComesBackWithoutGoingToAndFro) {
  ASSERT_TRUE(Init(4).has_value());
  LeaveRoom(-MiB(1));
  EXPECT_EQ(OnlyPool().warm, 3u);
  Settle();
  const auto starts = outside_.host.calls(Verb::kStart);
  // There is room for a clone, but not a quarter of the reserve beside it.
  for (const std::int64_t room : {0, 20, 100, 114, 50}) {
    LeaveRoom(MiB(room));
    SetPool("default", 4);
    EXPECT_EQ(OnlyPool().warm + OnlyPool().filling, 3u) << room;
  }
  EXPECT_THAT(OnlyPool().last_error, HasSubstr("too little memory"));
  EXPECT_EQ(outside_.host.calls(Verb::kStart), starts);
  const auto waited =
      Run(cache().pools().WaitFilled(OnlyPool().key, [](const PoolInfo&) {}, After(kLong)));
  EXPECT_EQ(waited.error().code, Code::kResourceExhausted);
  LeaveRoom(MiB(117));
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(OnlyPool().warm, 4u);
  EXPECT_EQ(OnlyPool().last_error, "");
  admission().Look();  // what came back does not go again
  EXPECT_EQ(OnlyPool().warm, 4u);
}

TEST_F(AdmissionTest, PressureEndsNoLeasedVm) {
  ASSERT_TRUE(Init(3).has_value());
  const auto leased = Acquire()->vm;
  ASSERT_TRUE(Fill().has_value());
  LeaveRoom(-MiB(4000));
  EXPECT_EQ(OnlyPool().warm, 0u);
  Settle();
  ExpectVms(1);
  EXPECT_EQ(leased->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(Acquire().error().code, Code::kResourceExhausted);
  LeaveRoom(MiB(4000));
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(OnlyPool().warm, 3u);
}

TEST_F(AdmissionTest, AHostThatCannotBeReadIsAsItWas) {
  ASSERT_TRUE(Init(1).has_value());
  LeaveRoom(MiB(200));
  outside_.memory.read = [] { return NotFound("no /proc"); };
  admission().Look();
  EXPECT_TRUE(Acquire().has_value());
  EXPECT_FALSE(Acquire().has_value());
}

TEST_F(AdmissionTest, WithoutAReserveNothingIsAccounted) {
  settings_.limits.host_reserve = Bytes();
  Again();
  unused_ = 0;
  ASSERT_TRUE(Init(1).has_value());
  EXPECT_TRUE(Acquire({.memory = Bytes::MiB(512)}).has_value());
  EXPECT_FALSE(admission().memory().has_value());
}

TEST_F(AdmissionTest, ABurstDoesNotOvershootATenantsLimit) {
  settings_.limits.tenant_leases = 3;
  Again();
  ASSERT_TRUE(Init(5).has_value());
  Beside beside(outside_.io.get_executor());
  for (int i = 0; i < 10; ++i) Start(beside, {.caller = {.tenant = "uid:7"}});
  Join(beside);
  int served = 0;
  for (const auto& result : beside.results) {
    served += result.has_value() ? 1 : 0;
    if (!result) EXPECT_THAT(result.error().message, HasSubstr("tenant 'uid:7' held 3 leases"));
  }
  EXPECT_EQ(served, 3);
  EXPECT_TRUE(Acquire({.caller = {.tenant = "uid:8"}}).has_value());
}

TEST_F(AdmissionTest, WhatFailsOrIsCancelledIsGivenBack) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail});
  EXPECT_FALSE(Acquire({.caller = {.tenant = "a"}}).has_value());
  EXPECT_TRUE(admission().tenants().empty());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kHang});
  Beside beside(outside_.io.get_executor());
  Start(beside, {.caller = {.tenant = "a"}});
  while (outside_.host.calls(Verb::kLoad) < 2) {
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  }
  EXPECT_EQ(admission().tenants().at("a").leases, 1u);
  EXPECT_EQ(admission().waiting(), 1u);
  beside.scope.Cancel();
  Join(beside);
  EXPECT_TRUE(admission().tenants().empty());
  EXPECT_EQ(admission().waiting(), 0u);
  EXPECT_EQ(admission().memory()->growth, Bytes());
}

TEST_F(AdmissionTest, AVmThatDiesGivesBackWhatItsLeaseHeld) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Acquire({.vcpus = 2, .caller = {.tenant = "a"}})->vm;
  EXPECT_EQ(admission().tenants().at("a"), (Quotas::Held{1, 2, Bytes::MiB(128)}));
  ASSERT_TRUE(outside_.host.Kill(vm->id()).has_value());
  ASSERT_TRUE(Run(vm->gone.Wait(After(kLong))).has_value());
  EXPECT_TRUE(admission().tenants().empty());
  EXPECT_EQ(admission().memory()->growth, Bytes());
}

TEST_F(AdmissionTest, LeasesOutliveARestartInTheAccounts) {
  settings_.limits.tenant_leases = 1;
  Again();
  ASSERT_TRUE(Init(2).has_value());
  const auto id = Acquire({.memory = Bytes::MiB(256), .caller = {.tenant = "a"}})->vm->id();
  Die();
  Begin();
  EXPECT_EQ(admission().tenants().at("a"), (Quotas::Held{1, 1, Bytes::MiB(256)}));
  MeasureAll();
  EXPECT_EQ(admission().memory()->growth, Bytes::MiB(256 - 16));
  EXPECT_EQ(Acquire({.caller = {.tenant = "a"}}).error().code, Code::kResourceExhausted);
  ASSERT_TRUE(Release(cache().vms().Find(id)).has_value());
  EXPECT_TRUE(Acquire({.caller = {.tenant = "a"}}).has_value());
}

TEST_F(AdmissionTest, OneMoreThanMayWaitIsRefusedAtOnce) {
  settings_.waiting_acquires = 2;
  Again();
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kHang});
  Beside beside(outside_.io.get_executor());
  Start(beside, {.request_id = RequestId("r1")});
  Start(beside, {.request_id = RequestId("r1")});  // waits for the first, and takes a place
  const auto refused = Acquire();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("2 acquires wait already"));
  EXPECT_GE(refused.error().retry_after, std::chrono::milliseconds(10));
  EXPECT_LE(refused.error().retry_after, std::chrono::seconds(10));
  EXPECT_FALSE(Acquire({.request_id = RequestId("r1")}).has_value());  // repeats too
  EXPECT_EQ(admission().waiting(), 2u);
  EXPECT_TRUE(beside.results.empty());
  beside.scope.Cancel();
  Join(beside);
  EXPECT_TRUE(Acquire().has_value());
}

TEST_F(AdmissionTest, AcquiresThatNeedAClonePassOneByOne) {
  settings_.parallel_clones = 2;
  Again();
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kHang}, 2);
  const auto starts = outside_.host.calls(Verb::kStart);
  Beside beside(outside_.io.get_executor());
  for (int i = 0; i < 5; ++i) Start(beside, {});
  while (outside_.host.calls(Verb::kStart) < starts + 2) {
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  }
  outside_.io.restart();
  outside_.io.poll();  // all that can run
  EXPECT_EQ(outside_.host.calls(Verb::kStart), starts + 2);
  beside.scope.Cancel();
  Join(beside);
}

TEST_F(AdmissionTest, StopsWhileAVmIsBeingMeasured) {
  ASSERT_TRUE(Init(1).has_value());
  outside_.host.Inject(Verb::kStats, {Fault::Kind::kHang});
  const auto before = outside_.host.calls(Verb::kStats);
  while (outside_.host.calls(Verb::kStats) == before) {
    ASSERT_TRUE(Run(SleepFor(std::chrono::milliseconds(1))).has_value());
  }
  Finish();
}

// Whatever happens, the sums are what a recount gives.
TEST_F(AdmissionTest, SumsEqualARecountAfterAnything) {
  settings_.limits.tenant_leases = 6;
  settings_.limits.tenant_memory = Bytes::MiB(1500);
  Again();
  ASSERT_TRUE(Init(4).has_value());
  std::mt19937 random(20);
  std::vector<VmPtr> held;
  for (int step = 0; step < 300; ++step) {
    const std::string tenant = "t" + std::to_string(random() % 3);
    switch (random() % 8) {
      case 0: outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail}); break;
      case 1: outside_.host.Inject(Verb::kResume, {Fault::Kind::kVmmDies}); break;
      case 2:
      case 3:
      case 4: {
        auto acquired = Acquire({.vcpus = 1 + static_cast<std::uint32_t>(random() % 3),
                                 .memory = Bytes::MiB(128 * (1 + random() % 4)),
                                 .caller = {.tenant = tenant}});
        if (acquired) held.push_back(acquired->vm);
        break;
      }
      case 5: LeaveRoom(MiB(static_cast<std::int64_t>(random() % 3000)) - MiB(200)); break;
      default:
        if (held.empty()) break;
        std::swap(held[random() % held.size()], held.back());
        if (random() % 2 == 0) {
          (void)Release(held.back());
        } else {
          (void)outside_.host.Kill(held.back()->id());
          (void)Run(held.back()->gone.Wait(After(kLong)));
        }
        held.pop_back();
    }
    MeasureAll();
    Bytes growth;
    std::map<std::string, Quotas::Held> tenants;
    for (const auto& vm : cache().vms().List()) {
      if (vm->phase() != record::VM_PHASE_ASSIGNED) continue;
      const Bytes memory(vm->record.memory_bytes());
      growth += memory - kPrivate;
      auto& of = tenants[vm->tenant()];
      of = {of.leases + 1, of.vcpus + vm->record.vcpus(), of.memory + memory};
    }
    ASSERT_EQ(admission().memory()->growth, growth) << "step " << step;
    ASSERT_EQ(admission().tenants(), tenants) << "step " << step;
    ASSERT_EQ(admission().waiting(), 0u);
    for (const auto& [name, of] : tenants) {
      ASSERT_LE(of.leases, 6u);
      ASSERT_LE(of.memory, Bytes::MiB(1500));
    }
  }
}

}  // namespace
}  // namespace hatchery::cache
