// VMs of a template whose guest carries an agent that is not ours.
#include <gmock/gmock.h>

#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using agent::Method;
using testing::HasSubstr;

class ForeignAgentTest : public CacheFixture {
 protected:
  ForeignAgentTest() : CacheFixture(/*keep_warm=*/true) {
    outside_.agents.SetForeign(true);
    EXPECT_TRUE(Init(1).has_value());
  }
  record::VmRecord Stored(const VmPtr& vm) {
    record::VmRecord stored;
    EXPECT_TRUE(stored.ParseFromString(outside_.store.Get(Table::kVms, vm->record.id()).value()));
    return stored;
  }
};

TEST_F(ForeignAgentTest, AnAcquireIsOnRecordWithWhatWasNotRenewed) {
  const auto acquired = Acquire({.vcpus = 2, .hostname = "mine"});
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  EXPECT_EQ(acquired->source, Source::kPool);
  const auto stored = Stored(acquired->vm);
  EXPECT_TRUE(stored.foreign_agent());
  EXPECT_TRUE(stored.confirmed());
  EXPECT_EQ(stored.hostname(), "");
  EXPECT_EQ(stored.machine_id(), "");
  EXPECT_EQ(stored.boot_id(), "");
  EXPECT_EQ(stored.vcpus(), 2u);
  EXPECT_EQ(stored.pending_vcpus(), 0u);
  const auto& guest = outside_.agents.guest(AgentOf(acquired->vm));
  EXPECT_EQ(guest.online_vcpus, 2u);
  EXPECT_EQ(guest.seeds.size(), 3u) << "two rehearsals and the acquire";
  EXPECT_EQ(guest.time, outside_.clock.Now());
}

TEST_F(ForeignAgentTest, ItsVmIsLeasedAcrossARestart) {
  const AcquireParams params{.request_id = RequestId("r1")};
  const auto id = Acquire(params)->vm->id();
  ASSERT_TRUE(Fill().has_value());
  Die();
  Begin();
  const auto vm = cache().vms().Find(id);
  ASSERT_NE(vm, nullptr);
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
  EXPECT_TRUE(vm->record.foreign_agent());
  EXPECT_EQ(Acquire(params)->vm, vm);
  // A warm one is told of what is new as before.
  const auto larger = Acquire({.vcpus = 3});
  ASSERT_TRUE(larger.has_value()) << ToString(larger.error());
  EXPECT_EQ(larger->source, Source::kPool);
  EXPECT_EQ(outside_.agents.guest(AgentOf(larger->vm)).online_vcpus, 3u);
  ASSERT_TRUE(Release(vm).has_value());
  ASSERT_TRUE(Release(larger->vm).has_value());
}

TEST_F(ForeignAgentTest, ItsResizeCanGoOnInTheBackground) {
  outside_.agents.SetDelay(Method::kOnlineCpuMem, std::chrono::milliseconds(5));
  const auto vm =
      Acquire({.vcpus = 3, .memory = Bytes::MiB(384), .resize_in_background = true})->vm;
  EXPECT_EQ(vm->record.pending_vcpus(), 2u);
  EXPECT_EQ(vm->record.pending_memory_bytes(), Bytes::MiB(256).count());
  ASSERT_TRUE(Run(cache().onlining().Wait(vm, After(kLong))).has_value());
  EXPECT_FALSE(vm->pending());
  EXPECT_EQ(outside_.agents.guest(AgentOf(vm)).online_vcpus, 3u);
}

TEST_F(ForeignAgentTest, OneThatCannotReseedIsNotHandedOut) {
  outside_.agents.FailNext(Method::kReseedRandomDev, {Code::kInternal, "no entropy"});
  const auto acquired = Acquire();
  ASSERT_TRUE(acquired.has_value()) << ToString(acquired.error());
  // The next one is.
  EXPECT_EQ(acquired->source, Source::kClone);
}

TEST_F(ForeignAgentTest, ACommandIsRefusedWithTheReason) {
  const auto vm = Acquire()->vm;
  const auto ran = Run(cache().leases().Exec({}, vm->id(), {.argv = {"true"}}, After(kLong)));
  ASSERT_FALSE(ran.has_value());
  EXPECT_EQ(ran.error().code, Code::kUnimplemented);
  EXPECT_THAT(ran.error().message, HasSubstr("the guest's agent has no Exec"));
  EXPECT_EQ(vm->phase(), record::VM_PHASE_ASSIGNED);
}

}  // namespace
}  // namespace hatchery::cache
