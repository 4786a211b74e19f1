// How leases end by themselves, who may touch them, and what a retry gets.
#include <fcntl.h>
#include <gmock/gmock.h>

#include "tests/base/limit.h"
#include "tests/cache/client_process.h"

namespace hatchery::cache {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using testing::HasSubstr;

LeaseTerm For(std::chrono::nanoseconds ttl) { return {LeaseTerm::Kind::kTtl, ttl}; }

class LeasesTest : public CacheFixture {
 protected:
  LeasesTest() : CacheFixture(/*keep_warm=*/true) { EXPECT_TRUE(Init(2).has_value()); }

  void Pass(std::chrono::nanoseconds time) {
    outside_.clock.Advance(time);
    cache().lease_ends().Check();
  }
  bool Gone(const VmPtr& vm) { return Run(vm->gone.Wait(After(kLong))).has_value(); }
  bool Leased(const VmId& id) {
    const auto vm = cache().vms().Find(id);
    return vm && vm->lease;
  }
};

TEST_F(LeasesTest, ALeaseThatIsNotRenewedEndsItsVmAfterTheGracePeriod) {
  const auto vm = Acquire({.term = For(seconds(60))})->vm;
  Pass(seconds(59));
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  Pass(seconds(1));
  EXPECT_NE(vm->lease->lapsed_boottime_ns(), 0);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  Pass(settings_.lease_grace);
  EXPECT_TRUE(Gone(vm));
}

TEST_F(LeasesTest, RenewingBeginsItsTimeAnew) {
  const auto vm = Acquire({.term = For(seconds(60))})->vm;
  Pass(seconds(50));
  ASSERT_TRUE(cache().leases().Renew({}, vm->id(), std::nullopt).has_value());
  Pass(seconds(50));
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  ASSERT_TRUE(cache().leases().Renew({}, vm->id(), seconds(600)).has_value());
  Pass(seconds(599));
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  EXPECT_EQ(vm->lease->ttl_ns(), std::chrono::nanoseconds(seconds(600)).count());
}

TEST_F(LeasesTest, RenewingInTheGracePeriodKeepsTheVm) {
  const auto vm = Acquire({.term = For(seconds(60))})->vm;
  Pass(seconds(61));
  ASSERT_NE(vm->lease->lapsed_boottime_ns(), 0);
  ASSERT_TRUE(cache().leases().Renew({}, vm->id(), std::nullopt).has_value());
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  Pass(seconds(59));
  EXPECT_TRUE(Leased(vm->id()));
}

TEST_F(LeasesTest, SettingTheWallClockEndsNothing) {
  const auto vm = Acquire({.term = For(seconds(60))})->vm;
  outside_.clock.SetBack(-hours(24 * 365));
  cache().lease_ends().Check();
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  outside_.clock.SetBack(hours(2 * 24 * 365));
  Pass(seconds(60));
  EXPECT_NE(vm->lease->lapsed_boottime_ns(), 0);
}

TEST_F(LeasesTest, OnlyALeaseWithATimeToLiveIsRenewed) {
  const auto held = Acquire()->vm;
  auto renewed = cache().leases().Renew({}, held->id(), std::nullopt);
  EXPECT_EQ(renewed.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(cache().leases().Renew({}, VmId("vm-0"), std::nullopt).error().code, Code::kNotFound);
  const auto timed = Acquire({.term = For(seconds(60))})->vm;
  EXPECT_EQ(cache().leases().Renew({}, timed->id(), seconds(0)).error().field, "ttl");
  EXPECT_EQ(Acquire({.term = For(seconds(0))}).error().field, "ttl");
}

TEST_F(LeasesTest, AHeldLeaseOutlivesEverything) {
  const auto vm = Acquire()->vm;
  Pass(hours(24 * 365));
  EXPECT_TRUE(Leased(vm->id()));
  Die();
  Begin();
  Pass(hours(24 * 365));
  EXPECT_TRUE(Leased(vm->id()));
}

class LongestTtlTest : public LeasesTest {
 protected:
  LongestTtlTest() {
    Finish();
    settings_.longest_ttl = seconds(600);
    Begin();
  }
};

TEST_F(LongestTtlTest, BoundsWhatIsAskedForAndWhatWouldBeHeld) {
  const auto vm = Acquire()->vm;
  EXPECT_EQ(vm->lease->term(), record::LEASE_TERM_TTL);
  EXPECT_EQ(vm->lease->ttl_ns(), std::chrono::nanoseconds(seconds(600)).count());
  const auto refused = Acquire({.term = For(seconds(601))});
  EXPECT_EQ(refused.error().field, "ttl");
  EXPECT_THAT(refused.error().message, HasSubstr("600 s"));
  EXPECT_EQ(cache().leases().Renew({}, vm->id(), seconds(601)).error().field, "ttl");
}

TEST_F(LeasesTest, ARestartKeepsALeaseRunningAndItsGraceWhole) {
  const auto id = Acquire({.term = For(seconds(60))})->vm->id();
  Pass(seconds(10));
  Die();
  outside_.clock.Advance(seconds(40));
  Begin();
  EXPECT_EQ(cache().vms().Find(id)->lease->lapsed_boottime_ns(), 0);
  Die();
  // It runs out while no daemon is there: its client could not renew it.
  outside_.clock.Advance(hours(1));
  Begin();
  const auto vm = cache().vms().Find(id);
  ASSERT_NE(vm, nullptr);
  cache().lease_ends().Check();
  EXPECT_NE(vm->lease->lapsed_boottime_ns(), 0);
  ASSERT_TRUE(cache().leases().Renew({}, id, std::nullopt).has_value());
  Pass(seconds(61));
  outside_.clock.Advance(seconds(4));
  Die();
  Begin();  // in the grace period, which goes on
  Pass(settings_.lease_grace - seconds(5));
  EXPECT_TRUE(Leased(id));
  const auto lapsed = cache().vms().Find(id);
  Pass(seconds(1));
  EXPECT_TRUE(Gone(lapsed));
}

TEST_F(LeasesTest, ARenewalOutlivesTheDaemon) {
  const auto id = Acquire({.term = For(seconds(60))})->vm->id();
  ASSERT_TRUE(cache().leases().Renew({}, id, seconds(600)).has_value());
  Die();
  Begin();
  Pass(seconds(599));
  EXPECT_EQ(cache().vms().Find(id)->lease->lapsed_boottime_ns(), 0);
  EXPECT_EQ(cache().vms().Find(id)->lease->ttl_ns(),
            std::chrono::nanoseconds(seconds(600)).count());
}

TEST_F(LeasesTest, ItsTimeBeginsWhenTheVmIsReady) {
  // The lease is written down first; then its guest takes this long.
  outside_.store.before_write = [this](const KvStore::Batch&) -> Result<void> {
    outside_.store.before_write = nullptr;
    outside_.clock.Advance(seconds(50));
    return {};
  };
  const auto vm = Acquire({.term = For(seconds(60))})->vm;
  Pass(seconds(59));
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  Pass(seconds(1));
  EXPECT_NE(vm->lease->lapsed_boottime_ns(), 0);
}

class BoundLeaseTest : public LeasesTest {
 protected:
  VmPtr AcquireFor(const ClientProcess& client, std::string request = "") {
    auto acquired = Acquire({.request_id = RequestId(std::move(request)),
                             .term = {LeaseTerm::Kind::kCaller},
                             .caller = client.caller()});
    EXPECT_TRUE(acquired.has_value()) << ToString(acquired.error());
    return acquired->vm;
  }
  // The lease has been noticed to have lost its holder.
  void AwaitLapse(const VmPtr& vm) {
    const auto by = After(kLong);
    while (vm->lease && vm->lease->lapsed_boottime_ns() == 0) {
      ASSERT_LT(std::chrono::steady_clock::now(), by);
      outside_.io.restart();
      outside_.io.run_one_for(std::chrono::milliseconds(10));
    }
  }
  ClientProcess first_{outside_.io.get_executor()};
  ClientProcess second_{outside_.io.get_executor()};
};

TEST_F(BoundLeaseTest, EndsWithTheProcessThatHoldsIt) {
  const auto vm = AcquireFor(first_);
  const auto other = AcquireFor(second_);
  ASSERT_TRUE(Run(first_.End()).has_value());
  AwaitLapse(vm);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED) << "the grace period";
  Pass(settings_.lease_grace);
  EXPECT_TRUE(Gone(vm));
  EXPECT_TRUE(Leased(other->id()));
}

TEST_F(BoundLeaseTest, AllLeasesOfAProcessEndWithIt) {
  const auto one = AcquireFor(first_), two = AcquireFor(first_);
  ASSERT_TRUE(Run(first_.End()).has_value());
  AwaitLapse(one);
  AwaitLapse(two);
  Pass(settings_.lease_grace);
  EXPECT_TRUE(Gone(one) && Gone(two));
}

TEST_F(BoundLeaseTest, AnotherProcessTakesItOverWithTheSameRequest) {
  const auto vm = AcquireFor(first_, "r1");
  ASSERT_TRUE(Run(first_.End()).has_value());
  AwaitLapse(vm);
  EXPECT_EQ(AcquireFor(second_, "r1"), vm);
  Pass(hours(1));
  EXPECT_TRUE(Leased(vm->id()));
  ASSERT_TRUE(Run(second_.End()).has_value());
  AwaitLapse(vm);
  Pass(settings_.lease_grace);
  EXPECT_TRUE(Gone(vm));
}

TEST_F(BoundLeaseTest, WhoseVmAnotherProcessTookOverEndsNothing) {
  const auto taken = AcquireFor(first_, "r1"), kept = AcquireFor(first_);
  EXPECT_EQ(AcquireFor(second_, "r1"), taken);
  ASSERT_TRUE(Run(first_.End()).has_value());
  AwaitLapse(kept);
  EXPECT_EQ(taken->lease->lapsed_boottime_ns(), 0);
}

TEST_F(BoundLeaseTest, AHolderThatEndedWhileNoDaemonRanIsNoticed) {
  const auto id = AcquireFor(first_)->id();
  Die();
  ASSERT_TRUE(Run(first_.End()).has_value());
  Begin();
  const auto vm = cache().vms().Find(id);
  ASSERT_NE(vm, nullptr);
  AwaitLapse(vm);
  Pass(settings_.lease_grace);
  EXPECT_TRUE(Gone(vm));
}

TEST_F(BoundLeaseTest, AHolderThatCannotBeLookedAtIsNotTakenForDead) {
  AcquireFor(second_);  // UBSan needs descriptors to look at a type for the first time
  const VmPtr vm = [&] {
    const Limit limit(RLIMIT_NOFILE, DescriptorsInUse());
    return AcquireFor(first_);
  }();
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  Pass(std::chrono::seconds(2));
  EXPECT_EQ(vm->lease->lapsed_boottime_ns(), 0);
  ASSERT_TRUE(Run(first_.End()).has_value());
  AwaitLapse(vm);
}

TEST_F(BoundLeaseTest, AReusedPidIsNotTheHolder) {
  const auto held = AcquireFor(second_);  // which is watched, then
  Caller reused = second_.caller();
  reused.process->start_ticks -= 1;  // an earlier process of that pid held it
  const auto vm = Acquire({.term = {LeaseTerm::Kind::kCaller}, .caller = reused})->vm;
  EXPECT_NE(vm->lease->lapsed_boottime_ns(), 0);
  EXPECT_EQ(held->lease->lapsed_boottime_ns(), 0);
}

TEST_F(BoundLeaseTest, NeedsAProcessThatIsKnown) {
  const auto refused = Acquire({.term = {LeaseTerm::Kind::kCaller}, .caller = {}});
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(2);  // none was used up for it
}

class TenantsTest : public LeasesTest {
 protected:
  Caller one_{.tenant = "uid:1", .administers = false};
  Caller two_{.tenant = "uid:2", .administers = false};
};

TEST_F(TenantsTest, AnotherTenantsVmIsAsIfItWereNotThere) {
  const auto id = Acquire({.caller = one_})->vm->id();
  const auto missing = [&](const auto& result, const VmId& vm) {
    EXPECT_EQ(result.error().code, Code::kNotFound);
    EXPECT_EQ(result.error().message, "no VM '" + vm.str() + "'");
  };
  auto& leases = cache().leases();
  for (const VmId& vm : {id, VmId("vm-0"), cache().vms().List().back()->id()}) {
    missing(Run(leases.Exec(two_, vm, {.argv = {"true"}}, After(kLong))), vm);
    missing(Run(leases.Release(two_, vm, After(kLong))), vm);
    missing(leases.Renew(two_, vm, std::nullopt), vm);
  }
  EXPECT_TRUE(Run(leases.Exec(one_, id, {.argv = {"true"}}, After(kLong))).has_value());
  EXPECT_TRUE(Run(leases.Release(Caller{}, id, After(kLong))).has_value()) << "an administrator";
}

TEST_F(TenantsTest, RequestIdsAreATenantsOwn) {
  const auto mine = Acquire({.request_id = RequestId("r"), .caller = one_});
  const auto theirs = Acquire({.request_id = RequestId("r"), .sandbox_id = "x", .caller = two_});
  ASSERT_TRUE(mine && theirs);
  EXPECT_NE(mine->vm, theirs->vm);
  const auto id = mine->vm->id();
  Die();
  Begin();
  EXPECT_EQ(Acquire({.request_id = RequestId("r"), .caller = one_})->vm->id(), id);
}

TEST_F(LeasesTest, ARequestIsRememberedForAnHourAfterItsLeaseWhateverTheClock) {
  const AcquireParams params{.request_id = RequestId("r1")};
  ASSERT_TRUE(Release(Acquire(params)->vm).has_value());
  const auto remembered = [&] {
    const auto again = Acquire(params);
    return !again && again.error().code == Code::kFailedPrecondition &&
           again.error().message.contains("has ended (released)");
  };
  outside_.clock.SetBack(-hours(48));
  EXPECT_TRUE(remembered());
  outside_.clock.Advance(std::chrono::minutes(50));
  Die();
  Begin();
  EXPECT_TRUE(remembered()) << "a restart, and a wall clock that was set forward";
  outside_.clock.SetBack(hours(100));
  Die();
  Begin();
  EXPECT_TRUE(remembered()) << "and one that was set back";
  outside_.clock.Advance(hours(2));
  Die();
  Begin();
  EXPECT_FALSE(remembered());
}

// An acquire tries another VM if one cannot be made unique.
TEST_F(LeasesTest, AVmThatFailedItsRequestDoesNotEndIt) {
  outside_.agents.FailNext(agent::Method::kPersonalize, {Code::kInternal, "no"});
  outside_.host.SetDelay(Verb::kStop, std::chrono::milliseconds(20));
  const AcquireParams params{.request_id = RequestId("r1")};
  const auto vm = Acquire(params)->vm;
  ASSERT_TRUE(Eventually([&] {  // the first one is gone
    return std::ranges::none_of(cache().vms().List(), [](const VmPtr& other) {
      return other->phase() == record::VM_PHASE_FAILED;
    });
  }));
  outside_.clock.Advance(hours(2));
  Die();
  Begin();
  EXPECT_EQ(Acquire(params)->vm->id(), vm->id());
}

TEST_F(LeasesTest, ARequestThatFailedIsServedAnewByTheNextDaemon) {
  outside_.agents.FailNext(agent::Method::kPersonalize, {Code::kInternal, "no"}, 3);
  const AcquireParams params{.request_id = RequestId("r1")};
  ASSERT_FALSE(Acquire(params).has_value());
  Die();
  Begin();
  const auto again = Acquire(params);
  EXPECT_TRUE(again.has_value()) << ToString(again.error());
}

}  // namespace
}  // namespace hatchery::cache
