// The world that the contract of drivers is tested in: one driver, the host that it runs on, and
// VMs of every kind.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/notifier.h"
#include "base/run.h"
#include "hypervisor/driver.h"

namespace hatchery::hypervisor {

using std::chrono::milliseconds;
using std::chrono::seconds;

// One driver and the host it runs on.
class World {
 public:
  virtual ~World() = default;
  virtual Driver& driver() = 0;
  // Another driver on the same host, as after a restart of the daemon.
  virtual std::unique_ptr<Driver> AnotherDriver() = 0;
  // The guest to boot: kernel, initrd, accelerator.
  virtual VmConfig Guest() = 0;
  // The VMM dies without being asked.
  virtual void Crash(Vm& vm) = 0;
  // VMMs that are alive.
  virtual std::size_t Alive() = 0;
};

using MakeWorld = std::function<std::unique_ptr<World>(asio::io_context&)>;

inline constexpr Bytes kSize = Bytes::MiB(128);

class DriverContract : public testing::TestWithParam<MakeWorld> {
 protected:
  void SetUp() override {
    folder_ = std::make_unique<TempDir>(TempDir::Create("/tmp", "hatchery-contract-").value());
    world_ = GetParam()(io_);
    ASSERT_NE(world_, nullptr);
  }
  void TearDown() override {
    if (!world_) return;
    EXPECT_EQ(world_->Alive(), 0u) << "a VMM outlived its test";
    for (const auto& entry : fs::recursive_directory_iterator(folder_->path())) {
      EXPECT_FALSE(entry.is_socket()) << "left behind: " << entry.path();
    }
  }

  static Deadline Soon() { return After(seconds(60)); }

  template <class T>
  Result<T> Run(Task<T> task) {
    return RunUntilDone(io_, std::move(task));
  }

  VmConfig Cold() {
    VmConfig config = world_->Guest();
    config.id = VmId(NewId("vm"));
    config.run_dir = folder_->path() / config.id.str();
    fs::create_directory(config.run_dir);
    config.memory = kSize;
    config.max_memory = Bytes::MiB(1024);
    config.max_vcpus = 4;
    return config;
  }
  VmConfig ToBeTemplate(int memory) {
    VmConfig config = Cold();
    config.boot_to_be_template = true;
    config.template_memory_fd = memory;
    return config;
  }
  VmConfig Clone(int memory) {
    VmConfig config = Cold();
    config.kernel.clear();
    config.initrd.clear();
    config.boot_from_template = true;
    config.template_memory_fd = memory;
    return config;
  }
  std::unique_ptr<Vm> Create(VmConfig config) {
    auto vm = world_->driver().Create(std::move(config));
    EXPECT_TRUE(vm.has_value()) << ToString(vm.error());
    return *std::move(vm);
  }
  std::unique_ptr<Vm> Started(VmConfig config) {
    auto vm = Create(std::move(config));
    auto started = Run(vm->Start(Soon()));
    EXPECT_TRUE(started.has_value()) << ToString(started.error());
    return vm;
  }
  void Stop(Vm& vm) {
    auto stopped = Run(vm.Stop(Soon()));
    EXPECT_TRUE(stopped.has_value()) << ToString(stopped.error());
    EXPECT_EQ(vm.state(), VmState::kStopped);
  }

  struct Saved {
    UniqueFd memory, state;
  };
  static UniqueFd Memory(const char* name, Bytes size) {
    UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size.count())), 0);
    return fd;
  }
  static UniqueFd SealedMemory() {
    UniqueFd fd = Memory("memory", kSize);
    Seal(fd.get());
    return fd;
  }
  static void Seal(int fd) {
    EXPECT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK), 0);
  }
  Saved SaveTemplate() {
    Saved saved{Memory("memory", kSize), Memory("state", Bytes())};
    auto vm = Started(ToBeTemplate(saved.memory.get()));
    EXPECT_TRUE(Run(vm->Pause(Soon())).has_value());
    auto written = Run(vm->Save(saved.state.get(), Soon()));
    EXPECT_TRUE(written.has_value()) << ToString(written.error());
    EXPECT_EQ(vm->state(), VmState::kPaused);
    Stop(*vm);
    Seal(saved.memory.get());
    EXPECT_EQ(::lseek(saved.state.get(), 0, SEEK_SET), 0);
    return saved;
  }

  using NamedVerb = std::pair<const char*, std::function<Task<void>(Vm&)>>;
  static std::vector<NamedVerb> Verbs() {
    return {{"Start", [](Vm& vm) { return vm.Start(Soon()); }},
            {"Load", [](Vm& vm) { return vm.Load(0, Soon()); }},
            {"Pause", [](Vm& vm) { return vm.Pause(Soon()); }},
            {"Resume", [](Vm& vm) { return vm.Resume(Soon()); }},
            {"Save", [](Vm& vm) { return vm.Save(1, Soon()); }},
            {"AddVcpus", [](Vm& vm) { return vm.AddVcpus(1, Soon()); }},
            {"AddMemory", [](Vm& vm) { return vm.AddMemory(kMemoryBlock, Soon()); }},
            {"RemoveVcpus", [](Vm& vm) { return vm.RemoveVcpus(1, Soon()); }},
            {"RemoveMemory", [](Vm& vm) { return vm.RemoveMemory(kMemoryBlock, Soon()); }},
            {"HandOver", [](Vm& vm) -> Task<void> {
               CO_RETURN_IF_ERROR(co_await vm.HandOver(Soon()));
               co_return Result<void>();
             }}};
  }
  // Every verb that is not in `allowed` is refused and changes nothing.
  void ExpectOnly(Vm& vm, std::vector<std::string> allowed) {
    const VmState before = vm.state();
    for (const auto& [name, verb] : Verbs()) {
      if (std::ranges::find(allowed, name) != allowed.end()) continue;
      auto result = Run(verb(vm));
      ASSERT_FALSE(result.has_value()) << name << " in " << Name(before);
      EXPECT_EQ(result.error().code, Code::kFailedPrecondition) << ToString(result.error());
      EXPECT_EQ(vm.state(), before) << name;
    }
  }

  asio::io_context io_;
  std::unique_ptr<TempDir> folder_;
  std::unique_ptr<World> world_;
};

}  // namespace hatchery::hypervisor
