#include "hypervisor/qemu/qemu_driver.h"

#include <fcntl.h>
#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <set>

#include "hypervisor/qemu/qmp.h"
#include "hypervisor/qemu/vsock.h"
#include "tests/hypervisor/driver_contract.h"

namespace hatchery::hypervisor {
namespace {

using qemu::QemuDriver;
using qemu::QemuOptions;

// Remembers what it started.
class WatchingSpawner final : public ProcessSpawner {
 public:
  explicit WatchingSpawner(Executor executor) : inner_(std::move(executor)) {}
  Result<std::unique_ptr<Process>> Spawn(const SpawnRequest& request) override {
    auto process = inner_.Spawn(request);
    if (process) started.push_back((*process)->identity());
    return process;
  }
  std::vector<ProcessIdentity> started;

 private:
  PosixSpawner inner_;
};

class QemuWorld final : public World {
 public:
  QemuWorld(asio::io_context& io, fs::path image) : io_(io), image_(std::move(image)) {}
  Driver& driver() override { return driver_; }
  std::unique_ptr<Driver> AnotherDriver() override { return Make({}); }
  std::unique_ptr<Driver> Make(QemuOptions options) {
    return std::make_unique<QemuDriver>(io_.get_executor(), spawner_, std::move(options));
  }
  // KVM is not to be trusted on every host that has /dev/kvm: tests run everywhere with TCG.
  VmConfig Guest() override {
    return {.kernel = image_ / "vmlinuz",
            .initrd = image_ / "initrd.img",
            .accelerator = Accelerator::kTcg};
  }
  void Crash(Vm& vm) override { ASSERT_EQ(::kill(vm.endpoints().pid, SIGKILL), 0); }
  std::size_t Alive() override {
    std::size_t alive = 0;
    for (const auto& process : spawner_.started) {
      const auto now = IdentifyProcess(process.pid);
      if (now && *now == process) ++alive;
    }
    return alive;
  }

