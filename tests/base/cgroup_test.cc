#include "base/cgroup.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <fstream>

#include "base/confine.h"
#include "base/files.h"

namespace hatchery {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Folders and files as the kernel would have them. It makes no files in new groups: those that are
// limited are prepared.
class FakeTree : public testing::Test {
 protected:
  void Write(const fs::path& file, std::string_view text = "") {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  std::string Read(const fs::path& file) { return ReadFile(root_ / file).value_or("none"); }
  void Group(const fs::path& group) {
    Write(group / "cgroup.controllers", "cpuset cpu memory pids\n");
    Write(group / "cgroup.subtree_control");
    Write(group / "cgroup.procs");
  }
  void Limits(const fs::path& group) {
    for (const char* file : {"memory.max", "pids.max", "cpu.max"}) Write(group / file);
  }
  Result<Cgroups> Open(std::string own, std::string setting = "auto") {
    return Cgroups::Open(
        {.root = root_, .own = std::move(own), .setting = std::move(setting), .parent = "h"});
  }
  static constexpr CgroupLimits kLimits = {.memory = Bytes::MiB(1), .pids = 50, .cpu_percent = 250};

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-cgroup-").value();
  fs::path root_ = dir_.path();
};

TEST_F(FakeTree, Version2BelowOurOwnGroup) {
  for (const char* group : {"", "a/b", "a/b/h"}) Group(group);
  Limits("a/b/h/vm-1");
  const auto groups = Open("0::/a/b\n");
  ASSERT_TRUE(groups.has_value()) << ToString(groups.error());
  EXPECT_EQ(groups->version(), Cgroups::Version::kV2);
  EXPECT_EQ(groups->controllers(), "memory, pids, cpu");
  EXPECT_THAT(groups->parents(), ElementsAre(root_ / "a/b/h"));
  EXPECT_EQ(Read("a/b/cgroup.subtree_control"), "+memory +pids +cpu");
  EXPECT_EQ(Read("a/b/h/cgroup.subtree_control"), "+memory +pids +cpu");
  EXPECT_EQ(Read("cgroup.subtree_control"), "") << "not ours to change";
  EXPECT_TRUE(groups->Contains("0::/a/b/h/vm-1\n"));
  EXPECT_FALSE(groups->Contains("0::/a/b/h\n"));
  EXPECT_FALSE(groups->Contains("0::/a/b/h2/vm-1\n"));
  EXPECT_THAT(groups->List(), ElementsAre("vm-1"));
  // Prepared, and so not empty: it is not taken for a new one.
  EXPECT_FALSE(groups->Create("vm-1", kLimits).has_value());
}

TEST_F(FakeTree, Version2LeavesTheGroupThatItDivides) {
  for (const char* group : {"", "a", "a/daemon", "a/h"}) Group(group);
  // The kernel refuses while a has members; a folder in place of the file refuses as well.
  fs::remove(root_ / "a/cgroup.subtree_control");
  fs::create_directory(root_ / "a/cgroup.subtree_control");
  Write("a/cgroup.procs", "1\n" + std::to_string(::getpid()) + "\n");
  const auto shared = Open("0::/a\n");
  ASSERT_FALSE(shared.has_value());
  EXPECT_EQ(shared.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(Read("a/daemon/cgroup.procs"), "");
  Write("a/cgroup.procs", std::to_string(::getpid()) + "\n");
  EXPECT_FALSE(Open("0::/a\n").has_value());
  EXPECT_EQ(Read("a/daemon/cgroup.procs"), "0");
  // A daemon that starts where the last one went stays there.
  fs::remove(root_ / "a/cgroup.subtree_control");
  Write("a/cgroup.subtree_control", "memory pids cpu\n");
  const auto again = Open("0::/a/daemon\n");
  ASSERT_TRUE(again.has_value()) << ToString(again.error());
  EXPECT_THAT(again->parents(), ElementsAre(root_ / "a/h"));
  EXPECT_EQ(Read("a/cgroup.subtree_control"), "memory pids cpu\n");
}

TEST_F(FakeTree, Version2WithAName) {
  for (const char* group : {"", "x", "x/y", "x/y/h"}) Group(group);
  const auto groups = Open("0::/somewhere\n", "/x/y");
  ASSERT_TRUE(groups.has_value()) << ToString(groups.error());
  EXPECT_THAT(groups->parents(), ElementsAre(root_ / "x/y/h"));
  EXPECT_EQ(Read("cgroup.subtree_control"), "+memory +pids +cpu");
  EXPECT_EQ(Read("x/cgroup.subtree_control"), "+memory +pids +cpu");
}

TEST_F(FakeTree, Version1PerController) {
  Write("memory/cgroup.procs");
  Write("pids/cgroup.procs");
  fs::create_directories(root_ / "memory/mine");
  const auto groups = Open("4:memory:/mine\n3:cpu,cpuacct:/\n2:pids:/\n0::/\n");
  ASSERT_TRUE(groups.has_value()) << ToString(groups.error());
  EXPECT_EQ(groups->version(), Cgroups::Version::kV1);
  EXPECT_EQ(groups->controllers(), "memory, pids");
  EXPECT_THAT(groups->parents(), ElementsAre(root_ / "memory/mine/h", root_ / "pids/h"));
  EXPECT_TRUE(groups->Contains("4:memory:/mine/h/vm-1\n2:pids:/\n"));
  EXPECT_FALSE(groups->Contains("4:memory:/h/vm-1\n2:pids:/mine/h/vm-1\n"));
  groups->RemoveParent();
  EXPECT_FALSE(fs::exists(root_ / "pids/h"));
}

TEST_F(FakeTree, NoneIsSaid) {
  EXPECT_EQ(Open("0::/\n").error().code, Code::kUnimplemented);
  Write("unified/cgroup.procs");
  EXPECT_EQ(Open("0::/\n").error().code, Code::kUnimplemented);
}

// A process would be waited for, by everybody who forks: see OpenMembers().
TEST_F(FakeTree, AThreadEntersUnderVersion1) {
  Write("memory/vm-1/cgroup.procs");
  Write("memory/vm-1/tasks");
  const auto members = OpenMembers({root_ / "memory/vm-1"});
  ASSERT_TRUE(members.has_value()) << ToString(members.error());
  ASSERT_TRUE(WriteAll(members->at(0).get(), "0").has_value());
  EXPECT_EQ(Read("memory/vm-1/tasks"), "0");
  EXPECT_EQ(Read("memory/vm-1/cgroup.procs"), "");
}

// The folder is what clone3(2) makes a process in; who cannot be made there writes to its file.
TEST_F(FakeTree, AFolderIsEnteredUnderVersion2) {
  Write("a/vm-1/cgroup.procs");
  auto members = OpenMembers({root_ / "a/vm-1"});
  ASSERT_TRUE(members.has_value()) << ToString(members.error());
  confine::Description description{};
  description.cgroups = 1;
  description.cgroup[0] = members->at(0).Release();
  ASSERT_TRUE(confine::IsFolder(description.cgroup[0]));
  EXPECT_EQ(confine::Enter(description), nullptr);
  EXPECT_EQ(Read("a/vm-1/cgroup.procs"), "0");
  EXPECT_EQ(::fcntl(description.cgroup[0], F_GETFD), -1) << "still open";
}

TEST_F(FakeTree, AGroupThatIsNotThereCannotBeEntered) {
  const auto members = OpenMembers({root_ / "none"});
  ASSERT_FALSE(members.has_value());
  EXPECT_EQ(members.error().code, Code::kNotFound);
  EXPECT_THAT(members.error().message, HasSubstr("opening " + (root_ / "none").string()));
  EXPECT_TRUE(RemoveCgroup({root_ / "none"}).has_value());
}

// The host that runs this has one version.
TEST(CgroupSettings, AreWrittenToTheFilesOfTheVersion) {
  using enum Cgroups::Version;
  constexpr CgroupLimits kLimits = {.memory = Bytes::MiB(1), .pids = 50, .cpu_percent = 250};
  const auto of = [&](Cgroups::Version version, std::string_view controller) {
    return SettingsOf(version, controller, kLimits);
  };
  using Settings = std::vector<CgroupSetting>;
  EXPECT_EQ(of(kV2, "memory"), (Settings{{"memory.max", "1048576"}}));
  EXPECT_EQ(of(kV2, "pids"), (Settings{{"pids.max", "50"}}));
  EXPECT_EQ(of(kV2, "cpu"), (Settings{{"cpu.max", "250000 100000"}}));
  EXPECT_EQ(of(kV1, "memory"), (Settings{{"memory.limit_in_bytes", "1048576"}}));
  EXPECT_EQ(of(kV1, "pids"), (Settings{{"pids.max", "50"}}));
  EXPECT_EQ(of(kV1, "cpu"),
            (Settings{{"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", "250000"}}));
}

TEST(RealCgroups, LimitHoldKillAndGo) {
  auto own = ReadFile("/proc/self/cgroup");
  const auto name = "hatchery-test-" + std::to_string(::getpid());
  const auto groups = Cgroups::Open({.own = own.value_or(""), .setting = "auto", .parent = name});
  if (!groups) {
    EXPECT_NE(groups.error().message, "") << "a host without says why";
    return;
  }
  const auto folders =
      groups->Create("vm-1", {.memory = Bytes::MiB(64), .pids = 50, .cpu_percent = 250});
  ASSERT_TRUE(folders.has_value()) << ToString(folders.error());
  EXPECT_THAT(groups->List(), ElementsAre("vm-1"));
  if (groups->version() == Cgroups::Version::kV1 && groups->controllers() == "memory, pids, cpu") {
    EXPECT_EQ(ReadFile((*folders)[0] / "memory.limit_in_bytes").value(), "67108864\n");
    EXPECT_EQ(ReadFile((*folders)[1] / "pids.max").value(), "50\n");
    EXPECT_EQ(ReadFile((*folders)[2] / "cpu.cfs_quota_us").value(), "250000\n");
  }
  const auto members = OpenMembers(*folders);
  ASSERT_TRUE(members.has_value());
  const pid_t child = ::fork();
  if (child == 0) {
    confine::Description description{};
    for (const auto& fd : *members) description.cgroup[description.cgroups++] = fd.get();
    (void)confine::Enter(description);
    for (;;) ::pause();
  }
  const auto file = "/proc/" + std::to_string(child) + "/cgroup";
  while (ReadFile((*folders).back() / "cgroup.procs").value().empty()) {
  }
  EXPECT_TRUE(groups->Contains(ReadFile(file).value()));
  EXPECT_FALSE(groups->Contains(*own));
  EXPECT_EQ(RemoveCgroup(*folders).error().code, Code::kUnavailable);
  KillMembers(*folders);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  while (!RemoveCgroup(*folders)) {
  }
  EXPECT_THAT(groups->List(), IsEmpty());
  groups->RemoveParent();
  EXPECT_FALSE(fs::exists(groups->parents()[0]));
}

}  // namespace
}  // namespace hatchery
