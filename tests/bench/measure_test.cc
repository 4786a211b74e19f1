#include "bench/measure.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

namespace hatchery::bench {
namespace {

TEST(CpuSecondsTest, GrowsWithTheWork) {
  const auto before = CpuSeconds(::getpid());
  ASSERT_TRUE(before.has_value());
  volatile double sum = 0;
  for (int i = 0; i < 1'000'000; ++i) sum = sum + i;
  const auto after = CpuSeconds(::getpid());
  ASSERT_TRUE(after.has_value());
  EXPECT_GT(*after, *before);
  // Finer than the kernel's ticks of 10 ms.
  EXPECT_LT(*after - *before, 10.0);
}

TEST(CpuSecondsTest, AProcessThatIsNotThereIsNotFound) {
  // Past the kernel's largest pid.
  const auto seconds = CpuSeconds((1 << 22) + 1);
  ASSERT_FALSE(seconds.has_value());
  EXPECT_EQ(seconds.error().code, Code::kNotFound);
}

TEST(MemfdBytesTest, CountsEachMemfdOnce) {
  const UniqueFd memory(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(memory.get(), 1 << 20), 0);
  ASSERT_EQ(::pwrite(memory.get(), "x", 1, 4096), 1);
  const auto one = MemfdBytes(::getpid());
  ASSERT_TRUE(one.has_value());
  EXPECT_EQ(*one, 4096);
  const auto again = Duplicate(memory.get());
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(MemfdBytes(::getpid()), one);
}

TEST(MemfdBytesTest, NothingWithoutOne) { EXPECT_FALSE(MemfdBytes(::getpid()).has_value()); }

TEST(RunTenTest, TellsTheFirstFromTheTenth) {
  int runs = 0;
  const auto start = SteadyClock::now();
  const auto commands = RunTen(start, [&]() -> Result<double> { return ++runs; });
  ASSERT_TRUE(commands.has_value());
  EXPECT_EQ(runs, 10);
  EXPECT_EQ(commands->first, 1);
  EXPECT_EQ(commands->tenth, 10);
  EXPECT_GT(commands->to_first, 0);
  EXPECT_GE(commands->to_tenth, commands->to_first);
}

TEST(RunTenTest, EndsAtTheFirstFailure) {
  int runs = 0;
  const auto commands = RunTen(SteadyClock::now(), [&]() -> Result<double> {
    if (++runs == 4) return Unavailable("the VM is gone");
    return 0.1;
  });
  EXPECT_EQ(runs, 4);
  ASSERT_FALSE(commands.has_value());
  EXPECT_EQ(commands.error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace hatchery::bench
