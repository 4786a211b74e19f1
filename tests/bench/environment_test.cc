#include "bench/environment.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/files.h"
#include "bench/commit.h"

namespace hatchery::bench {
namespace {

using testing::AnyOf;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;

class EnvironmentTest : public testing::Test {
 protected:
  void SetUp() override {
    auto scratch = TempDir::Create(fs::temp_directory_path(), "hatchery-environment-");
    ASSERT_TRUE(scratch.has_value()) << ToString(scratch.error());
    scratch_.emplace(*std::move(scratch));
  }
  void Write(const std::string& path, const std::string& text) {
    const fs::path file = root() / path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  fs::path root() const { return scratch_->path(); }

  std::optional<TempDir> scratch_;
};

TEST_F(EnvironmentTest, ThisHostIsDescribed) {
  const Environment e = DescribeHost();
  EXPECT_THAT(e.time, MatchesRegex("20..-..-..T..:..:..Z"));
  EXPECT_THAT(e.hatchery, MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
  EXPECT_THAT(e.cpu, Not(IsEmpty()));
  EXPECT_GT(e.cores, 0u);
  EXPECT_GT(e.memory_mib, 0u);
  EXPECT_THAT(e.kernel, MatchesRegex("Linux .+"));
  EXPECT_THAT(e.virtualization, Not(IsEmpty()));
  EXPECT_THAT(e.load, MatchesRegex("[0-9.]+ [0-9.]+ [0-9.]+"));
  EXPECT_THAT(e.accelerator, IsEmpty());
}

TEST_F(EnvironmentTest, ReadsWhatProcSays) {
  Write("proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU: fast\nflags\t\t: fpu sse\n");
  Write("proc/loadavg", "0.42 0.31 0.30 1/234 5678\n");
  const Environment e = DescribeHost(root());
  EXPECT_EQ(e.cpu, "Some CPU: fast");
  EXPECT_EQ(e.load, "0.42 0.31 0.30");
}

TEST_F(EnvironmentTest, WhatCannotBeReadIsUnknown) {
  const Environment e = DescribeHost(root());
  EXPECT_EQ(e.cpu, "unknown");
  EXPECT_EQ(e.load, "unknown");
  EXPECT_EQ(GuessVirtualization(root()), "unknown");
}

TEST_F(EnvironmentTest, TheHypervisorFlagTellsAVm) {
  Write("proc/cpuinfo", "flags\t\t: fpu nohypervisor sse\n");
  EXPECT_EQ(GuessVirtualization(root()), "none");
  Write("proc/cpuinfo", "flags\t\t: fpu hypervisor sse\n");
  EXPECT_EQ(GuessVirtualization(root()), "a VM");
  Write("sys/class/dmi/id/sys_vendor", "Some Cloud\n");
  Write("sys/class/dmi/id/product_name", "Big One\n");
  EXPECT_EQ(GuessVirtualization(root()), "a VM Some Cloud Big One");
}

TEST_F(EnvironmentTest, KvmInAVmIsNested) {
  EXPECT_EQ(DescribeAccelerator("kvm", {.virtualization = "kvm"}), "kvm, nested");
  EXPECT_EQ(DescribeAccelerator("kvm", {.virtualization = "none"}), "kvm");
  EXPECT_EQ(DescribeAccelerator("kvm", {.virtualization = "unknown"}), "kvm");
  EXPECT_EQ(DescribeAccelerator("tcg", {.virtualization = "kvm"}), "tcg");
}

TEST(Commit, IsACommitOrUnknown) {
  EXPECT_THAT(std::string(BuildCommit()), AnyOf("unknown", MatchesRegex("[0-9a-f]{12}(-dirty)?")));
}

}  // namespace
}  // namespace hatchery::bench
