// What a new daemon makes of what the last one left.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "cache/records.h"
#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

class RecoveryTest : public CacheFixture {
 protected:
  RecoveryTest() : CacheFixture(/*keep_warm=*/true) {}
  // As an earlier daemon left it.
  void PutOnRecord(const record::VmRecord& vm) {
    RecordBatch batch(WritePoint::kVmUpdated);
    batch.Put(vm);
    ASSERT_TRUE(batch.Commit(outside_.store).has_value());
  }
  std::vector<UniqueFd> kept_;  // keep the processes that read from them waiting
};

TEST_F(RecoveryTest, TakesOverWarmAndLeasedVmsWithoutCloning) {
  ASSERT_TRUE(Init(2).has_value());
  const auto leased = Acquire({.request_id = RequestId("r1"), .sandbox_id = "s1"})->vm->id();
  ASSERT_TRUE(Fill().has_value());
  const auto spawned = outside_.host.calls(Verb::kStart);
  Die();
  ExpectVms(3);
  Begin();
  ASSERT_TRUE(Fill().has_value());
  EXPECT_EQ(outside_.host.calls(Verb::kStart), spawned);
  ExpectVms(3);
  const auto vm = cache().vms().Find(leased);
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(vm->lease->sandbox_id(), "s1");
  // The same request still has the same VM, and the VM can be used and given back.
  EXPECT_EQ(Acquire({.request_id = RequestId("r1"), .sandbox_id = "s1"})->vm, vm);
  EXPECT_TRUE(Run(cache().leases().Exec({}, leased, {.argv = {"true"}}, After(kLong))).has_value());
  ASSERT_TRUE(Release(vm).has_value());
  ExpectVms(2);
}

TEST_F(RecoveryTest, AnAcquireThatWasCutShortIsNotHandedOut) {
  ASSERT_TRUE(Init(1).has_value());
  const AcquireParams params{.request_id = RequestId("r1")};
  auto cut_short = Acquire(params)->vm->record;
  Die();
  // As it is on record before the guest has confirmed anything.
  cut_short.clear_boot_id();
  cut_short.clear_confirmed();
  PutOnRecord(cut_short);
  Begin();
  const auto again = Acquire(params);
  ASSERT_TRUE(again.has_value()) << ToString(again.error());
  EXPECT_NE(again->vm->record.id(), cut_short.id());
  EXPECT_EQ(cache().vms().Find(VmId(cut_short.id())), nullptr);
}

TEST_F(RecoveryTest, ALeaseWhoseVmDiedIsClosedAndItsRequestRemembered) {
  ASSERT_TRUE(Init(0).has_value());
  const auto leased = Acquire({.request_id = RequestId("r1")})->vm->id();
  Die();
  ASSERT_TRUE(outside_.host.Kill(leased).has_value());
  Begin();
  EXPECT_EQ(cache().vms().Find(leased), nullptr);
  EXPECT_TRUE(outside_.store.Scan(Table::kLeases).value().empty());
  EXPECT_EQ(Acquire({.request_id = RequestId("r1")}).error().code, Code::kFailedPrecondition);
  ExpectVms(0);
}

TEST_F(RecoveryTest, RecordsOfAnotherBootAreSwept) {
  ASSERT_TRUE(Init(1).has_value());
  const auto leased = Acquire({.request_id = RequestId("r1")})->vm->id();
  ASSERT_TRUE(Fill().has_value());
  const auto before = cache().catalog().DigestOf("default").value();
  Die();
  for (const auto& id : outside_.host.live()) ASSERT_TRUE(outside_.host.Kill(id).has_value());
  Begin("boot-2");
  EXPECT_EQ(cache().vms().Find(leased), nullptr);
  EXPECT_TRUE(outside_.store.Scan(Table::kLeases).value().empty());
  EXPECT_EQ(Acquire({.request_id = RequestId("r1")}).error().code, Code::kFailedPrecondition);
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
  EXPECT_EQ(cache().catalog().DigestOf("default").value(), before);
}

TEST_F(RecoveryTest, AHalfMadeCloneLeavesNothing) {
  ASSERT_TRUE(Init(0).has_value());
  record::VmRecord half;
  half.set_id("vm-half");
  half.set_phase(record::VM_PHASE_LOADED);
  half.set_host_boot_id("boot-1");
  PutOnRecord(half);
  ASSERT_TRUE(MakeDirectories(outside_.dir.path() / "vms" / "vm-half").has_value());
  Die();
  Begin();
  ExpectVms(0);
}

