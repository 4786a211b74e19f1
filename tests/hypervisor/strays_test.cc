#include "hypervisor/qemu/strays.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>

#include <thread>

#include "base/files.h"
#include "base/run.h"

namespace hatchery::hypervisor::qemu {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

// Shells that wait for a script from a pipe, whose path is the place of a VM's folder: to a shell,
// -name are four harmless options.
class StraysTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const auto& process : started_) {
      EXPECT_TRUE(RunUntilDone(io_, process->Kill(After(std::chrono::seconds(20)))).has_value());
    }
  }

  Process& Start(std::vector<std::string> argv) {
    EXPECT_EQ(::mkfifo(argv.back().c_str(), 0600), 0);
    SpawnRequest request;
    request.argv = std::move(argv);
    request.env = MinimalEnvironment();
    started_.push_back(spawner_.Spawn(request).value());
    // A process that has just been executed has no command line for a moment.
    const auto line = "/proc/" + std::to_string(started_.back()->pid()) + "/cmdline";
    const auto until = After(std::chrono::seconds(20));
    while (ReadFile(line).value_or("").empty() && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    return *started_.back();
  }
  std::vector<Stray> Find(const fs::path& program, std::function<bool(pid_t)> vouch = {}) {
    return FindVmms(
        {.proc = "/proc", .program = program, .run_root = root_, .vouch = std::move(vouch)});
  }

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-strays-").value();
  fs::path root_ = dir_.path() / "a,b";
  asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};
  std::vector<std::unique_ptr<Process>> started_;
};

TEST_F(StraysTest, AreVmmsWithOneOfOurCommandLines) {
  const auto program = dir_.path() / "vmm";
  fs::copy_file("/bin/sh", program);
  fs::create_directory(root_);
  fs::create_directory(dir_.path() / "a,,b");
  const auto& vmm = Start({program, "-name", dir_.path() / "a,,b" / "vm-1"});
  const auto found = Find(program);
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].id, VmId("vm-1"));
  EXPECT_EQ(found[0].process, vmm.identity());
  // An upgrade replaced the program.
  fs::remove(program);
  fs::copy_file("/bin/cat", program);
  EXPECT_THAT(Find(program), SizeIs(1));
}

TEST_F(StraysTest, AreNobodyElsesProcesses) {
  fs::create_directory(root_);
  fs::create_directory(dir_.path() / "a,,b");
  fs::create_directory(dir_.path() / "a,,b" / "vm-3");
  // Runs the program, but only looks at a file.
  Start({"/bin/sh", root_ / "vm-1"});
  Start({"/bin/sh", "-e", dir_.path() / "a,,b" / "vm-2"});
  // A file in a VM's folder is no VM.
  Start({"/bin/sh", "-name", dir_.path() / "a,,b" / "vm-3" / "console.log"});
  EXPECT_THAT(Find("/bin/sh"), IsEmpty());
}

TEST_F(StraysTest, OfAnotherProgramNeedSomebodyWhoVouches) {
  fs::create_directory(root_);
  fs::create_directory(dir_.path() / "a,,b");
  const auto& vmm = Start({"/bin/sh", "-name", dir_.path() / "a,,b" / "vm-1"});
  EXPECT_THAT(Find("/bin/cat"), IsEmpty());
  EXPECT_THAT(Find("/bin/cat", [&](pid_t pid) { return pid == vmm.pid(); }), SizeIs(1));
  EXPECT_THAT(Find("/bin/cat", [&](pid_t pid) { return pid != vmm.pid(); }), IsEmpty());
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
