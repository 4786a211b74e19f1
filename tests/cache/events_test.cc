#include "cache/events.h"

#include <gmock/gmock.h>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class EventsTest : public CacheFixture {
 protected:
  EventsTest() : CacheFixture(/*keep_warm=*/true) {}

  Events& events() { return cache().events(); }
  std::vector<record::EventRecord> After(std::uint64_t revision) {
    std::vector<record::EventRecord> all;
    while (const auto* event = events().After(revision)) {
      all.push_back(*event);
      revision = event->revision();
    }
    return all;
  }
  // "spawning", "gone": of one VM, in order.
  std::vector<std::string> Story(const VmId& id) {
    std::vector<std::string> story;
    for (const auto& event : After(events().CheckKnown(1) ? 1 : 0)) {
      if (event.vm_id() != id.str()) continue;
      const bool gone = event.phase() == record::VM_PHASE_UNSPECIFIED;
      story.push_back(gone ? "gone" : std::string(PhaseName(event.phase())));
    }
    return story;
  }
  std::size_t OnRecord() { return outside_.store.Scan(Table::kEvents).value().size(); }
  // A VM whose end the loop has seen to.
  void AwaitGone(const VmPtr& vm) { Run(vm->gone.Wait(hatchery::After(kLong))).value(); }
};

TEST_F(EventsTest, TellTheWholeLifeOfAVm) {
  ASSERT_TRUE(Init(0).has_value());
  AcquireParams params;
  params.sandbox_id = "s1";
  params.request_id = RequestId("r1");
  const auto vm = Acquire(params)->vm;
  const auto lease = vm->lease->id();
  ASSERT_TRUE(Release(vm).has_value());
  EXPECT_THAT(Story(vm->id()),
              ElementsAre("spawning", "loaded", "warming", "warm", "assigned", "released", "gone"));
  std::uint64_t expected = Events::kBeginning;
  for (const auto& event : After(Events::kBeginning)) EXPECT_EQ(event.revision(), ++expected);
  EXPECT_EQ(events().last(), expected);
  const auto all = After(Events::kBeginning);
  for (const auto& event : all) {
    const bool leased = event.revision() > all[3].revision();
    EXPECT_EQ(event.lease_id(), leased ? lease : "");
    EXPECT_EQ(event.sandbox_id(), leased ? "s1" : "");
    EXPECT_EQ(event.request_id(), leased ? "r1" : "");
  }
  EXPECT_EQ(events().EndOf(vm->id()), "released");
}

TEST_F(EventsTest, AVmThatDiesIsToldOfWithItsLastWordsAndItsLeaseIsClosed) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Acquire()->vm;
  const auto lease = vm->lease->id();
  const auto before = events().last();
  ASSERT_TRUE(outside_.host.Print(vm->id(), "Kernel panic - not\xff syncing\n"));
  ASSERT_TRUE(outside_.host.Kill(vm->id(), {hypervisor::ExitReason::Kind::kGuestPanic, "panic"}));
  AwaitGone(vm);
  record::EventRecord failed;
  for (const auto& event : After(before)) {
    if (event.phase() == record::VM_PHASE_FAILED) failed = event;
  }
  EXPECT_EQ(failed.vm_id(), vm->record.id());
  EXPECT_EQ(failed.lease_id(), lease);
  EXPECT_THAT(failed.reason(), HasSubstr("panic"));
  EXPECT_EQ(failed.console_tail(), "Kernel panic - not\xef\xbf\xbd syncing\n");
  EXPECT_THAT(outside_.store.Scan(Table::kLeases).value(), IsEmpty());
  EXPECT_THAT(*events().EndOf(vm->id()), HasSubstr("panic"));
}

// An event and its change are one write: there is no event of what was not written down.
TEST_F(EventsTest, AChangeThatCannotBeWrittenLeavesNoEvent) {
  ASSERT_TRUE(Init(0).has_value());
  const auto before = events().last();
  outside_.store.before_write = [](const KvStore::Batch& batch) -> Result<void> {
    bool vm = false, event = false;
    for (const auto& change : batch.changes()) {
      vm |= change.table == Table::kVms;
      event |= change.table == Table::kEvents;
    }
    if (vm && batch.label != Name(WritePoint::kVmUpdated)) EXPECT_TRUE(event) << batch.label;
    if (batch.label == Name(WritePoint::kVmAssigned)) return Unavailable("disk full");
    return {};
  };
  EXPECT_FALSE(Acquire().has_value());
  Run(cache().vms().EndAll([](const VmEntry&) { return true; }, "", hatchery::After(kLong)))
      .value();
  outside_.store.before_write = nullptr;
  for (const auto& event : After(before)) EXPECT_NE(event.phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_EQ(OnRecord(), events().size());
}

TEST_F(EventsTest, AnEndThatCannotBeWrittenIsToldAfterAll) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  outside_.store.before_write = [](const KvStore::Batch&) -> Result<void> {
    return Unavailable("disk full");
  };
  ASSERT_TRUE(Release(vm).has_value());
  EXPECT_EQ(Story(vm->id()).back(), "assigned");
  outside_.store.before_write = nullptr;
  const auto next = Acquire()->vm;
  EXPECT_THAT(Story(vm->id()),
              ElementsAre("spawning", "loaded", "warming", "warm", "assigned", "released", "gone"));
  EXPECT_EQ(OnRecord(), events().size());
}

