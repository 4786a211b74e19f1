// How VMMs are kept apart, seen from outside: what /proc and the control groups say of those of a
// real daemon that runs as root.
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sstream>

#include "hypervisor/uids.h"
#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using hypervisor::kDefaultUids;
using testing::HasSubstr;

std::string Proc(pid_t pid, const std::string& file) {
  return ReadFile("/proc/" + std::to_string(pid) + "/" + file).value_or("");
}
// A field of /proc/PID/status, "" if it has gone.
std::string Field(pid_t pid, const std::string& name) {
  std::istringstream lines(Proc(pid, "status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + ":\t")) return line.substr(name.size() + 2);
  }
  return {};
}
uid_t UidOf(pid_t pid) { return static_cast<uid_t>(std::stoul("0" + Field(pid, "Uid"))); }

// Its control group's folders under version 1, by controller.
std::map<std::string, fs::path> GroupsOf(pid_t pid) {
  std::map<std::string, fs::path> groups;
  std::istringstream lines(Proc(pid, "cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    const auto controller = line.substr(first + 1, second - first - 1);
    if (line.find("/hatchery-") == std::string::npos) continue;
    groups[controller] = "/sys/fs/cgroup/" + controller + line.substr(second + 1);
  }
  return groups;
}

std::uint64_t OnDisk(const fs::path& path) {
  struct stat info{};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

// With and without a zygote.
class IsolationTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_EQ(::getuid(), 0u) << "only root can give VMMs users of their own";
  }
  static std::vector<std::string> Flags() {
    return {"--qemu-zygote", GetParam() ? "true" : "false", "--vmm-console", "256KiB"};
  }

  // Every VMM is confined, each as its own user.
  static std::set<uid_t> ExpectConfined(const TestDaemon& daemon) {
    std::set<uid_t> uids;
    for (const pid_t pid : daemon.Vmms()) {
      const uid_t uid = UidOf(pid);
      EXPECT_GE(uid, kDefaultUids.first);
      EXPECT_LE(uid, kDefaultUids.last);
      EXPECT_TRUE(uids.insert(uid).second) << "two VMMs are uid " << uid;
      const std::string id = std::to_string(uid), tab = "\t";
      EXPECT_EQ(Field(pid, "Uid"), id + tab + id + tab + id + tab + id);
      EXPECT_EQ(Field(pid, "Gid"), id + tab + id + tab + id + tab + id);
      EXPECT_EQ(Field(pid, "NoNewPrivs"), "1");
      EXPECT_EQ(Field(pid, "Seccomp"), "2");
      EXPECT_EQ(Field(pid, "CapEff"), "0000000000000000");
      // Every thread of it: one that was there before could have been left behind.
      for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
        const auto status = ReadFile(task.path() / "status").value_or("");
        EXPECT_THAT(status, HasSubstr("\nUid:\t" + id + tab + id + tab + id));
        EXPECT_THAT(status, HasSubstr("\nNoNewPrivs:\t1"));
        EXPECT_THAT(status, HasSubstr("\nSeccomp:\t2"));
      }
    }
    return uids;
  }
  static std::set<fs::path> ExpectLimited(const TestDaemon& daemon) {
    std::set<fs::path> folders;
    for (const pid_t pid : daemon.Vmms()) {
      const auto groups = GroupsOf(pid);
      EXPECT_EQ(groups.size(), 3u) << Proc(pid, "cgroup");
      for (const auto& [controller, folder] : groups) {
        EXPECT_TRUE(folders.insert(folder).second) << "two VMMs share " << folder;
        const auto limit = [&](const char* file) {
          return std::stoull("0" + ReadFile(folder / file).value_or(""));
        };
        // The template's maxima: 512 MiB and 2 CPUs.
        if (controller == "memory") EXPECT_EQ(limit("memory.limit_in_bytes"), 1024ull << 20);
        if (controller == "pids") EXPECT_EQ(limit("pids.max"), 512u);
        if (controller == "cpu") EXPECT_EQ(limit("cpu.cfs_quota_us"), 250'000u);
      }
    }
    return folders;
  }
  static bool HasGroups(const TestDaemon& daemon) {
    return daemon.log().find("cgroup v1 (memory, pids, cpu)") != std::string::npos;
  }
  // Nothing of the daemon's (its store, its log, other VMs' files) came along.
  static void ExpectOnlyItsOwnDescriptors(const TestDaemon& daemon) {
    for (const pid_t pid : daemon.Vmms()) {
      std::map<std::string, int> others;
      int sockets = 0, memories = 0, logs = 0;
      const fs::path folder = "/proc/" + std::to_string(pid) + "/fd";
      for (const auto& entry : fs::directory_iterator(folder)) {
        std::error_code gone;
        const std::string target = fs::read_symlink(entry.path(), gone);
        if (gone) continue;
        if (target.starts_with("/memfd:")) {
          ++memories;
        } else if (target.starts_with("socket:")) {
          ++sockets;
        } else if (target.ends_with("/console.log") || target.ends_with("/vmm.log")) {
          EXPECT_TRUE(target.starts_with((daemon.dir() / "vms" / "").string())) << target;
          ++logs;
        } else if (target != "/dev/null" && target != "/dev/urandom" &&
                   target != "/dev/vhost-vsock" && !target.starts_with("anon_inode:")) {
          ++others[target];
        }
      }
      EXPECT_THAT(others, testing::IsEmpty());
      // The agent's and the monitor's: each the listener and the connection.
      EXPECT_LE(sockets, 4);
      // The template's memory, under the number that it was given and as QEMU opened it.
      EXPECT_LE(memories, 2);
      // stdout, stderr, and the console as given and as opened.
      EXPECT_LE(logs, 4);
    }
  }
  static void ExpectOwnFolders(const TestDaemon& daemon, const std::set<uid_t>& uids) {
    std::set<uid_t> owners;
    for (const auto& name : daemon.VmFolders()) {
      struct stat info{};
      ASSERT_EQ(::stat((daemon.dir() / "vms" / name).c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 07777, 0700u);
      owners.insert(info.st_uid);
    }
    EXPECT_EQ(owners, uids);
  }
  static api::TemplateSpec Small() {
    api::TemplateSpec spec;
    spec.set_max_vcpus(2);
    spec.set_max_memory_bytes(512ull << 20);
    return spec;
  }
};

INSTANTIATE_TEST_SUITE_P(Zygote, IsolationTest, testing::Bool());

TEST_P(IsolationTest, EachVmmIsAloneAndNothingIsLeft) {
  std::set<fs::path> groups;
  TestDaemon daemon(Flags());
  ASSERT_TRUE(daemon.Init(2, Small()).ok());
  ASSERT_EQ(daemon.Vmms().size(), 2u);
  const auto uids = ExpectConfined(daemon);
  ExpectOwnFolders(daemon, uids);
  ExpectOnlyItsOwnDescriptors(daemon);
  if (HasGroups(daemon)) groups = ExpectLimited(daemon);

  api::AcquireResponse leased;
  const auto acquired = daemon.Acquire(&leased);
  ASSERT_TRUE(acquired.ok()) << acquired.error_message();
  EXPECT_EQ(daemon.Shell(leased.vm().vm_id(), "echo in; nproc"), "in\n1");
  // A guest that prints without end.
  const auto console = daemon.dir() / "vms" / leased.vm().vm_id() / "console.log";
  daemon.Shell(
      leased.vm().vm_id(),
      "i=0; while [ $i -lt 2000 ]; do echo \"$i "
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
      "\"; i=$((i+1)); done > /dev/console; echo the-end > /dev/console");
  // The guest's kernel still prints when its shell is done, and what is too much goes in turns.
  std::string tail;
  std::uint64_t on_disk = 0;
  const auto kept = [&] {
    tail = ReadTail(console, Bytes(200)).value_or("");
    on_disk = OnDisk(console);
    return on_disk <= (256 << 10) && tail.find("the-end") != std::string::npos;
  };
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!kept() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  EXPECT_TRUE(kept()) << on_disk << " bytes on the disk, and at their end: " << tail;

  // A daemon that dies leaves them as they are, and the next one gives nobody's id away.
  daemon.Kill();
  EXPECT_GE(daemon.Vmms().size(), 1u);
  daemon.Start();
  EXPECT_EQ(UidOf(static_cast<pid_t>(leased.vm().pid())) >= kDefaultUids.first, true);
  api::AcquireResponse second;
  ASSERT_TRUE(daemon.Acquire(&second).ok());
  const auto after = ExpectConfined(daemon);
  EXPECT_GE(after.size(), 2u);
  if (HasGroups(daemon)) groups.merge(ExpectLimited(daemon));
  EXPECT_TRUE(daemon.Release(leased.vm().vm_id()).ok());
  EXPECT_TRUE(daemon.Release(second.vm().vm_id()).ok());
  EXPECT_EQ(daemon.Stop(), 0);
  daemon.ExpectNothingLeft();
  for (const auto& group : groups) {
    EXPECT_FALSE(fs::exists(group)) << group;
    EXPECT_FALSE(fs::exists(group.parent_path())) << group.parent_path();
  }
}

}  // namespace
}  // namespace hatchery::e2e
