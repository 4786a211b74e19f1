#include "cache/cache.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using testing::HasSubstr;

class CacheTest : public CacheFixture {};

TEST_F(CacheTest, InitBuildsATemplateAndFillsThePool) {
  auto done = Init(3);
  ASSERT_TRUE(done.has_value()) << ToString(done.error());
  EXPECT_FALSE(done->created.reused);
  EXPECT_EQ(done->pool.warm, 3u);
  ExpectVms(3);
}

TEST_F(CacheTest, InitAgainDoesNothingAgain) {
  const auto first = Init(2).value();
  const auto second = Init(2).value();
  EXPECT_TRUE(second.created.reused);
  EXPECT_EQ(first.created.info.digest, second.created.info.digest);
  ExpectVms(2);
}

TEST_F(CacheTest, AcquireGivesAWarmVmThatIsUniqueAndRefills) {
  ASSERT_TRUE(Init(2).has_value());
  std::set<std::string> machine_ids, boot_ids, hostnames, vm_ids;
  for (int i = 0; i < 4; ++i) {
    auto acquired = Acquire();
    ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
    EXPECT_EQ(acquired->source, Source::kPool);
    machine_ids.insert(acquired->vm->record.machine_id());
    boot_ids.insert(acquired->vm->record.boot_id());
    hostnames.insert(acquired->vm->record.hostname());
    vm_ids.insert(acquired->vm->record.id());
    EXPECT_EQ(acquired->vm->phase(), record::VM_PHASE_ASSIGNED);
    EXPECT_EQ(acquired->vm->machine->vm->state(), hypervisor::VmState::kRunning);
    ASSERT_TRUE(Fill().has_value());
  }
  EXPECT_EQ(machine_ids.size(), 4u);
  EXPECT_EQ(boot_ids.size(), 4u);
  EXPECT_EQ(hostnames.size(), 4u);
  EXPECT_EQ(vm_ids.size(), 4u);
  EXPECT_EQ(OnlyPool().hits, 4u);
  ExpectVms(6);
}

TEST_F(CacheTest, EverySeedIsUsedOnce) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Acquire()->vm;
  // Those of the rehearsals, and one at acquire, all different.
  const auto& seeds = outside_.agents.guest(AgentOf(vm)).seeds;
  ASSERT_GE(seeds.size(), 2u);
  EXPECT_EQ(std::set(seeds.begin(), seeds.end()).size(), seeds.size());
  EXPECT_GE(seeds.back().size(), 32u);
}

TEST_F(CacheTest, AcquireResizes) {
  ASSERT_TRUE(Init(1).has_value());
  auto acquired = Acquire({.vcpus = 3, .memory = Bytes::MiB(384)});
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(acquired->vm->record.vcpus(), 3u);
  EXPECT_EQ(acquired->vm->record.memory_bytes(), Bytes::MiB(384).count());
  EXPECT_EQ(outside_.agents.guest(AgentOf(acquired->vm)).online_vcpus, 3u);
}

TEST_F(CacheTest, APoolOfThatShapeServesAResizeWithoutOne) {
  ASSERT_TRUE(Init(1).has_value());
  ASSERT_TRUE(Run(cache().pools().Set("default", 2, Bytes::MiB(256), 1, After(kLong))).has_value());
  ASSERT_TRUE(Fill().has_value());
  const auto before = outside_.host.calls(Verb::kAddVcpus);
  auto acquired = Acquire({.vcpus = 2, .memory = Bytes::MiB(256)});
  ASSERT_TRUE(acquired.has_value());
  EXPECT_EQ(acquired->source, Source::kPool);
  EXPECT_EQ(acquired->vm->record.pool_key(), "default/2/268435456");
  // The refill adds again; the acquire did not.
  EXPECT_EQ(acquired->vm->machine->vm->vcpus(), 2u);
  EXPECT_GE(before, 1u);
}

TEST_F(CacheTest, AnEmptyPoolFallsBackToAClone) {
  ASSERT_TRUE(Init(0).has_value());
  auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(acquired->source, Source::kClone);
  ExpectVms(1);
}

TEST_F(CacheTest, ReleaseLeavesNothing) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(Release(vm).has_value());
  ExpectVms(0);
  EXPECT_TRUE(outside_.store.Scan(Table::kLeases).value().empty());
  EXPECT_EQ(Release(vm).error().code, Code::kNotFound);
}