TEST_F(EventsTest, AnEndThatCannotBeWrittenIsTriedUntilItCanBe) {
  ASSERT_TRUE(Init(0).has_value());
  for (const char* when : {"once", "and again"}) {
    const auto vm = Acquire()->vm;
    outside_.store.before_write = [](const KvStore::Batch&) -> Result<void> {
      return Unavailable("disk full");
    };
    ASSERT_TRUE(Release(vm).has_value());
    EXPECT_FALSE(outside_.store.Scan(Table::kVms).value().empty());
    outside_.store.before_write = nullptr;
    ASSERT_TRUE(Run(events().WaitForNext(hatchery::After(kLong))).has_value()) << when;
    EXPECT_THAT(Story(vm->id()), ElementsAre("spawning", "loaded", "warming", "warm", "assigned",
                                             "released", "gone"));
    EXPECT_TRUE(outside_.store.Scan(Table::kVms).value().empty());
    EXPECT_TRUE(outside_.store.Scan(Table::kLeases).value().empty());
  }
}

TEST_F(EventsTest, RevisionsGoOnAfterARestartAndKnowWhatWasBefore) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  const auto before = events().last();
  const auto size = events().size();
  Die();
  Begin();
  EXPECT_EQ(events().last(), before);
  EXPECT_EQ(events().size(), size);
  ASSERT_TRUE(Release(cache().vms().Find(vm->id())).has_value());
  EXPECT_EQ(After(before).at(0).revision(), before + 1);
  EXPECT_THAT(Story(vm->id()),
              ElementsAre("spawning", "loaded", "warming", "warm", "assigned", "released", "gone"));
}

TEST_F(EventsTest, AfterARebootNoRevisionIsUsedTwiceAndTheLostAreTold) {
  ASSERT_TRUE(Init(0).has_value());
  AcquireParams params;
  params.sandbox_id = "s1";
  const auto vm = Acquire(params)->vm;
  const auto before = events().last();
  const auto lease = vm->lease->id();
  Die();
  ASSERT_TRUE(outside_.host.Kill(vm->id()).has_value());  // what a reboot does
  Begin("boot-2");
  const auto all = After(before);
  ASSERT_EQ(all.size(), 1u);
  EXPECT_GT(all[0].revision(), before + Events::kRebootGap);
  EXPECT_EQ(all[0].vm_id(), vm->record.id());
  EXPECT_EQ(all[0].phase(), record::VM_PHASE_UNSPECIFIED);
  EXPECT_EQ(all[0].lease_id(), lease);
  EXPECT_EQ(all[0].sandbox_id(), "s1");
  EXPECT_THAT(all[0].reason(), HasSubstr("reboot"));
  EXPECT_TRUE(events().CheckKnown(before + 10).has_value()) << "that one was lost with the host";
}

TEST_F(EventsTest, ALeasedVmThatDiedWhileNobodyLookedIsToldOf) {
  ASSERT_TRUE(Init(0).has_value());
  AcquireParams params;
  params.sandbox_id = "s1";
  const auto vm = Acquire(params)->vm;
  const auto before = events().last();
  Die();
  ASSERT_TRUE(outside_.host.Kill(vm->id()).has_value());
  Begin();
  const auto all = After(before);
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].sandbox_id(), "s1");
  EXPECT_THAT(all[0].reason(), HasSubstr("not there any more"));
  EXPECT_TRUE(events().EndOf(vm->id()).has_value());
}

TEST_F(EventsTest, OnlyTheNewestAreKept) {
  Finish();
  settings_.health.events = 100;
  Begin();
  ASSERT_TRUE(Init(0).has_value());
  for (int i = 0; i < 30; ++i) {
    const auto vm = Acquire()->vm;
    ASSERT_TRUE(Release(vm).has_value());
  }
  const auto last = events().last();
  EXPECT_EQ(last, Events::kBeginning + 30 * 7);
  // Deleted behind what goes on, and a batch at a time.
  const auto most = 100 + Events::kDropBatch;
  const auto bound = hatchery::After(kLong);
  while (events().size() > most && std::chrono::steady_clock::now() < bound) {
    Run(SleepFor(std::chrono::milliseconds(1))).value();
  }
  EXPECT_GE(events().size(), 100u);
  EXPECT_LE(events().size(), most);
  EXPECT_EQ(OnRecord(), events().size());
  EXPECT_EQ(events().CheckKnown(last - most - 1).error().code, Code::kOutOfRange);
  EXPECT_TRUE(events().CheckKnown(last - 100).has_value());
  EXPECT_EQ(events().CheckKnown(last + 1).error().code, Code::kOutOfRange);
  EXPECT_EQ(After(last - 100).size(), 100u);
}

}  // namespace
}  // namespace hatchery::cache
