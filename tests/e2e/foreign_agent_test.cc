// A guest whose agent is not ours, all the way on a real QEMU. HATCHERY_TEST_IMAGE_DIR holds an
// image with tests/e2e/kata_like_agent.cc in it.
#include <gmock/gmock.h>

#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST(ForeignAgentTest, ItsVmsAreClonedResizedAndHandedOut) {
  TestDaemon daemon;
  const auto built = daemon.Init(1);
  ASSERT_TRUE(built.ok()) << built.error_message();
  EXPECT_THAT(daemon.init.template_info().agent_version(), StartsWith("kata-agent "));
  const auto& shape = daemon.init.template_info();

  // The guest's numbers cannot be asked for; but this is answered only after its agent has said
  // that there is one CPU more than before, which the one in this image counts in /sys.
  api::AcquireRequest request;
  request.set_request_id("r1");
  request.set_hostname("mine");
  request.set_vcpus(shape.vcpus() + 1);
  request.set_memory_bytes(shape.memory_bytes() + Bytes::MiB(128).count());
  api::AcquireResponse acquired;
  const auto status = daemon.Acquire(&acquired, request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const api::Vm& vm = acquired.vm();
  EXPECT_EQ(acquired.source(), api::AcquireResponse::POOL);
  EXPECT_EQ(vm.vcpus(), shape.vcpus() + 1);
  EXPECT_EQ(vm.memory_bytes(), request.memory_bytes());
  EXPECT_EQ(vm.pending_vcpus(), 0u);
  EXPECT_EQ(vm.pending_memory_bytes(), 0u);
  EXPECT_THAT(vm.not_renewed(), ElementsAre("hostname", "machine_id", "boot_id"));
  EXPECT_EQ(vm.hostname(), "");
  EXPECT_EQ(vm.machine_id(), "");
  EXPECT_EQ(vm.boot_id(), "");

  api::ExecResponse ran;
  const auto refused = daemon.Exec(vm.vm_id(), {"true"}, &ran);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(refused.error_message(),
              HasSubstr("the guest's agent has no Exec: it is not hatchery-agent"));

  // The next daemon knows it, and what was not renewed of it.
  EXPECT_EQ(daemon.Stop(), 0);
  daemon.Start();
  api::AcquireResponse again;
  const auto repeated = daemon.Acquire(&again, request);
  ASSERT_TRUE(repeated.ok()) << repeated.error_message();
  EXPECT_EQ(again.source(), api::AcquireResponse::REPEAT);
  EXPECT_EQ(again.vm().vm_id(), vm.vm_id());
  EXPECT_THAT(again.vm().not_renewed(), ElementsAre("hostname", "machine_id", "boot_id"));

  const auto released = daemon.Release(vm.vm_id());
  EXPECT_TRUE(released.ok()) << released.error_message();
  api::DestroyRequest destroy;
  auto context = TestDaemon::Context();
  auto reader = daemon.factory->Destroy(context.get(), destroy);
  for (api::DestroyResponse step; reader->Read(&step);) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  daemon.ExpectNothingLeft();
  EXPECT_EQ(daemon.Stop(), 0);
}

}  // namespace
}  // namespace hatchery::e2e
