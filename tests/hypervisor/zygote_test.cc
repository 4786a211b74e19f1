#include "hypervisor/qemu/zygote.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <sstream>

#include "base/cgroup.h"
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

// Even before it was our child, had we been told of it by the one that it was forked from.
TEST_F(ZygoteTest, WhatEndsAtOnceHasAnExitStatus) {
  for (int i = 0; i < 300; ++i) {
    SpawnRequest request;
    request.argv = {"sh", "-c", "exit 3"};
    auto process = spawner_.Spawn(request);
    ASSERT_TRUE(process.has_value()) << ToString(process.error());
    ASSERT_EQ(ToString(Wait(**process)), "exit code 3") << "of process " << i;
  }
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

// Both ways to start a confined program: from a zygote, and plainly.
class ConfinedTest : public ZygoteTest, public testing::WithParamInterface<bool> {
 protected:
  ProcessSpawner& spawner() {
    if (GetParam()) return spawner_;
    return plain_;
  }
  SpawnRequest Shell(const std::string& script) {
    SpawnRequest request;
    request.argv = {"sh", "-c", script};
    request.env = MinimalEnvironment();
    request.confinement.emplace();
    return request;
  }
  // stdout and stderr of a child that ends by itself.
  std::string OutputOf(SpawnRequest request, int exit_code = 0) {
    const auto dir = TempDir::Create("/tmp", "hatchery-confined-").value();
    const auto path = dir.path() / "out";
    const UniqueFd out(::open(path.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
    request.stdout_fd = request.stderr_fd = out.get();
    auto process = spawner().Spawn(request);
    if (!process) return ToString(process.error());
    EXPECT_EQ(ToString(Wait(**process)), "exit code " + std::to_string(exit_code));
    return ReadFile(path).value();
  }
  std::string Status(const std::string& text, const std::string& field) {
    const auto at = text.find("\n" + field + ":\t");
    if (at == std::string::npos) return "no " + field;
    const auto from = at + field.size() + 3;
    return text.substr(from, text.find('\n', from) - from);
  }
};

INSTANTIATE_TEST_SUITE_P(Both, ConfinedTest, testing::Bool());

std::optional<fs::path> Version2Root() {
  std::istringstream mounts(ReadFile("/proc/self/mounts").value());
  std::string device, place, type, rest;
  while (mounts >> device >> place >> type && std::getline(mounts, rest)) {
    if (type == "cgroup2") return place;
  }
  return std::nullopt;
}

TEST_P(ConfinedTest, CannotGainPrivilegesOrDumpItsMemory) {
  auto request = Shell("cat /proc/self/status; ulimit -c; ulimit -n");
  request.confinement->core_size = 0;
  request.confinement->open_files = 200;
  const auto output = OutputOf(request);
  EXPECT_EQ(Status(output, "NoNewPrivs"), "1");
  EXPECT_TRUE(output.ends_with("\n0\n200\n")) << output;
  EXPECT_EQ(Status(OutputOf(Shell("cat /proc/self/status")), "Uid"),
            std::to_string(::getuid()) + "\t" + std::to_string(::getuid()) + "\t" +
                std::to_string(::getuid()) + "\t" + std::to_string(::getuid()));
}

TEST_P(ConfinedTest, BecomesAnotherUser) {
  ASSERT_EQ(::getuid(), 0u) << "only root may";
  auto request = Shell("cat /proc/$$/status; ls /proc/$$/fd >/dev/null && echo owns");
  request.confinement->ids = {.uid = 1'900'000'001, .gid = 1'900'000'002, .groups = {44, 55}};
  const auto output = OutputOf(request);
  EXPECT_EQ(Status(output, "Uid"), "1900000001\t1900000001\t1900000001\t1900000001");
  EXPECT_EQ(Status(output, "Gid"), "1900000002\t1900000002\t1900000002\t1900000002");
  EXPECT_EQ(Status(output, "Groups"), "44 55 ");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    EXPECT_EQ(Status(output, set), "0000000000000000") << set;
  }
  EXPECT_TRUE(output.ends_with("owns\n")) << output;
}

TEST_P(ConfinedTest, HasSoManyThreadsAndNoMore) {
  auto request = Shell("while read -r line; do echo \"$line\"; done < /proc/self/limits");
  request.confinement->processes = 321;
  const auto output = OutputOf(request);
  const auto line = output.find("Max processes");
  ASSERT_NE(line, std::string::npos) << output;
  std::istringstream words(output.substr(line));
  std::string max, processes, soft, hard;
  words >> max >> processes >> soft >> hard;
  EXPECT_EQ(soft + " " + hard, "321 321");
}

TEST_P(ConfinedTest, MayHaveDescriptorsAboveItsLimit) {
  const int high = ::fcntl(0, F_DUPFD_CLOEXEC, 500);
  ASSERT_GE(high, 500);
  const UniqueFd kept(high);
  auto request = Shell("test -e /proc/self/fd/" + std::to_string(high) + " && echo there");
  request.inherit = {high};
  request.confinement->open_files = 100;
  EXPECT_EQ(OutputOf(request), "there\n");
}

TEST_P(ConfinedTest, HasNoDescriptorThatItWasNotGiven) {
  // As a library opens them that does not think of children.
  const UniqueFd leaked(::fcntl(0, F_DUPFD, 200)), given(::fcntl(0, F_DUPFD_CLOEXEC, 300)),
      leaked_too(::fcntl(0, F_DUPFD, 310));
  auto request = Shell("cd /proc/$$/fd; test -e " + std::to_string(given.get()) + " -a ! -e " +
                       std::to_string(leaked.get()) + " -a ! -e " +
                       std::to_string(leaked_too.get()) + " && echo only that");
  request.inherit = {given.get()};
  EXPECT_EQ(OutputOf(request), "only that\n");
}

TEST_P(ConfinedTest, EntersItsControlGroupsFirst) {
  // A file stands for a group: what is written there is "0", before the program writes more.
  const auto dir = TempDir::Create("/tmp", "hatchery-confined-").value();
  const auto members = dir.path() / "cgroup.procs";
  const UniqueFd fd(::open(members.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644));
  auto request = Shell("cat " + members.string() + "; test -e /proc/$$/fd/" +
                       std::to_string(fd.get()) + " || echo closed");
  request.confinement->cgroups = {fd.get()};
  EXPECT_EQ(OutputOf(request), "0closed\n");
}

// On the host's own version 2 groups; one that has none, or none for us, has nothing to enter.
TEST_P(ConfinedTest, IsInItsVersion2Group) {
  const std::string name = "hatchery-test-" + std::to_string(::getpid());
  const auto root = Version2Root();
  if (!root || ::mkdir((*root / name).c_str(), 0755) != 0) return;
  {
    const auto members = OpenMembers({*root / name});
    ASSERT_TRUE(members.has_value()) << ToString(members.error());
    const int folder = members->at(0).get();
    auto request = Shell("cat /proc/self/cgroup; test -e /proc/$$/fd/" + std::to_string(folder) +
                         " || echo closed");
    request.confinement->cgroups = {folder};
    EXPECT_THAT(OutputOf(request), testing::HasSubstr("0::/" + name + "\nclosed\n"));
    EXPECT_EQ(Zygotes().size(), GetParam() ? 1u : 0u) << "not by the way that was asked for";
  }
  while (!RemoveCgroup({*root / name})) {
  }
}

TEST_P(ConfinedTest, SaysWhatItCouldNotDo) {
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  auto request = Shell("echo ran");
  request.confinement->cgroups = {full.get()};
  const std::string said = "cannot start sh: entering its control group: ENOSPC\n";
  // What a zygote cannot start is tried plainly.
  const bool zygote = GetParam();
  EXPECT_EQ(OutputOf(request, 126), zygote ? said + said : said);
  auto dropped = Shell("echo ran");
  dropped.confinement->ids = {.uid = static_cast<uid_t>(-1), .gid = static_cast<gid_t>(-1)};
  dropped.confinement->ids->groups = {static_cast<gid_t>(-1)};
  EXPECT_THAT(OutputOf(dropped, 126), testing::EndsWith("cannot start sh: setting its groups: "
                                                        "EINVAL\n"));
}

TEST_P(ConfinedTest, NamesAProgramThatDoesNotExist) {
  SpawnRequest request = Shell("");
  request.argv[0] = "/no/such/program";
  const auto process = spawner().Spawn(request);
  ASSERT_FALSE(process.has_value());
  EXPECT_EQ(process.error().code, Code::kNotFound);
  EXPECT_THAT(process.error().message, testing::HasSubstr("/no/such/program"));
  request.argv[0] = "/etc/passwd";
  EXPECT_EQ(spawner().Spawn(request).error().code, Code::kPermissionDenied);
  request.argv[0] = "sh";
  request.confinement->cgroups = {0, 0, 0, 0, 0};
  EXPECT_EQ(plain_.Spawn(request).error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