TEST_F(CacheTest, AUsedVmNeverReturnsToThePool) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(Release(vm).has_value());
  ASSERT_TRUE(Fill().has_value());
  EXPECT_NE(Acquire()->vm->record.id(), vm->record.id());
  EXPECT_FALSE(MayEnter(record::VM_PHASE_ASSIGNED, record::VM_PHASE_WARM));
}

TEST_F(CacheTest, RefusesWhatNoVmCanBe) {
  ASSERT_TRUE(Init(1).has_value());
  auto field_of = [&](AcquireParams params) {
    auto refused = Acquire(std::move(params));
    return refused ? "accepted" : refused.error().field;
  };
  EXPECT_EQ(field_of({.vcpus = 0}), "vcpus");
  EXPECT_EQ(field_of({.vcpus = 10'000}), "vcpus");
  EXPECT_EQ(field_of({.memory = Bytes::MiB(1)}), "memory_bytes");
  EXPECT_EQ(field_of({.memory = Bytes(1ull << 60)}), "memory_bytes");
  EXPECT_EQ(field_of({.memory = Bytes::MiB(200)}), "memory_bytes");
  EXPECT_EQ(field_of({.template_name = "../x"}), "template_name");
  EXPECT_EQ(field_of({.template_name = "a/b"}), "template_name");
  EXPECT_EQ(field_of({.template_name = std::string(64, 'a')}), "template_name");
  EXPECT_EQ(field_of({.request_id = RequestId("no spaces")}), "request_id");
  EXPECT_EQ(field_of({.sandbox_id = "a\nb"}), "sandbox_id");
  auto unknown = Acquire({.template_name = "nobody"});
  EXPECT_EQ(unknown.error().code, Code::kNotFound);
  EXPECT_THAT(unknown.error().message, HasSubstr("nobody"));
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
}

TEST_F(CacheTest, TheSameRequestIdGivesTheSameVm) {
  ASSERT_TRUE(Init(2).has_value());
  const AcquireParams params{.request_id = RequestId("r1"), .sandbox_id = "s"};
  const auto first = Acquire(params).value();
  const auto second = Acquire(params).value();
  EXPECT_EQ(first.vm, second.vm);
  EXPECT_EQ(second.source, Source::kRepeat);
  EXPECT_EQ(Acquire({.request_id = RequestId("r1"), .sandbox_id = "other"}).error().code,
            Code::kAlreadyExists);
  ASSERT_TRUE(Release(first.vm).has_value());
  EXPECT_EQ(Acquire(params).error().code, Code::kFailedPrecondition);
}

TEST_F(CacheTest, ARetryWhileTheFirstCallRunsGetsItsVm) {
  ASSERT_TRUE(Init(2).has_value());
  outside_.agents.SetDelay(agent::Method::kPersonalize, std::chrono::milliseconds(20));
  const AcquireParams params{.request_id = RequestId("r1")};
  std::vector<VmPtr> got;
  TaskScope scope(outside_.io.get_executor());
  for (int i = 0; i < 3; ++i) {
    scope.Spawn("acquire",
                [](Cache& c, AcquireParams p, std::vector<VmPtr>& out) -> asio::awaitable<void> {
                  out.push_back((co_await c.leases().Acquire(p, After(kLong))).value().vm);
                }(cache(), params, got));
  }
  Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope))
      .value();
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got[1], got[2]);
}

TEST_F(CacheTest, ACancelledAcquireLeavesNoVmAndFreesItsRequest) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.agents.SetDelay(agent::Method::kPersonalize, kLong);
  TaskScope scope(outside_.io.get_executor());
  std::optional<Result<Acquired>> seen;
  scope.Spawn("acquire",
              [](Cache& c, std::optional<Result<Acquired>>& out) -> asio::awaitable<void> {
                out = co_await c.leases().Acquire({.request_id = RequestId("r1")}, After(kLong));
              }(cache(), seen));
  Run([](TaskScope& s, agent::FakeAgents& agents) -> Task<void> {
    while (agents.CountCalls(agent::Method::kPersonalize) == 0) {
      CO_RETURN_IF_ERROR(co_await SleepFor(std::chrono::milliseconds(1)));
    }
    s.Cancel();
    co_await s.Join();
    co_return Result<void>();
  }(scope, outside_.agents))
      .value();
  EXPECT_EQ(seen->error().code, Code::kCancelled);
  Run(cache().vms().EndAll([](const VmEntry&) { return true; }, "", After(kLong))).value();
  ExpectVms(0);
  outside_.agents.SetDelay(agent::Method::kPersonalize, {});
  EXPECT_TRUE(Acquire({.request_id = RequestId("r1")}).has_value());
}

