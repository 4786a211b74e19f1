// What is told of VMs that die or fall silent, on a real QEMU.
#include <gmock/gmock.h>

#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using testing::HasSubstr;

class WatchE2eTest : public testing::Test {
 protected:
  WatchE2eTest() {
    const auto status = daemon_.Init(1);
    EXPECT_TRUE(status.ok()) << status.error_message();
    api::WatchRequest request;
    request.set_after_revision(List().revision());
    context_ = TestDaemon::Context(std::chrono::minutes(5));
    reader_ = daemon_.cache->Watch(context_.get(), request);
  }
  ~WatchE2eTest() override {
    context_->TryCancel();
    daemon_.ExpectDestroyLeavesNothing();
  }

  api::ListVmsResponse List(api::VmState state = api::VM_STATE_UNSPECIFIED) {
    api::ListVmsRequest request;
    request.set_state(state);
    api::ListVmsResponse all;
    EXPECT_TRUE(daemon_.cache->ListVms(TestDaemon::Context().get(), request, &all).ok());
    return all;
  }
  api::Vm Acquire(const std::string& sandbox) {
    api::AcquireRequest request;
    request.set_sandbox_id(sandbox);
    api::AcquireResponse reply;
    const auto status = daemon_.Acquire(&reply, request);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.vm();
  }
  // The next event that is `wanted`; those before it are passed over.
  template <class Wanted>
  api::WatchResponse Next(Wanted wanted) {
    for (api::WatchResponse event; reader_->Read(&event);) {
      if (wanted(event)) return event;
    }
    ADD_FAILURE() << "the stream ended: " << reader_->Finish().error_message();
    return {};
  }
  api::WatchResponse NextOf(const std::string& id, api::VmState state) {
    return Next([&](const auto& event) {
      return event.vm_id() == id && event.state() == state && !event.health_changed();
    });
  }
  api::WatchResponse NextHealthOf(const std::string& id) {
    return Next([&](const auto& event) { return event.vm_id() == id && event.health_changed(); });
  }
  // The one warm VM, as soon as the pool has it.
  api::Vm Warm() {
    for (;;) {
      const auto warm = List(api::VM_STATE_WARM);
      if (warm.vms_size() > 0) return warm.vms(0);
      std::this_thread::yield();
    }
  }

  TestDaemon daemon_{{"--health-agent-interval", "500ms", "--health-agent-timeout", "2s"}};
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<api::WatchResponse>> reader_;
};

TEST_F(WatchE2eTest, ALeasedVmWhoseVmmIsKilledIsToldOfWithItsLease) {
  const auto vm = Acquire("killed");
  daemon_.Shell(vm.vm_id(), "echo last words > /dev/console");
  ASSERT_EQ(::kill(static_cast<pid_t>(vm.pid()), SIGKILL), 0);
  const auto failed = NextOf(vm.vm_id(), api::VM_STATE_FAILED);
  EXPECT_EQ(failed.lease_id(), vm.lease_id());
  EXPECT_EQ(failed.sandbox_id(), "killed");
  EXPECT_THAT(failed.reason(), HasSubstr("Killed"));
  EXPECT_THAT(failed.console_tail(), HasSubstr("last words"));
  NextOf(vm.vm_id(), api::VM_STATE_UNSPECIFIED);
  for (const auto& left : List().vms()) EXPECT_NE(left.vm_id(), vm.vm_id());
}

TEST_F(WatchE2eTest, AWarmVmWhoseVmmIsKilledIsReplaced) {
  const auto vm = Warm();
  ASSERT_EQ(::kill(static_cast<pid_t>(vm.pid()), SIGKILL), 0);
  const auto failed = NextOf(vm.vm_id(), api::VM_STATE_FAILED);
  EXPECT_EQ(failed.lease_id(), "");
  EXPECT_THAT(failed.reason(), HasSubstr("Killed"));
  const auto next = Next([&](const auto& event) {
    return event.vm_id() != vm.vm_id() && event.state() == api::VM_STATE_WARM;
  });
  EXPECT_EQ(Warm().vm_id(), next.vm_id());
}

TEST_F(WatchE2eTest, AGuestThatPanicsIsToldApartWithItsLastWords) {
  const auto vm = Acquire("panics");
  api::ExecResponse reply;
  EXPECT_FALSE(
      daemon_.Exec(vm.vm_id(), {"/bin/sh", "-c", "echo c > /proc/sysrq-trigger"}, &reply).ok());
  const auto failed = NextOf(vm.vm_id(), api::VM_STATE_FAILED);
  EXPECT_EQ(failed.lease_id(), vm.lease_id());
  EXPECT_THAT(failed.reason(), HasSubstr("panic"));
  EXPECT_THAT(failed.console_tail(), HasSubstr("Kernel Offset"));  // the last line of it
}

TEST_F(WatchE2eTest, AVmThatStandsStillHasAProblemUntilItGoesOn) {
  const auto vm = Acquire("stands still");
  ASSERT_EQ(::kill(static_cast<pid_t>(vm.pid()), SIGSTOP), 0);
  EXPECT_THAT(NextHealthOf(vm.vm_id()).problem(), HasSubstr("does not answer"));
  api::GetVmRequest get;
  get.set_vm_id(vm.vm_id());
  api::GetVmResponse got;
  ASSERT_TRUE(daemon_.cache->GetVm(TestDaemon::Context().get(), get, &got).ok());
  EXPECT_THAT(got.vm().problem(), HasSubstr("does not answer"));
  ASSERT_EQ(::kill(static_cast<pid_t>(vm.pid()), SIGCONT), 0);
  EXPECT_EQ(NextHealthOf(vm.vm_id()).problem(), "");
  EXPECT_EQ(daemon_.Shell(vm.vm_id(), "echo there"), "there");
}

// Whoever watches goes on where it was, and misses nothing that happened while nobody served.
TEST_F(WatchE2eTest, WhatDiesWhileNoDaemonRunsIsToldByTheNext) {
  const auto vm = Acquire("unseen");
  const auto seen = NextOf(vm.vm_id(), api::VM_STATE_ASSIGNED).revision();
  daemon_.Kill();
  for (api::WatchResponse event; reader_->Read(&event);) {
  }
  EXPECT_EQ(reader_->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_EQ(::kill(static_cast<pid_t>(vm.pid()), SIGKILL), 0);
  daemon_.Start();
  api::WatchRequest request;
  request.set_after_revision(seen);
  request.set_vm_id(vm.vm_id());
  context_ = TestDaemon::Context(std::chrono::minutes(5));
  reader_ = daemon_.cache->Watch(context_.get(), request);
  const auto gone = NextOf(vm.vm_id(), api::VM_STATE_UNSPECIFIED);
  EXPECT_EQ(gone.lease_id(), vm.lease_id());
  EXPECT_EQ(gone.sandbox_id(), "unseen");
  EXPECT_NE(gone.reason(), "");
}

}  // namespace
}  // namespace hatchery::e2e
