#include "hypervisor/qemu/zygote.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sstream>

#include "base/files.h"
#include "base/run.h"
#include "hypervisor/qemu/zygote_protocol.h"

namespace hatchery::hypervisor::qemu {
namespace {

using std::chrono::seconds;

class ZygoteTest : public testing::Test {
 protected:
  ZygoteTest() { EXPECT_FALSE(FindZygoteLibrary().empty()); }

  Result<CommandOutput> Run(ProcessSpawner& spawner, std::vector<std::string> argv) {
    return RunUntilDone(io_, RunCommand(spawner, std::move(argv), After(seconds(20))));
  }
  ExitStatus Wait(Process& process) {
    return RunUntilDone(io_, process.Wait(After(seconds(20)))).value();
  }
  // The zygotes among our children.
  static std::vector<pid_t> Zygotes() {
    std::istringstream children(
        ReadFile("/proc/self/task/" + std::to_string(::getpid()) + "/children").value());
    std::vector<pid_t> found;
    for (pid_t pid = 0; children >> pid;) {
      const auto line = ReadFile("/proc/" + std::to_string(pid) + "/cmdline");
      if (line && line->find(zygote::kName) != std::string::npos) found.push_back(pid);
    }
    return found;
  }

  asio::io_context io_;
  PosixSpawner plain_{io_.get_executor()};
  ZygoteSpawner spawner_{io_.get_executor(), plain_, FindZygoteLibrary(), "sh"};
};

TEST_F(ZygoteTest, RunsTheProgramWithItsOwnArguments) {
  for (const char* word : {"one", "two"}) {
    const auto output =
        Run(spawner_, {"sh", "-c", std::string("echo ") + word + "; echo e >&2; exit 3"});
    ASSERT_TRUE(output.has_value()) << ToString(output.error());
    EXPECT_EQ(output->out, std::string(word) + "\n");
    EXPECT_EQ(output->err, "e\n");
    // Known, so it was our child.
    EXPECT_EQ(ToString(output->status), "exit code 3");
  }
  EXPECT_EQ(Zygotes().size(), 1u) << "both from one";
}

TEST_F(ZygoteTest, WhatItStartsLooksLikeItself) {
  SpawnRequest request;
  request.argv = {"sh", "-c", "read line", "a b"};
  request.env = MinimalEnvironment();
  request.cwd = "/tmp";
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd in(fds[0]), out(fds[1]);
  request.stdin_fd = in.get();
  request.inherit = {out.get()};  // and so it waits until we have looked
  request.huge_pages = false;
  auto process = spawner_.Spawn(request);
  ASSERT_TRUE(process.has_value()) << ToString(process.error());
  const std::string proc = "/proc/" + std::to_string((*process)->pid());
  // It becomes what was asked for while we look.
  while (ReadFile(proc + "/cmdline").value_or("").find("read line") == std::string::npos) {
    ASSERT_FALSE((*process)->ended());
  }
  const std::string shown = ReadFile(proc + "/cmdline").value();
  EXPECT_EQ(shown.substr(0, shown.find_last_not_of('\0') + 1),
            std::string("sh\0-c\0read line\0a b", 19));
  EXPECT_EQ(fs::read_symlink(proc + "/cwd"), "/tmp");
  EXPECT_TRUE(fs::exists(proc + "/fd/" + std::to_string(out.get())));
  EXPECT_FALSE(fs::exists(proc + "/fd/" + std::to_string(in.get())));
  EXPECT_THAT(ReadFile(proc + "/status").value(), testing::HasSubstr("THP_enabled:\t0"));
  ASSERT_TRUE((*process)->Signal(SIGKILL).has_value());
  EXPECT_EQ(Wait(**process).how, ExitStatus::How::kSignalled);
}

TEST_F(ZygoteTest, HasTheEnvironmentThatWasAskedFor) {
  ASSERT_TRUE(Run(spawner_, {"sh", "-c", ":"}).has_value());
  SpawnRequest request;
  request.argv = {"sh", "-c", "test \"$COLOUR\" = red -a -z \"$LD_PRELOAD\""};
  request.env = {"PATH=/usr/bin:/bin", "COLOUR=red"};
  auto process = spawner_.Spawn(request);
  ASSERT_TRUE(process.has_value());
  EXPECT_EQ(ToString(Wait(**process)), "exit code 0");
}

TEST_F(ZygoteTest, IsReplacedWhenItHasDied) {
  ASSERT_TRUE(Run(spawner_, {"sh", "-c", ":"}).has_value());
  ASSERT_EQ(Zygotes().size(), 1u);
  const pid_t first = Zygotes()[0];
  ASSERT_EQ(::kill(first, SIGKILL), 0);
  for (int i = 0; i < 2; ++i) {
    const auto output = Run(spawner_, {"sh", "-c", "echo alive"});
    ASSERT_TRUE(output.has_value()) << ToString(output.error());
    EXPECT_EQ(output->out, "alive\n");
  }
  EXPECT_THAT(Zygotes(), testing::SizeIs(1));
  EXPECT_NE(Zygotes().at(0), first);
}

TEST_F(ZygoteTest, IsReplacedWithItsProgram) {
  const auto dir = TempDir::Create("/tmp", "hatchery-zygote-").value();
  const auto program = dir.path() / "program";
  const auto install = [&](const char* which) {
    fs::copy_file(which, dir.path() / "new");
    fs::rename(dir.path() / "new", program);
  };
  ZygoteSpawner spawner(io_.get_executor(), plain_, FindZygoteLibrary(), program);
  install("/bin/echo");
  EXPECT_EQ(Run(spawner, {program, "-n", "x"})->out, "x");
  install("/bin/cat");
  EXPECT_EQ(Run(spawner, {program, "/proc/sys/kernel/ostype"})->out, "Linux\n");
}

TEST_F(ZygoteTest, StartsPlainlyWhatCannotBeAZygote) {
  const auto dir = TempDir::Create("/tmp", "hatchery-zygote-").value();
  const auto script = dir.path() / "script";
  ASSERT_TRUE(WriteFileAtomically(script, "#!/bin/sh\necho \"$@\"\n", 0755).has_value());
  ZygoteSpawner spawner(io_.get_executor(), plain_, FindZygoteLibrary(), script);
  EXPECT_EQ(Run(spawner, {script, "a", "b"})->out, "a b\n");
  // Another program than its own.
  EXPECT_EQ(Run(spawner_, {"echo", "c"})->out, "c\n");
  EXPECT_THAT(Zygotes(), testing::IsEmpty());
  // A library that is none.
  ZygoteSpawner without(io_.get_executor(), plain_, dir.path() / "none.so", "echo");
  EXPECT_EQ(Run(without, {"echo", "d"})->out, "d\n");
  EXPECT_EQ(Run(without, {"echo", "e"})->out, "e\n");
}

TEST_F(ZygoteTest, NamesAProgramThatDoesNotExist) {
  ZygoteSpawner spawner(io_.get_executor(), plain_, FindZygoteLibrary(), "/no/such/program");
  const auto output = Run(spawner, {"/no/such/program"});
  ASSERT_FALSE(output.has_value());
  EXPECT_EQ(output.error().code, Code::kNotFound);
}

TEST_F(ZygoteTest, EndsWithItsSpawner) {
  {
    ZygoteSpawner spawner(io_.get_executor(), plain_, FindZygoteLibrary(), "sh");
    ASSERT_TRUE(Run(spawner, {"sh", "-c", ":"}).has_value());
  }
  // Its socket is closed. It has to be waited for: it is our child.
  while (!Zygotes().empty()) ::waitpid(-1, nullptr, WNOHANG);
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