TEST_F(CacheTest, AnAcquireThatIsCancelledInItsLastStepLeavesNoVm) {
  ASSERT_TRUE(Init(0).has_value());
  TaskScope scope(outside_.io.get_executor());
  std::optional<Result<Acquired>> seen;
  // What comes after the guest was made unique is one write, in the same turn of the loop.
  outside_.store.before_write = [&](const KvStore::Batch&) -> Result<void> {
    if (outside_.agents.CountCalls(agent::Method::kPersonalize) > 0) scope.Cancel();
    return {};
  };
  scope.Spawn("acquire",
              [](Cache& c, std::optional<Result<Acquired>>& out) -> asio::awaitable<void> {
                out = co_await c.leases().Acquire({}, After(kLong));
              }(cache(), seen));
  Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope))
      .value();
  outside_.store.before_write = nullptr;
  EXPECT_EQ(seen->error().code, Code::kCancelled);
  EXPECT_TRUE(Eventually([&] { return cache().vms().size() == 0; }));
  ExpectVms(0);
}

TEST_F(CacheTest, AnUndeliveredReplyTakesTheVmBack) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire({.request_id = RequestId("r1")})->vm;
  cache().leases().Undelivered(vm);
  Run(vm->gone.Wait(After(kLong))).value();
  ExpectVms(0);
  EXPECT_NE(Acquire({.request_id = RequestId("r1")})->vm, vm);
}

TEST_F(CacheTest, AGuestThatDoesNotConfirmItsReseedIsDestroyedAndTheNextOneUsed) {
  ASSERT_TRUE(Init(2).has_value());
  outside_.agents.SkipReseedNext();
  auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  ASSERT_TRUE(Fill().has_value());
  Run(cache().vms().EndAll([](const VmEntry& vm) { return vm.phase() == record::VM_PHASE_FAILED; },
                           "", After(kLong)))
      .value();
  ExpectVms(3);
}

TEST_F(CacheTest, GivesUpWhenNoGuestConfirms) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.agents.FailNext(agent::Method::kPersonalize, {Code::kInternal, "no entropy"}, 10);
  auto refused = Acquire();
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message, HasSubstr("no entropy"));
  Run(cache().vms().EndAll([](const VmEntry&) { return true; }, "", After(kLong))).value();
  ExpectVms(0);
}

TEST_F(CacheTest, APoolMadeSmallerEndsItsSurplusOnly) {
  ASSERT_TRUE(Init(3).has_value());
  const auto leased = Acquire()->vm;
  ASSERT_TRUE(Fill().has_value());
  ASSERT_TRUE(
      Run(cache().pools().Set("default", std::nullopt, std::nullopt, 1, After(kLong))).has_value());
  Run(cache().vms().EndAll(
          [](const VmEntry& vm) { return vm.phase() == record::VM_PHASE_RELEASED; }, "",
          After(kLong)))
      .value();
  ExpectVms(2);
  EXPECT_EQ(leased->phase(), record::VM_PHASE_ASSIGNED);
}

TEST_F(CacheTest, AFailingCloneIsRetriedWithBackoffAndTold) {
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kInternal, "bad state"}}, 2);
  auto done = Init(2);
  ASSERT_TRUE(done.has_value()) << ToString(done.error());
  ExpectVms(2);
  outside_.host.Inject(Verb::kLoad, {Fault::Kind::kFail, {Code::kInternal, "bad state"}}, 50);
  auto failed = Init(4);
  ASSERT_FALSE(failed.has_value());
  EXPECT_THAT(failed.error().message, HasSubstr("bad state"));
}

TEST_F(CacheTest, ADeadWarmVmIsReplaced) {
  ASSERT_TRUE(Init(2).has_value());
  const auto victim = outside_.host.live().at(0);
  ASSERT_TRUE(outside_.host.Kill(victim).has_value());
  auto gone = Run([](Cache& c, VmId id) -> Task<void> {
    while (const auto vm = c.vms().Find(id))
      CO_RETURN_IF_ERROR(co_await vm->gone.Wait(After(kLong)));
    co_return Result<void>();
  }(cache(), victim));
  ASSERT_TRUE(gone.has_value());
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(2);
  EXPECT_EQ(cache().vms().Find(victim), nullptr);
}