 private:
  asio::io_context& io_;
  fs::path image_;
  WatchingSpawner spawner_{io_.get_executor()};
  QemuDriver driver_{io_.get_executor(), spawner_};
};

std::unique_ptr<World> MakeQemuWorld(asio::io_context& io) {
  const char* image = std::getenv("HATCHERY_TEST_IMAGE_DIR");
  if (image == nullptr || !fs::exists(fs::path(image) / "vmlinuz")) {
    ADD_FAILURE() << "HATCHERY_TEST_IMAGE_DIR must name a folder with vmlinuz and initrd.img";
    return nullptr;
  }
  return std::make_unique<QemuWorld>(io, image);
}

INSTANTIATE_TEST_SUITE_P(Qemu, DriverContract, testing::Values(MakeQemuWorld));

class QemuDriverTest : public DriverContract {
 protected:
  QemuWorld& world() { return static_cast<QemuWorld&>(*world_); }
  // The error of a start with another QEMU, after which nothing is left.
  Error StartWith(QemuOptions options, VmConfig config, std::chrono::nanoseconds timeout) {
    const auto driver = world().Make(std::move(options));
    auto vm = driver->Create(config).value();
    auto started = Run(vm->Start(After(timeout)));
    EXPECT_FALSE(started.has_value());
    EXPECT_EQ(vm->state(), VmState::kFailed);
    EXPECT_EQ(world().Alive(), 0u);
    EXPECT_TRUE(Run(vm->Wait(Soon())).has_value());
    ExpectOnly(*vm, {});
    Stop(*vm);
    return started ? Error{} : started.error();
  }
  static bool Has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  }
};

TEST_P(QemuDriverTest, NamesAQemuThatIsMissingOrIsNone) {
  const auto missing = StartWith({.binary = "/no/such/qemu"}, Cold(), seconds(20));
  EXPECT_EQ(missing.code, Code::kNotFound);
  EXPECT_TRUE(Has(missing.message, "/no/such/qemu")) << missing.message;

  const auto quiet = StartWith({.binary = "/bin/true"}, Cold(), seconds(20));
  EXPECT_TRUE(Has(quiet.message, "exit code 0")) << quiet.message;

  const auto wordy = StartWith({.binary = "/bin/cat"}, Cold(), seconds(20));
  EXPECT_TRUE(Has(wordy.message, "exit code 1")) << wordy.message;
  EXPECT_TRUE(Has(wordy.message, "cat: ")) << wordy.message;

  const auto driver = world().Make({.binary = "/bin/cat"});
  EXPECT_TRUE(Has(Run(driver->Describe(Cold(), Soon())).error().message, "not QEMU"));
  const auto none = world().Make({.binary = "no-such-qemu"});
  EXPECT_EQ(Run(none->Describe(Cold(), Soon())).error().code, Code::kNotFound);
  const auto plain = world().Make({.binary = "/etc/passwd"});
  EXPECT_EQ(Run(plain->Describe(Cold(), Soon())).error().code, Code::kPermissionDenied);
}

TEST_P(QemuDriverTest, AQemuThatNeverGreetsIsEndedAtTheDeadline) {
  const fs::path script = folder_->path() / "qemu";
  std::ofstream(script) << "#!/bin/sh\nexec sleep 1000\n";
  fs::permissions(script, fs::perms::owner_all);
  const auto error = StartWith({.binary = script}, Cold(), milliseconds(300));
  EXPECT_EQ(error.code, Code::kDeadlineExceeded) << ToString(error);
}

// QEMU is told the id, and has the descriptor that keeps it under the number that it is told.
TEST_P(QemuDriverTest, AVsockContextIdComesWithItsDescriptor) {
  const fs::path device = folder_->path() / "device";
  std::ofstream(device) << "this is the device";
  const fs::path script = folder_->path() / "qemu";
  std::ofstream(script) << "#!/bin/sh\n"
                           "for word; do case $word in vhost-vsock-pci,*)\n"
                           "  echo \"$word\"; cat /proc/self/fd/${word##*vhostfd=};; esac; done\n";
  fs::permissions(script, fs::perms::owner_all);
  const qemu::VhostVsock vhost{
      .open = [device]() -> Result<UniqueFd> {
        return UniqueFd(::open(device.c_str(), O_RDWR | O_CLOEXEC));
      },
      .set_guest_cid = [](int, std::uint32_t cid) { return cid == 4000 ? EADDRINUSE : 0; },
      .draw = [] { return 4000 - qemu::kFirstGuestCid; }};
  const auto error =
      StartWith({.binary = script, .vsock = std::make_shared<const qemu::VhostVsock>(vhost)},
                Cold(), seconds(20));
  EXPECT_TRUE(Has(error.message, "addr=0x7,guest-cid=4001,vhostfd=")) << error.message;
  EXPECT_TRUE(Has(error.message, "this is the device")) << error.message;
}

TEST_P(QemuDriverTest, AStartThatIsStoppedHalfwayLeavesNothing) {
  const fs::path script = folder_->path() / "qemu";
  std::ofstream(script) << "#!/bin/sh\nexec sleep 1000\n";
  fs::permissions(script, fs::perms::owner_all);
  const auto driver = world().Make({.binary = script});
  auto vm = driver->Create(Cold()).value();
  std::optional<Result<void>> seen;
  asio::co_spawn(io_, vm->Start(Soon()),
                 [&](std::exception_ptr, Result<void> result) { seen = std::move(result); });
  Run(SleepFor(milliseconds(20))).value();
  Stop(*vm);
  Run(SleepFor(milliseconds(20))).value();
  ASSERT_TRUE(seen.has_value());
  EXPECT_FALSE(seen->has_value());
  EXPECT_EQ(vm->state(), VmState::kStopped);
}

TEST_P(QemuDriverTest, AKernelThatIsNoneFailsWithQemusWords) {
  VmConfig config = Cold();
  config.kernel = "/bin/true";
  const auto error = StartWith({}, config, seconds(20));
  EXPECT_TRUE(Has(error.message, "exit code 1")) << error.message;
  EXPECT_TRUE(Has(error.message, "kernel")) << error.message;
}

TEST_P(QemuDriverTest, RunsInFoldersWithCommasInTheirNames) {
  VmConfig config = Cold();
  config.run_dir = folder_->path() / "a,b,,c";
  fs::create_directory(config.run_dir);
  auto vm = Started(config);
  EXPECT_TRUE(fs::exists(config.run_dir / "console.log"));
  Stop(*vm);
}

TEST_P(QemuDriverTest, SeveralVmsShareADisk) {
  const fs::path disk = folder_->path() / "root,1.img";
  std::ofstream(disk) << std::string(1 << 20, 'x');
  // Were it writable, QEMU's lock would refuse the second one.
  std::vector<std::unique_ptr<Vm>> vms;
  for (int i = 0; i < 2; ++i) {
    VmConfig config = Cold();
    config.initrd.clear();
    config.image = disk;
    vms.push_back(Started(config));
  }
  for (auto& vm : vms) Stop(*vm);
}

TEST_P(QemuDriverTest, ACloneCannotWriteItsTemplate) {
  const Saved saved = SaveTemplate();
  const auto memory = [&] { return ReadFile(ProcPath(saved.memory.get()), kSize).value(); };
  const std::string before = memory();
  auto clone = Started(Clone(saved.memory.get()));
  ASSERT_TRUE(Run(clone->Load(saved.state.get(), Soon())).has_value());
  ASSERT_TRUE(Run(clone->Resume(Soon())).has_value());
  Run(SleepFor(milliseconds(300))).value();
  EXPECT_TRUE(before == memory());
  Stop(*clone);
}

TEST_P(QemuDriverTest, VerbsInFlightFailWhenQemuDies) {
  auto vm = Started(Cold());
  ASSERT_TRUE(Run(vm->AddMemory(kMemoryBlock, Soon())).has_value());
  std::optional<Result<void>> seen;
  // The firmware does not answer the request, so this waits.
  asio::co_spawn(io_, vm->RemoveMemory(kMemoryBlock, Soon()),
                 [&](std::exception_ptr, Result<void> result) { seen = std::move(result); });
  Run(SleepFor(milliseconds(20))).value();
  EXPECT_FALSE(seen.has_value());
  world().Crash(*vm);
  ASSERT_TRUE(Run(vm->Wait(Soon())).has_value());
  Run(SleepFor(milliseconds(1))).value();
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(seen->error().code, Code::kUnavailable);
  Stop(*vm);
}

TEST_P(QemuDriverTest, AGuestThatPanicsEndsTheVm) {
  VmConfig config = Cold();
  // No initramfs, no root: the kernel panics when it looks for one.
  config.initrd = "/etc/passwd";
  config.kernel_params = "root=/dev/nowhere";
  auto vm = Started(config);
  const auto reason = Run(vm->Wait(Soon()));
  ASSERT_TRUE(reason.has_value()) << vm->ConsoleTail(Bytes::KiB(2));
  EXPECT_EQ(reason->kind, ExitReason::Kind::kGuestPanic) << reason->detail;
  EXPECT_TRUE(Has(vm->ConsoleTail(Bytes::KiB(4)), "Kernel panic"));
  Stop(*vm);
}

TEST_P(QemuDriverTest, WhatIsHandedOverIsItsNewControllersAlone) {
  auto vm = Started(Cold());
  ASSERT_TRUE(Run(vm->AddVcpus(1, Soon())).has_value());
  ASSERT_TRUE(Run(vm->Pause(Soon())).has_value());
  const auto handover = Run(vm->HandOver(Soon())).value();

  qemu::QmpClient qmp(io_.get_executor(), ConnectUnix(vm->endpoints().control).value(), {});
  ASSERT_TRUE(Run(qmp.Handshake(Soon())).has_value());
  const auto ask = [&](const char* command) {
    auto answer = Run(qmp.Execute(command, {}, Soon()));
    EXPECT_TRUE(answer.has_value()) << command << ": " << ToString(answer.error());
    return answer.value_or(Json());
  };
  EXPECT_EQ(ask("query-status")["status"], "paused");
  EXPECT_EQ(ask("query-uuid")["UUID"], handover.uuid);
  EXPECT_TRUE(Has(DumpJson(ask("query-hotpluggable-cpus")), "/machine/peripheral/cpu-0"));
  std::set<std::uint32_t> bridges;
  for (const Json& device : ask("query-pci")[0]["devices"]) {
    if (device["qdev_id"] == handover.bridges[0].id)
      bridges.insert(device["slot"].get<std::uint32_t>());
  }
  EXPECT_EQ(bridges, (std::set<std::uint32_t>{handover.bridges[0].addr}));
  ask("cont");
  ask("quit");
  const auto reason = Run(vm->Wait(Soon()));
  ASSERT_TRUE(reason.has_value());
  EXPECT_EQ(reason->kind, ExitReason::Kind::kGuestOff) << reason->detail;
  Stop(*vm);
}

// Nobody in the guest has brought it online, so a kernel that has booted lets go of it at once; one
// that has not does not answer, and is asked again.
TEST_P(QemuDriverTest, ARunningGuestLetsGoOfMemoryThatItDoesNotUse) {
  VmConfig config = Cold();
  config.memory = Bytes::MiB(256);  // with 128, Linux 6.1 gets no further than its own start
  auto vm = Started(config);
  ASSERT_TRUE(Run(vm->AddMemory(kMemoryBlock, Soon())).has_value());
  ASSERT_TRUE(Run(vm->AddMemory(Bytes::MiB(256), Soon())).has_value());
  auto removed = Run(vm->RemoveMemory(Bytes::MiB(256), After(milliseconds(50))));
  ASSERT_FALSE(removed.has_value()) << "it cannot have booted yet";
  EXPECT_EQ(removed.error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(vm->state(), VmState::kRunning);

  removed = Run(vm->RemoveMemory(Bytes::MiB(256), Soon()));
  ASSERT_TRUE(removed.has_value()) << ToString(removed.error()) << vm->ConsoleTail(Bytes::KiB(8));
  EXPECT_EQ(vm->memory(), config.memory + kMemoryBlock);
  // Its slot and its name can be used again.
  EXPECT_TRUE(Run(vm->AddMemory(Bytes::MiB(256), Soon())).has_value());
  Stop(*vm);
}

INSTANTIATE_TEST_SUITE_P(Qemu, QemuDriverTest, testing::Values(MakeQemuWorld));

}  // namespace
}  // namespace hatchery::hypervisor
