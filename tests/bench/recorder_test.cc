#include "bench/recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace hatchery::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

Recorder WithSeries() {
  Recorder recorder("test");
  recorder.Declare("acquire", "acquire from the pool");
  recorder.Declare("memory", "private memory", Unit::kBytes);
  return recorder;
}

TEST(RecorderTest, KeepsSamplesInTheOrderTheyCame) {
  auto recorder = WithSeries();
  recorder.Add("acquire", 3.0);
  recorder.Add("memory", 7.0);
  recorder.Add("acquire", Result<double>(1.0));
  const auto section = std::move(recorder).Finish();
  ASSERT_TRUE(section.has_value());
  EXPECT_EQ(section->benchmark, "test");
  ASSERT_EQ(section->series.size(), 2u);
  EXPECT_EQ(section->series[0].key, "acquire");
  EXPECT_THAT(section->series[0].samples, ElementsAre(3.0, 1.0));
  EXPECT_EQ(section->series[1].unit, Unit::kBytes);
  EXPECT_THAT(section->series[1].samples, ElementsAre(7.0));
}

TEST(RecorderTest, CountsEachFailureByItsReason) {
  auto recorder = WithSeries();
  recorder.Add("acquire", 1.0);
  recorder.Fail("acquire", {Code::kUnavailable, "VM vm-1 is gone"});
  recorder.Add("acquire", Result<double>(Unavailable("VM vm-2 is gone")));
  recorder.Fail("acquire", {Code::kDeadlineExceeded, "too late"});
  const auto section = std::move(recorder).Finish();
  ASSERT_TRUE(section.has_value());
  EXPECT_THAT(section->series[0].samples, ElementsAre(1.0));
  EXPECT_THAT(section->series[0].failures,
              UnorderedElementsAre(Pair("UNAVAILABLE", 2), Pair("DEADLINE_EXCEEDED", 1)));
  // The first of each kind tells what it was.
  EXPECT_THAT(section->notes, ElementsAre("acquire from the pool: UNAVAILABLE: VM vm-1 is gone",
                                          "acquire from the pool: DEADLINE_EXCEEDED: too late"));
}

TEST(RecorderTest, WarmUpsAreOnlyCounted) {
  auto recorder = WithSeries();
  recorder.set_counting(false);
  recorder.Add("acquire", 9.0);
  recorder.Fail("acquire", {Code::kUnavailable, "not yet"});
  recorder.set_counting(true);
  recorder.Add("acquire", 1.0);
  const auto section = std::move(recorder).Finish();
  ASSERT_TRUE(section.has_value());
  EXPECT_EQ(section->series[0].warm_up, 2u);
  EXPECT_THAT(section->series[0].samples, ElementsAre(1.0));
  EXPECT_THAT(section->series[0].failures, IsEmpty());
}

TEST(RecorderTest, NothingMeasuredIsTheFirstError) {
  auto recorder = WithSeries();
  recorder.Fail("acquire", {Code::kUnavailable, "nobody there"});
  recorder.Fail("memory", {Code::kNotFound, "no process"});
  const auto section = std::move(recorder).Finish();
  ASSERT_FALSE(section.has_value());
  EXPECT_EQ(section.error().code, Code::kUnavailable);
  EXPECT_THAT(section.error().message, HasSubstr("nobody there"));
}

TEST(RecorderTest, AFigureIsOfSeriesThatThereAre) {
  auto recorder = WithSeries();
  recorder.Promise({.key = "f", .name = "f", .value = {"acquire"}, .against = Number{"memory"}});
  EXPECT_THROW(recorder.Promise({.key = "g", .name = "g", .value = {"aquire"}}), std::logic_error);
  EXPECT_THROW(
      recorder.Promise({.key = "h", .name = "h", .value = {"acquire"}, .against = Number{"x"}}),
      std::logic_error);
}

}  // namespace
}  // namespace hatchery::bench
