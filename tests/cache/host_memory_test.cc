#include "cache/host_memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"

namespace hatchery::cache {
namespace {

// Hosts of files, as the kernel would show them.
class HostMemoryTest : public testing::Test {
 protected:
  HostMemoryTest() {
    Write("proc/meminfo",
          "MemTotal:        8388608 kB\nMemFree:          100 kB\nMemAvailable:    4194304 kB\n");
  }
  void Write(const std::string& path, const std::string& text) {
    const auto file = dir_.path() / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void Groups(const std::string& mountinfo, const std::string& cgroup) {
    Write("proc/self/mountinfo", mountinfo);
    Write("proc/self/cgroup", cgroup);
  }
  void Expect(Bytes total, Bytes available) {
    KernelHostMemory reader(dir_.path());
    const auto now = reader.Read();
    ASSERT_TRUE(now.has_value()) << ToString(now.error());
    EXPECT_EQ(ToString(now->total), ToString(total));
    EXPECT_EQ(ToString(now->available), ToString(available));
  }
  static std::string MiB(std::uint64_t n) { return std::to_string(n << 20) + "\n"; }

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-host-memory-").value();
};

constexpr const char* kV2Mount =
    "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr const char* kV1Mounts =
    "29 24 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "30 24 0:26 / /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory\n"
    "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

TEST_F(HostMemoryTest, WithoutControlGroupsItIsTheHosts) { Expect(Bytes::GiB(8), Bytes::GiB(4)); }

TEST_F(HostMemoryTest, OfVersion2TheTightestUpToTheRootCounts) {
  Groups(kV2Mount, "0::/system.slice/hatcheryd.service\n");
  const std::string slice = "sys/fs/cgroup/system.slice/";
  Write(slice + "hatcheryd.service/memory.max", "max\n");
  Write(slice + "hatcheryd.service/memory.current", MiB(100));
  Write(slice + "memory.max", MiB(1024));
  Write(slice + "memory.current", MiB(700));
  Write(slice + "memory.stat", "anon 1\nfile 5\ninactive_file " + MiB(200));
  Expect(Bytes::GiB(1), Bytes::MiB(1024 - 700 + 200));
  Write(slice + "hatcheryd.service/memory.max", MiB(256));
  Expect(Bytes::MiB(256), Bytes::MiB(156));
}

TEST_F(HostMemoryTest, AGroupThatHasTakenMoreThanItsLimitLeavesNothing) {
  Groups(kV2Mount, "0::/a\n");
  Write("sys/fs/cgroup/a/memory.max", MiB(100));
  Write("sys/fs/cgroup/a/memory.current", MiB(200));
  Expect(Bytes::MiB(100), Bytes());
}

TEST_F(HostMemoryTest, OfVersion1AnEnormousLimitIsNone) {
  Groups(kV1Mounts, "5:cpu:/x\n4:memory:/docker/abc\n0::/\n");
  const std::string group = "sys/fs/cgroup/memory/docker/abc/";
  Write(group + "memory.limit_in_bytes", "9223372036854771712\n");
  Write(group + "memory.usage_in_bytes", MiB(300));
  Expect(Bytes::GiB(8), Bytes::GiB(4));
  Write(group + "memory.limit_in_bytes", MiB(2048));
  Write(group + "memory.stat", "inactive_file 1\ntotal_inactive_file " + MiB(100));
  Expect(Bytes::GiB(2), Bytes::MiB(2048 - 200));
}

TEST_F(HostMemoryTest, InsideAContainerItsMountIsTheGroup) {
  // The path is the host's, of which only the container's own group is mounted.
  Groups("30 24 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
         "4:memory:/docker/abc\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", MiB(512));
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", MiB(12));
  Expect(Bytes::MiB(512), Bytes::MiB(500));
  Groups("30 24 0:26 /elsewhere /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
         "4:memory:/docker/abc\n");
  Expect(Bytes::MiB(512), Bytes::MiB(500));
}

TEST_F(HostMemoryTest, AGroupWithoutFilesIsNoLimit) {
  Groups(kV1Mounts, "4:memory:/gone\n0::/\n");
  Expect(Bytes::GiB(8), Bytes::GiB(4));
}

TEST_F(HostMemoryTest, AHostWithoutFiguresIsAnError) {
  Write("proc/meminfo", "MemFree: 1 kB\n");
  EXPECT_FALSE(KernelHostMemory(dir_.path()).Read().has_value());
  EXPECT_FALSE(KernelHostMemory(dir_.path() / "nowhere").Read().has_value());
}

TEST(HostMemory, ThisHostHasSome) {
  const auto now = KernelHostMemory().Read();
  ASSERT_TRUE(now.has_value()) << ToString(now.error());
  EXPECT_GT(now->available, Bytes());
  EXPECT_LE(now->available, now->total);
}

}  // namespace
}  // namespace hatchery::cache
