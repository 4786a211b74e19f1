// The whole way on QEMU: boot, save, publish, load from disk, clone. HATCHERY_TEST_IMAGE_DIR holds
// the guest: vmlinuz and initrd.img.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "agent/client/ttrpc_client.h"
#include "base/files.h"
#include "base/run.h"
#include "hypervisor/qemu/qemu_driver.h"
#include "template/builder.h"

namespace hatchery::tmpl {
namespace {

using std::chrono::seconds;

class RealGuestTest : public testing::Test {
 protected:
  BuildRequest Request() {
    BuildRequest request;
    request.vm_id = VmId("vm-1");
    request.kernel = image_ / "vmlinuz";
    request.initrd = image_ / "initrd.img";
    request.shape = {.memory = Bytes::MiB(256)};
    return request;
  }
  Result<Builder::Built> Build(BuildRequest request, seconds timeout) {
    return RunUntilDone(io_, builder_.Build(std::move(request), {}, After(timeout)));
  }
  // Clones, resumes, asks the agent, and ends the clone.
  Task<void> CloneAndCheck(hypervisor::VmConfig config, int state_fd) {
    const Deadline deadline = After(seconds(60));
    ASSIGN_OR_CO_RETURN(auto vm, driver_.Create(std::move(config)));
    auto result = co_await vm->Start(deadline);
    if (result) result = co_await vm->Load(state_fd, deadline);
    if (result) result = co_await vm->Resume(deadline);
    if (result) {
      auto agent = co_await connector_.Connect(vm->endpoints().agent, deadline);
      if (agent) result = co_await (*agent)->Check(deadline);
      if (!agent) result = std::unexpected(agent.error());
    }
    CO_RETURN_IF_ERROR(co_await booter_.Destroy(std::move(vm)));
    co_return result;
  }
  void SetUp() override {
    const char* image = std::getenv("HATCHERY_TEST_IMAGE_DIR");
    ASSERT_NE(image, nullptr) << "HATCHERY_TEST_IMAGE_DIR must name a guest's folder";
    image_ = image;
  }

  fs::path image_;
  TempDir dir_ = TempDir::Create("/tmp", "real-").value();
  asio::io_context io_;
  WorkerPool workers_{2};
  PosixSpawner spawner_{io_.get_executor()};
  hypervisor::qemu::QemuDriver driver_{io_.get_executor(), spawner_};
  agent::TtrpcConnector connector_{io_.get_executor()};
  AcceleratorVerdicts verdicts_{dir_.path() / "accelerators.json"};
  Booter booter_{driver_, connector_, verdicts_, dir_.path() / "run"};
  std::unique_ptr<Store> store_ = Store::Open(dir_.path() / "templates", workers_).value();
  Builder builder_{driver_, booter_, *store_, workers_};
};

TEST_F(RealGuestTest, ACloneOfAPublishedTemplateAnswers) {
  TemplateDigest digest;
  hypervisor::VmConfig config;
  {
    auto built = Build(Request(), seconds(120));
    ASSERT_TRUE(built.has_value()) << ToString(built.error());
    const Manifest& m = built->loaded->manifest();
    digest = m.digest;
    std::printf("%s, boot %lld ms, save %lld ms, resident %s, state %s\n",
                std::string(Name(m.accelerator)).c_str(),
                static_cast<long long>(built->boot_time.count() / 1'000'000),
                static_cast<long long>(built->save_time.count() / 1'000'000),
                ToString(built->loaded->ResidentSize().value()).c_str(),
                ToString(m.state_size).c_str());
    EXPECT_TRUE(fs::is_empty(dir_.path() / "run"));
    EXPECT_LT(built->loaded->ResidentSize().value(), Bytes::MiB(150));
  }
  // Nobody holds it any more: it comes from disk, on which it is no larger than in memory.
  const auto begin = std::chrono::steady_clock::now();
  auto loaded = RunUntilDone(io_, store_->Load(digest));
  ASSERT_TRUE(loaded.has_value()) << ToString(loaded.error());
  std::printf(
      "load %lld ms\n",
      static_cast<long long>((std::chrono::steady_clock::now() - begin).count() / 1'000'000));
  const Manifest& m = (*loaded)->manifest();
  EXPECT_TRUE(RunUntilDone(io_, builder_.CheckCompatible(m, After(seconds(20)))).has_value());
  EXPECT_LT(store_->List().at(0).disk_size, Bytes::MiB(150));

  config.id = VmId("clone-1");
  config.run_dir = dir_.path() / "run" / "clone-1";
  ASSERT_TRUE(MakeDirectories(config.run_dir, 0700).has_value());
  config.accelerator = m.accelerator;
  config.vcpus = m.shape.vcpus;
  config.max_vcpus = m.shape.max_vcpus;
  config.memory = m.shape.memory;
  config.max_memory = m.shape.max_memory;
  config.boot_from_template = true;
  config.template_memory_fd = (*loaded)->memory_fd();
  UniqueFd state = (*loaded)->OpenState().value();
  auto answered = RunUntilDone(io_, CloneAndCheck(config, state.get()));
  EXPECT_TRUE(answered.has_value()) << ToString(answered.error());
  EXPECT_TRUE(fs::is_empty(dir_.path() / "run"));

  auto request = Request();
  request.current = digest;
  auto again = Build(request, seconds(20));
  ASSERT_TRUE(again.has_value()) << ToString(again.error());
  EXPECT_TRUE(again->reused);
}

TEST_F(RealGuestTest, AKernelThatIsNoneEndsWithTheConsole) {
  ASSERT_TRUE(WriteFileAtomically(dir_.path() / "kernel", std::string(1 << 20, 'x')).has_value());
  auto request = Request();
  request.kernel = dir_.path() / "kernel";
  auto built = Build(request, seconds(5));
  ASSERT_FALSE(built.has_value());
  std::printf("%s\n", ToString(built.error()).c_str());
  EXPECT_TRUE(fs::is_empty(dir_.path() / "run"));
  EXPECT_TRUE(store_->List().empty());
}

TEST_F(RealGuestTest, AnInitrdWithoutAnAgentEndsWithTheKernelsPanic) {
  ASSERT_TRUE(WriteFileAtomically(dir_.path() / "initrd", "nothing").has_value());
  auto request = Request();
  request.initrd = dir_.path() / "initrd";
  auto built = Build(request, seconds(60));
  ASSERT_FALSE(built.has_value());
  std::printf("%s\n", ToString(built.error()).c_str());
  EXPECT_EQ(built.error().code, Code::kFailedPrecondition);
  EXPECT_NE(built.error().message.find("panic"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(dir_.path() / "run"));
}

}  // namespace
}  // namespace hatchery::tmpl