TEST_F(CacheTest, ADeadLeasedVmEndsItsLease) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(outside_.host.Kill(vm->id()).has_value());
  Run(vm->gone.Wait(After(kLong))).value();
  ExpectVms(0);
  EXPECT_TRUE(outside_.store.Scan(Table::kLeases).value().empty());
}

TEST_F(CacheTest, ExecRunsInALeasedVmOnly) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Acquire()->vm;
  auto result = Run(cache().leases().Exec({}, vm->id(), {.argv = {"echo", "hi"}}, After(kLong)));
  ASSERT_TRUE(result.has_value()) << ToString(result.error());
  EXPECT_EQ(result->out, "hi\n");
  auto missing = Run(cache().leases().Exec({}, vm->id(), {.argv = {"nobody"}}, After(kLong)));
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  ASSERT_TRUE(Fill().has_value());
  for (const auto& pooled : cache().vms().List()) {
    if (pooled->phase() != record::VM_PHASE_WARM) continue;
    auto refused = Run(cache().leases().Exec({}, pooled->id(), {.argv = {"echo"}}, After(kLong)));
    EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  }
  auto unknown = Run(cache().leases().Exec({}, VmId("vm-0"), {.argv = {"echo"}}, After(kLong)));
  EXPECT_EQ(unknown.error().code, Code::kNotFound);
}

TEST_F(CacheTest, ANewVersionRollsThePoolOverAndTheOldOneGoesWithItsLastClone) {
  const auto old = Init(2)->created.info.digest;
  const auto leased = Acquire()->vm;
  TemplateSpec spec;
  auto created = Run(cache().catalog().Create(spec, true, [](std::string) {}, After(kLong)));
  ASSERT_TRUE(created.has_value()) << ToString(created.error());
  EXPECT_NE(created->info.digest, old);
  ASSERT_TRUE(Fill().has_value());
  for (const auto& vm : cache().vms().List()) {
    if (vm->phase() == record::VM_PHASE_WARM) {
      EXPECT_EQ(vm->record.template_digest(), created->info.digest.str());
    }
  }
  EXPECT_EQ(cache().catalog().List().size(), 2u);
  ASSERT_TRUE(Release(leased).has_value());
  Run([](Cache& c) -> Task<void> {
    co_await c.catalog().Stop();
    co_return Result<void>();
  }(cache()))
      .value();
  EXPECT_EQ(cache().catalog().List().size(), 1u);
  EXPECT_EQ(under_test_->templates->List().size(), 1u);
}

TEST_F(CacheTest, DeleteRefusesWhileVmsLiveUnlessToldToDrain) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Acquire().has_value());
  auto say = [](StepProgress) {};
  EXPECT_EQ(Run(cache().DeleteTemplate("default", false, say, After(kLong))).error().code,
            Code::kFailedPrecondition);
  auto drained = Run(cache().DeleteTemplate("default", true, say, After(kLong)));
  ASSERT_TRUE(drained.has_value()) << ToString(drained.error());
  ExpectVms(0);
  EXPECT_TRUE(cache().catalog().List().empty());
  EXPECT_TRUE(cache().pools().List().empty());
  EXPECT_TRUE(under_test_->templates->List().empty());
}

TEST_F(CacheTest, DestroyAllLeavesNothing) {
  ASSERT_TRUE(Init(2).has_value());
  ASSERT_TRUE(Init(1, "second").has_value());
  ASSERT_TRUE(Acquire().has_value());
  ASSERT_TRUE(Run(cache().DestroyAll([](StepProgress) {}, After(kLong))).has_value());
  ExpectVms(0);
  for (const Table table : {Table::kPools, Table::kTemplateNames, Table::kLeases}) {
    EXPECT_TRUE(outside_.store.Scan(table).value().empty());
  }
}

TEST_F(CacheTest, AFailedBuildLeavesTheNameAsItWas) {
  const auto before = Init(1)->created.info.digest;
  outside_.host.Inject(Verb::kSave, {Fault::Kind::kFail, {Code::kInternal, "no room"}});
  TemplateSpec spec;
  auto failed = Run(cache().catalog().Create(spec, true, [](std::string) {}, After(kLong)));
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(cache().catalog().DigestOf("default").value(), before);
  ExpectVms(1);
}

