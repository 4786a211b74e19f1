#include "hypervisor/qemu/proc.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace hatchery::hypervisor::qemu {
namespace {

TEST(Proc, ReadsASmapsRollup) {
  const auto stats = ParseSmapsRollup(
      "55d0-7fff ---p 00000000 00:00 0    [rollup]\n"
      "Rss:   40000 kB\nPss:   20000 kB\nPss_Dirty: 1 kB\n"
      "Private_Clean:   1000 kB\nPrivate_Dirty:  15000 kB\n");
  ASSERT_TRUE(stats.has_value()) << ToString(stats.error());
  EXPECT_EQ(stats->resident, Bytes::KiB(40000));
  EXPECT_EQ(stats->proportional, Bytes::KiB(20000));
  EXPECT_EQ(stats->private_memory, Bytes::KiB(16000));
  EXPECT_FALSE(ParseSmapsRollup("Rss: 1 kB\n").has_value());
  EXPECT_FALSE(ParseSmapsRollup("").has_value());
}

TEST(Proc, ReadsCpuTimeWhateverTheProcessIsCalled) {
  const std::string after = " S 1 2 3 4 5 6 7 8 9 10 70 30 0 0";
  const auto tick = std::chrono::nanoseconds(1'000'000'000 / ::sysconf(_SC_CLK_TCK));
  EXPECT_EQ(ParseCpuTime("12 (qemu)" + after), 100 * tick);
  EXPECT_EQ(ParseCpuTime("12 (a) b ((c)" + after), 100 * tick);
  EXPECT_FALSE(ParseCpuTime("12 qemu S 1").has_value());
  EXPECT_FALSE(ParseCpuTime("12 (qemu) S 1").has_value());
}

TEST(Proc, ReadsItself) {
  const auto stats = ReadProcessStats(::getpid());
  ASSERT_TRUE(stats.has_value()) << ToString(stats.error());
  EXPECT_GT(stats->resident, Bytes::MiB(1));
  EXPECT_EQ(ReadProcessStats(0x3ffffff).error().code, Code::kNotFound);
  EXPECT_TRUE(HostCpuFeatures().has_value());
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
