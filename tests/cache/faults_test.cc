// Whatever fails, at whatever step: nothing leaks, no VM is handed out twice, and the next attempt
// works. Each test lives through one life of a service per step, and fails that step.
#include <map>
#include <set>
#include <tuple>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using agent::Method;

bool IsEnding(const VmEntry& vm) {
  return vm.phase() == record::VM_PHASE_RELEASED || vm.phase() == record::VM_PHASE_FAILED;
}

// One life of a service, on a host of its own.
class Life : public CacheFixture {
 public:
  Life() : CacheFixture(/*keep_warm=*/true) {
    Finish();
    // What hangs is given up soon.
    settings_.clone_timeout = std::chrono::seconds(1);
    settings_.personalize_timeout = kMoment;
    settings_.boot_timeout = std::chrono::seconds(2);
    Begin();
  }
  void TestBody() override {}

  Outside& outside() { return outside_; }

  // Everything that a service does; what fails is left, and the next step tried.
  void Live() {
    (void)Create(false, std::nullopt);
    (void)SetPool(1, kMoment);
    const auto large = AcquireOne({.request_id = RequestId("r1"),
                                   .vcpus = 2,
                                   .memory = Bytes::MiB(256),
                                   .resize_in_background = true});
    const auto small = AcquireOne({.request_id = RequestId("r2")});
    (void)SetPool(2, kMoment);
    if (large) (void)Release(large);
    (void)Create(true, std::nullopt);  // a new version, to which the pool moves
    if (small) (void)Release(small);
    (void)AcquireOne({});
    (void)SetPool(2, kMoment);
  }

  // Once nothing fails any more.
  void ExpectHealthy() {
    outside_.store.before_write = nullptr;
    outside_.host.ClearFaults();
    outside_.agents.ClearFaults();
    const auto made = Create(false, kLong);
    ASSERT_TRUE(made.has_value()) << ToString(made.error());
    // What is leased answers, is nobody else's, and can be given back.
    const auto fresh = AcquireOne({.request_id = RequestId("r3")});
    ASSERT_NE(fresh, nullptr);
    for (const auto& vm : cache().vms().List()) {
      if (vm->phase() != record::VM_PHASE_ASSIGNED) continue;
      const auto ran = Run(cache().leases().Exec({}, vm->id(), {.argv = {"true"}}, After(kLong)));
      // A connection that was lost is not made anew; the VM can be given back all the same.
      EXPECT_TRUE(ran.has_value() || !vm->machine->agent->usable()) << ToString(ran.error());
      const auto released = Release(vm);
      EXPECT_TRUE(released.has_value()) << ToString(released.error());
    }
    const auto filled = SetPool(2, kLong);
    ASSERT_TRUE(filled.has_value()) << ToString(filled.error());
    ASSERT_TRUE(Run(cache().vms().EndAll(IsEnding, "", After(kLong))).has_value());
    EXPECT_EQ(outside_.host.live().size(), 2u);
    EXPECT_EQ(Folders(), 2u);
    // What could not be written meanwhile was written after all.
    EXPECT_EQ(outside_.store.Scan(Table::kVms).value().size(), 2u);
    Die();
    Begin();
    ASSERT_TRUE(Fill().has_value());
    ASSERT_TRUE(Run(cache().vms().EndAll(IsEnding, "", After(kLong))).has_value());
    ExpectVms(2);
    EXPECT_TRUE(outside_.store.Scan(Table::kLeases).value().empty());
    EXPECT_EQ(TemplatesOnDisk(), 1u);
  }

 private:
  Result<Catalog::Created> Create(bool force, std::optional<std::chrono::nanoseconds> boot) {
    TemplateSpec spec;
    spec.boot_timeout = boot;
    return Run(cache().catalog().Create(spec, force, [](const std::string&) {}, After(kLong)));
  }
  Result<void> SetPool(std::uint32_t target, std::chrono::nanoseconds patience) {
    const auto key =
        Run(cache().pools().Set("default", std::nullopt, std::nullopt, target, After(kLong)));
    if (!key) return std::unexpected(key.error());
    return Run(cache().pools().WaitFilled(*key, [](const PoolInfo&) {}, After(patience)));
  }
  // Null if it failed. No VM is given to two.
  VmPtr AcquireOne(AcquireParams params) {
    auto acquired = Acquire(std::move(params), std::chrono::seconds(3));
    if (!acquired) return nullptr;
    EXPECT_TRUE(given_.insert(acquired->vm->id()).second)
        << acquired->vm->record.id() << " was given to two";
    EXPECT_EQ(acquired->vm->phase(), record::VM_PHASE_ASSIGNED);
    (void)Run(cache().leases().Exec({}, acquired->vm->id(), {.argv = {"true"}}, After(kMoment)));
    return acquired->vm;
  }
  std::size_t TemplatesOnDisk() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         fs::directory_iterator(outside_.dir.path() / "templates")) {
      ++count;
    }
    return count;
  }

  std::set<VmId> given_;
};