TEST_F(CacheTest, AStoreThatCannotBeWrittenRefusesAnAcquireAndKeepsTheVmPooled) {
  ASSERT_TRUE(Init(1).has_value());
  outside_.store.before_write = [](const KvStore::Batch&) -> Result<void> {
    return ResourceExhausted("no space left on device");
  };
  auto refused = Acquire();
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_EQ(OnlyPool().warm, 1u);
  outside_.store.before_write = nullptr;
  EXPECT_TRUE(Acquire().has_value());
}

TEST_F(CacheTest, StoppingRefusesAcquiresAndKeepsLeasedVms) {
  ASSERT_TRUE(Init(2).has_value());
  const auto vm = Acquire()->vm->id();
  Finish();
  EXPECT_EQ(outside_.host.live(), std::vector{vm});
  Begin();
  EXPECT_NE(cache().vms().Find(vm), nullptr);
}

TEST_F(CacheTest, AVmThatARetryGotIsNotTakenBack) {
  ASSERT_TRUE(Init(0).has_value());
  const AcquireParams params{.request_id = RequestId("r1")};
  const auto vm = Acquire(params)->vm;
  ASSERT_EQ(Acquire(params)->vm, vm);
  cache().leases().Undelivered(vm);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  cache().leases().Undelivered(vm);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_RELEASED);
}

TEST_F(CacheTest, DeleteRefusesWhileAnOlderVersionIsLeased) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(
      Run(cache().catalog().Create({}, true, [](std::string) {}, After(kLong))).has_value());
  auto refused = Run(cache().DeleteTemplate("default", false, [](StepProgress) {}, After(kLong)));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
}

asio::awaitable<void> AcquireInto(Cache& cache, std::optional<Result<Acquired>>& out) {
  out = co_await cache.leases().Acquire({}, After(kLong));
}

Task<void> WaitForPhase(Cache& cache, Phase phase) {
  for (;;) {
    for (const auto& vm : cache.vms().List()) {
      if (vm->phase() == phase) co_return Result<void>();
    }
    CO_RETURN_IF_ERROR(co_await SleepFor(std::chrono::milliseconds(1)));
  }
}

TEST_F(CacheTest, AnAcquireThatIsTriedAgainIsNotServedFromADeletedTemplate) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.agents.SetDelay(agent::Method::kPersonalize, std::chrono::milliseconds(50));
  TaskScope scope(outside_.io.get_executor());
  std::optional<Result<Acquired>> seen;
  scope.Spawn("acquire", AcquireInto(cache(), seen));
  Run([](Cache& c, TaskScope& s) -> Task<void> {
    CO_RETURN_IF_ERROR(co_await WaitForPhase(c, record::VM_PHASE_ASSIGNED));
    CO_RETURN_IF_ERROR(
        co_await c.DeleteTemplate("default", true, [](StepProgress) {}, After(kLong)));
    co_await s.Join();
    co_return Result<void>();
  }(cache(), scope))
      .value();
  ASSERT_TRUE(seen.has_value());
  EXPECT_FALSE(seen->has_value());
  ExpectVms(0);
}

TEST_F(CacheTest, ADrainEndsAlthoughAcquiresKeepComing) {
  ASSERT_TRUE(Init(0).has_value());
  outside_.host.SetDelay(Verb::kStart, std::chrono::milliseconds(2));
  TaskScope scope(outside_.io.get_executor());
  bool stop = false;
  for (int i = 0; i < 4; ++i) {
    scope.Spawn("acquire", [](Cache& c, const bool& done) -> asio::awaitable<void> {
      while (!done) {
        (void)co_await c.leases().Acquire({}, After(kLong));
        (void)co_await SleepFor(std::chrono::microseconds(100));
      }
    }(cache(), stop));
  }
  auto drained = Run([](Cache& c, TaskScope& s, bool& done) -> Task<void> {
    CO_RETURN_IF_ERROR(co_await WaitForPhase(c, record::VM_PHASE_ASSIGNED));
    auto deleted =
        co_await c.DeleteTemplate("default", true, [](StepProgress) {}, After(10 * kMoment));
    done = true;
    co_await s.Join();
    co_return deleted;
  }(cache(), scope, stop));
  EXPECT_TRUE(drained.has_value()) << ToString(drained.error());
  ExpectVms(0);
}

}  // namespace
}  // namespace hatchery::cache