TEST_F(RecoveryTest, EndsAStrayProcessOfOursAndNoOther) {
  const auto folder = outside_.dir.path() / "vms" / "vm-stray";
  ASSERT_TRUE(MakeDirectories(folder).has_value());
  Die();
  PosixSpawner spawner(outside_.io.get_executor());
  auto spawn = [&](std::string argument) {
    SpawnRequest request;
    request.argv = {"sh", "-c", "read x", argument};
    request.env = MinimalEnvironment();
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    request.stdin_fd = fds[0];
    auto process = spawner.Spawn(request).value();
    ::close(fds[0]);
    kept_.emplace_back(fds[1]);
    return process;
  };
  auto stray = spawn("a VMM");
  outside_.host.strays = {{VmId("vm-stray"), stray->identity()}};
  // Somebody who looks at what it printed.
  auto other = spawn((folder / "console.log").string());
  Begin();
  EXPECT_TRUE(Run(stray->Wait(After(kLong))).has_value());
  auto still_there = Run(other->Wait(After(std::chrono::milliseconds(1))));
  ASSERT_FALSE(still_there.has_value()) << ToString(*still_there);
  EXPECT_EQ(still_there.error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(Run(other->Kill(After(kLong))).has_value());
  ExpectVms(0);
}

TEST_F(RecoveryTest, AVmOnRecordIsNoStray) {
  ASSERT_TRUE(Init(0).has_value());
  const auto id = Acquire()->vm->id();
  Die();
  PosixSpawner spawner(outside_.io.get_executor());
  const auto vmm = spawner.Spawn({.argv = {"sleep", "1000"}, .env = MinimalEnvironment()}).value();
  outside_.host.strays = {{id, vmm->identity()}};
  Begin();
  const auto ended = Run(vmm->Wait(After(std::chrono::milliseconds(1))));
  EXPECT_EQ(ended.error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(Run(vmm->Kill(After(kLong))).has_value());
}

TEST_F(RecoveryTest, AVmIsNotTakenOverForAnothersLease) {
  ASSERT_TRUE(Init(0).has_value());
  VmPtr one = Acquire()->vm, other = Acquire()->vm;
  if (one->id() > other->id()) std::swap(one, other);  // the one that is looked at first
  auto mixed_up = one->record;
  Die();
  mixed_up.set_lease_id(other->lease->id());
  PutOnRecord(mixed_up);
  Begin();
  EXPECT_EQ(cache().vms().Find(VmId(mixed_up.id())), nullptr);
  ASSERT_NE(cache().vms().Find(other->id()), nullptr);
  EXPECT_EQ(cache().vms().Find(other->id())->lease->id(), other->lease->id());
}

TEST_F(RecoveryTest, AVmIsNotTakenOverByAnothersHandle) {
  ASSERT_TRUE(Init(0).has_value());
  auto mixed_up = Acquire()->vm->record;
  const auto other = Acquire()->vm;
  Die();
  mixed_up.set_handle(other->record.handle());
  PutOnRecord(mixed_up);
  Begin();
  EXPECT_EQ(cache().vms().Find(VmId(mixed_up.id())), nullptr);
  EXPECT_NE(cache().vms().Find(other->id()), nullptr);
}

// An acquire may have been about to use it when the daemon died.
TEST_F(RecoveryTest, AWarmVmWhoseGuestRunsIsReplaced) {
  ASSERT_TRUE(Init(1).has_value());
  const auto running = outside_.host.live().front();
  Die();
  outside_.host.Find(running)->state = hypervisor::VmState::kRunning;
  Begin();
  ASSERT_TRUE(Eventually([&] { return cache().vms().Find(running) == nullptr; }));
  ASSERT_TRUE(Fill().has_value());
  ExpectVms(1);
}

TEST_F(RecoveryTest, AHalfEndedVmIsDestroyedAndItsRequestClosed) {
  ASSERT_TRUE(Init(0).has_value());
  auto released = Acquire({.request_id = RequestId("r1")})->vm->record;
  Die();
  // As it is on record when its lease has ended, and its VMM not yet.
  released.set_phase(record::VM_PHASE_RELEASED);
  RecordBatch batch(WritePoint::kVmReleased);
  batch.Put(released);
  batch.DeleteLease(LeaseId(released.lease_id()));
  ASSERT_TRUE(batch.Commit(outside_.store).has_value());
  Begin();
  ASSERT_TRUE(Eventually([&] { return cache().vms().size() == 0; }));
  ExpectVms(0);
  EXPECT_EQ(Acquire({.request_id = RequestId("r1")}).error().code, Code::kFailedPrecondition);
}

TEST_F(RecoveryTest, WhatIsNoVmsFolderIsLeftAlone) {
  const auto notes = outside_.dir.path() / "vms" / "notes";
  const auto stray = outside_.dir.path() / "vms" / "vm-gone";
  ASSERT_TRUE(MakeDirectories(notes).has_value());
  ASSERT_TRUE(MakeDirectories(stray).has_value());
  Die();
  Begin();
  EXPECT_TRUE(fs::exists(notes));
  EXPECT_FALSE(fs::exists(stray));
}

TEST_F(RecoveryTest, AnAcquireFromThePoolNeedsNoTemplateInMemory) {
  ASSERT_TRUE(Init(1).has_value());
  Die();
  Begin();
  // Nor could it be had.
  const auto digest = cache().catalog().DigestOf("default").value();
  const auto file = outside_.dir.path() / "templates" / digest.str() / "memory";
  ASSERT_EQ(::truncate(file.c_str(), 0), 0);
  const auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(acquired->source, Source::kPool);
}

TEST_F(RecoveryTest, ATemplatesMemoryIsTakenBackFromAClone) {
  outside_.host.pid = ::getpid();  // whose descriptors are looked through
  ASSERT_TRUE(Init(0).has_value());
  ASSERT_TRUE(Acquire().has_value());
  const auto digest = cache().catalog().DigestOf("default").value();
  const UniqueFd clones = Duplicate(cache().catalog().IfLoaded("default")->memory_fd()).value();
  Die();
  Begin();
  // Nothing else has it any more.
  const auto file = outside_.dir.path() / "templates" / digest.str() / "memory";
  ASSERT_EQ(::truncate(file.c_str(), 0), 0);
  const auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(acquired->source, Source::kClone);
}

TEST_F(RecoveryTest, AStartThatIsNotServedLeavesWarmVms) {
  ASSERT_TRUE(Init(2).has_value());
  Die();
  settings_.keep_warm_on_stop = false;
  Begin();
  Run([](Cache& cache) -> Task<void> {
    co_await cache.Drain(After(kLong));
    co_await cache.Stop(After(kLong), /*leave_all=*/true);
    co_return Result<void>();
  }(cache()))
      .value();
  under_test_.reset();
  EXPECT_EQ(outside_.host.live().size(), 2u);
  settings_.keep_warm_on_stop = true;
  Begin();
  ExpectVms(2);
}

TEST_F(RecoveryTest, RequestIdsAreForgottenAnHourAfterTheirLease) {
  ASSERT_TRUE(Init(0).has_value());
  const AcquireParams params{.request_id = RequestId("r1")};
  ASSERT_TRUE(Release(Acquire(params)->vm).has_value());
  outside_.clock.Advance(std::chrono::minutes(59));
  Die();
  Begin();
  EXPECT_EQ(Acquire(params).error().code, Code::kFailedPrecondition);
  outside_.clock.Advance(std::chrono::minutes(2));
  Die();
  Begin();
  EXPECT_TRUE(Acquire(params).has_value());
}

TEST_F(RecoveryTest, AVmThatCannotBeLookedAtIsNotTakenForDead) {
  ASSERT_TRUE(Init(1).has_value());
  const auto id = Acquire()->vm->id();
  ASSERT_TRUE(Fill().has_value());
  Die();
  outside_.host.cannot_look = Error{Code::kResourceExhausted, "Too many open files"};
  under_test_ = std::make_unique<CacheUnderTest>(outside_, settings_, "boot-1");
  const auto started = Run(cache().Start(After(kLong)));
  ASSERT_FALSE(started.has_value());
  EXPECT_EQ(started.error().code, Code::kResourceExhausted);
  EXPECT_THAT(started.error().message, testing::HasSubstr("taking over VM vm-"));
  under_test_.reset();
  outside_.host.cannot_look.reset();
  Begin();
  ASSERT_NE(cache().vms().Find(id), nullptr);
  EXPECT_EQ(cache().vms().Find(id)->phase(), record::VM_PHASE_ASSIGNED);
  ExpectVms(2);
}

TEST_F(RecoveryTest, ARecordUnderAnothersIdIsNamed) {
  record::VmRecord vm;
  vm.set_id("vm-3");
  KvStore::Batch batch;
  batch.Put(Table::kVms, "vm-7", vm.SerializeAsString());
  ASSERT_TRUE(outside_.store.Write(batch, Durability::kProcess).has_value());
  const auto loaded = LoadRecords(outside_.store);
  ASSERT_FALSE(loaded.has_value());
  EXPECT_EQ(loaded.error().code, Code::kDataLoss);
  EXPECT_THAT(loaded.error().message, testing::HasSubstr("'vm-7' of table 'v' is of 'vm-3'"));
}

TEST_F(RecoveryTest, AStartThatFailsLeavesTheVmsAsTheyWere) {
  ASSERT_TRUE(Init(1).has_value());
  ASSERT_TRUE(Acquire().has_value());
  ASSERT_TRUE(Fill().has_value());
  Die();
  // Forgetting this one fails, when the others were taken over already.
  record::VmRecord half;
  half.set_id("vm-half");
  half.set_phase(record::VM_PHASE_LOADED);
  half.set_host_boot_id("boot-1");
  PutOnRecord(half);
  outside_.store.before_write = [](const KvStore::Batch&) -> Result<void> {
    return ResourceExhausted("no space left on device");
  };
  under_test_ = std::make_unique<CacheUnderTest>(outside_, settings_, "boot-1");
  EXPECT_EQ(Run(cache().Start(After(kLong))).error().code, Code::kResourceExhausted);
  under_test_.reset();  // aborts if a task still runs
  outside_.store.before_write = nullptr;
  EXPECT_EQ(outside_.host.live().size(), 2u);
  Begin();
  ExpectVms(2);
}

}  // namespace
}  // namespace hatchery::cache