// `fail(life, n)` makes the n-th step (from 0) of a life fail, and `reached(life, n)` tells after
// it whether there was one. Ends with the first n that there was none of; how many there were.
template <class Fail, class Reached>
std::size_t FailEachStep(Fail fail, Reached reached) {
  for (std::size_t n = 0;; ++n) {
    SCOPED_TRACE("step " + std::to_string(n));
    Life life;
    fail(life, n);
    life.Live();
    if (!reached(life, n)) return n;
    life.ExpectHealthy();
    if (testing::Test::HasFailure()) return n;
  }
}

class WriteFaults : public testing::TestWithParam<bool> {};

// Each single write, and everything from it on, as on a disk that is full until somebody makes
// room.
TEST_P(WriteFaults, NothingIsLostWhereTheStoreRefuses) {
  const bool from_then_on = GetParam();
  std::size_t writes = 0;
  std::string refused;
  const std::size_t steps = FailEachStep(
      [&](Life& life, std::size_t n) {
        writes = 0;
        life.outside().store.before_write = [&, n](const KvStore::Batch& batch) -> Result<void> {
          const std::size_t number = writes++;
          if (number != n && !(from_then_on && number > n)) return {};
          refused = batch.label;
          return ResourceExhausted("no space left on device");
        };
      },
      [&](Life&, std::size_t n) { return writes > n; });
  EXPECT_GT(steps, 20u) << "a life writes more than that";
  if (HasFailure()) ADD_FAILURE() << "last refused: " << refused;
}

INSTANTIATE_TEST_SUITE_P(Each, WriteFaults, testing::Bool(),
                         [](const auto& info) { return info.param ? "AndAllLaterOnes" : "Alone"; });

class VerbFaults : public testing::TestWithParam<std::tuple<Verb, Fault::Kind>> {};

TEST_P(VerbFaults, NothingIsLostWhereAVerbFails) {
  const auto [verb, kind] = GetParam();
  const std::size_t steps = FailEachStep(
      [&](Life& life, std::size_t n) {
        const auto before = life.outside().host.calls(verb);
        EXPECT_EQ(before, 0u);
        life.outside().host.Inject(verb, {Fault::Kind::kNone}, n);
        life.outside().host.Inject(verb, {kind, {Code::kInternal, "injected"}});
      },
      [&](Life& life, std::size_t n) { return life.outside().host.calls(verb) > n; });
  EXPECT_GT(steps, 0u) << "the verb is used";
}

std::string NameOf(Verb verb) {
  switch (verb) {
    case Verb::kStart: return "Start";
    case Verb::kLoad: return "Load";
    case Verb::kPause: return "Pause";
    case Verb::kResume: return "Resume";
    case Verb::kSave: return "Save";
    case Verb::kAddVcpus: return "AddVcpus";
    case Verb::kAddMemory: return "AddMemory";
    case Verb::kStop: return "Stop";
    case Verb::kDescribe: return "Describe";
    case Verb::kRemoveVcpus:
    case Verb::kRemoveMemory:
    case Verb::kHandOver:
    case Verb::kStats:
    case Verb::kWait:
    case Verb::kReconnect: break;  // no part of a life
  }
  return "Other";
}

INSTANTIATE_TEST_SUITE_P(Each, VerbFaults,
                         testing::Combine(testing::Values(Verb::kStart, Verb::kLoad, Verb::kPause,
                                                          Verb::kResume, Verb::kSave,
                                                          Verb::kAddVcpus, Verb::kAddMemory,
                                                          Verb::kStop, Verb::kDescribe),
                                          testing::Values(Fault::Kind::kFail, Fault::Kind::kHang,
                                                          Fault::Kind::kVmmDies)),
                         [](const auto& info) {
                           const auto kind = std::get<1>(info.param);
                           return NameOf(std::get<0>(info.param)) +
                                  (kind == Fault::Kind::kFail   ? "Fails"
                                   : kind == Fault::Kind::kHang ? "Hangs"
                                                                : "MeetsTheVmmsEnd");
                         });

