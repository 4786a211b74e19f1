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

TEST(NextCountTest, GrowsToOneThenInWholeSteps) {
  EXPECT_EQ(NextCount(0, 10, 25, 0, 1e9), 1u);
  EXPECT_EQ(NextCount(1, 10, 25, 1, 1e9), 10u);
  EXPECT_EQ(NextCount(10, 10, 25, 10, 1e9), 20u);
  EXPECT_EQ(NextCount(20, 10, 25, 20, 1e9), 25u);
  EXPECT_EQ(NextCount(25, 10, 25, 25, 1e9), 25u);
  EXPECT_EQ(NextCount(3, 0, 25, 3, 1e9), 4u);
}

TEST(NextCountTest, StaysBelowItsLimit) {
  // Ten each: room for 3 more, for none, for less than none.
  EXPECT_EQ(NextCount(10, 10, 99, 100, 135), 13u);
  EXPECT_EQ(NextCount(10, 10, 99, 100, 109), 10u);
  EXPECT_EQ(NextCount(10, 10, 99, 100, 50), 10u);
  // It was not known before how large the first would be.
  EXPECT_EQ(NextCount(0, 10, 99, 0, 1), 1u);
  // Sizes that could not be read limit nothing.
  EXPECT_EQ(NextCount(1, 5, 99, 0, 100), 5u);
}

}  // namespace
}  // namespace hatchery::bench