enum class AgentFault { kFails, kHangs, kGarbles };

class AgentFaults : public testing::TestWithParam<std::tuple<Method, AgentFault>> {};

TEST_P(AgentFaults, NothingIsLostWhereTheGuestDoesNotAnswerWell) {
  const auto [method, kind] = GetParam();
  const std::size_t steps = FailEachStep(
      [&](Life& life, std::size_t n) {
        auto& agents = life.outside().agents;
        agents.PassNext(method, n);
        switch (kind) {
          case AgentFault::kFails: agents.FailNext(method, {Code::kInternal, "injected"}); break;
          case AgentFault::kHangs: agents.HangNext(method); break;
          case AgentFault::kGarbles: agents.GarbleNext(method); break;
        }
      },
      [&](Life& life, std::size_t n) { return life.outside().agents.CountCalls(method) > n; });
  EXPECT_GT(steps, 0u) << "the method is used";
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Method, AgentFault>>& info) {
  static const std::map<Method, std::string> methods = {
      {Method::kConnect, "Connect"},         {Method::kCheck, "Check"},
      {Method::kVersion, "Version"},         {Method::kPersonalize, "Personalize"},
      {Method::kPrepareSave, "PrepareSave"}, {Method::kExec, "Exec"}};
  static const std::map<AgentFault, std::string> kinds = {{AgentFault::kFails, "Fails"},
                                                          {AgentFault::kHangs, "Hangs"},
                                                          {AgentFault::kGarbles, "IsGarbage"}};
  const auto [method, kind] = info.param;
  return methods.at(method) + kinds.at(kind);
}

INSTANTIATE_TEST_SUITE_P(
    Each, AgentFaults,
    testing::Combine(testing::Values(Method::kConnect, Method::kCheck, Method::kVersion,
                                     Method::kPersonalize, Method::kPrepareSave, Method::kExec),
                     testing::Values(AgentFault::kFails, AgentFault::kHangs, AgentFault::kGarbles)),
    [](const auto& info) { return NameOf(info); });

class RestartFaults : public CacheFixture {
 protected:
  RestartFaults() : CacheFixture(/*keep_warm=*/true) {}
};

// A start that cannot write changes nothing: the next one has every VM and lease.
TEST_F(RestartFaults, NothingIsLostWhereTheStoreRefusesDuringAStart) {
  ASSERT_TRUE(Init(2).has_value());
  const auto one = Acquire({.request_id = RequestId("r1")})->vm->id();
  const auto two = Acquire({.request_id = RequestId("r2")})->vm->id();
  ASSERT_TRUE(Fill().has_value());
  Die();
  std::size_t failed = 0;
  for (std::size_t n = 0;; ++n) {
    SCOPED_TRACE("write " + std::to_string(n));
    // Something to sweep, each time.
    record::VmRecord half;
    half.set_id("vm-half-" + std::to_string(n));
    half.set_phase(record::VM_PHASE_LOADED);
    half.set_host_boot_id("boot-1");
    record::LeaseRecord stale;
    stale.set_id("lease-stale");
    RecordBatch batch(WritePoint::kVmUpdated);
    batch.Put(half);
    batch.Put(stale);
    ASSERT_TRUE(batch.Commit(outside_.store).has_value());

    std::size_t writes = 0;
    outside_.store.before_write = [&, n](const KvStore::Batch&) -> Result<void> {
      if (writes++ == n) return ResourceExhausted("no space left on device");
      return {};
    };
    under_test_ = std::make_unique<CacheUnderTest>(outside_, settings_, "boot-1");
    const bool started = Run(cache().Start(After(kLong))).has_value();
    failed += started ? 0 : 1;
    outside_.store.before_write = nullptr;
    if (started) {
      Die();
    } else {
      under_test_.reset();
    }
    Begin();
    ASSERT_TRUE(Fill().has_value());
    ExpectVms(4);
    for (const auto& [id, request] : {std::pair(one, "r1"), std::pair(two, "r2")}) {
      const auto vm = cache().vms().Find(id);
      ASSERT_NE(vm, nullptr);
      EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
      EXPECT_EQ(Acquire({.request_id = RequestId(request)})->vm, vm);
    }
    Die();
    if (writes <= n) break;
  }
  EXPECT_GT(failed, 0u);
  Begin();
}

}  // namespace
}  // namespace hatchery::cache
