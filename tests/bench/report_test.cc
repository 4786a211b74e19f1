#include "bench/report.h"

#include <gmock/gmock.h>

namespace hatchery::bench::old {
namespace {

using testing::HasSubstr;
using testing::Not;

Figure Acquire(double seconds) {
  return {"acquire",
          "acquire",
          Unit::kSeconds,
          Summarize({seconds}),
          Against{"cold boot", Summarize({3.0})},
          Target{Target::Of::kRatio, Target::Is::kAtLeast, 300}};
}

Figure Memory(double bytes) {
  return {"memory",
          "memory",
          Unit::kBytes,
          Summarize({bytes}),
          Against{"cold boot", Summarize({200.0 * (1 << 20)})},
          Target{Target::Of::kRatio, Target::Is::kAtMost, 0.1}};
}

TEST(Report, TimesFasterAreBaselineByValue) {
  EXPECT_DOUBLE_EQ(*Acquire(0.01).Ratio(), 300);
  EXPECT_EQ(Acquire(0.01).Met(), true);
  EXPECT_EQ(Acquire(0.0101).Met(), false);
}

TEST(Report, SharesAreValueByBaseline) {
  EXPECT_DOUBLE_EQ(*Memory(10.0 * (1 << 20)).Ratio(), 0.05);
  EXPECT_EQ(Memory(20.0 * (1 << 20)).Met(), true);
  EXPECT_EQ(Memory(21.0 * (1 << 20)).Met(), false);
}

TEST(Report, WhatWasNotMeasuredMeetsNoTarget) {
  Figure figure = Memory(0);
  figure.value = {};
  EXPECT_EQ(figure.Met(), false);
  figure = Acquire(0.001);
  figure.against->value = {};
  EXPECT_EQ(figure.Met(), false);
  figure.target.reset();
  EXPECT_EQ(figure.Met(), std::nullopt);
}

TEST(Report, OneMissIsNotAllMet) {
  Report report{.figures = {Acquire(0.001), Memory(1 << 20)}};
  EXPECT_TRUE(report.AllMet());
  report.figures.push_back(Acquire(1));
  EXPECT_FALSE(report.AllMet());
}

TEST(Report, TheTableSaysWhatWasMissed) {
  const std::string text = Render({.figures = {Acquire(0.001)}});
  EXPECT_THAT(text, HasSubstr("1.00 ms"));
  EXPECT_THAT(text, HasSubstr("3000x"));
  EXPECT_THAT(text, HasSubstr(">= 300x"));
  EXPECT_THAT(text, HasSubstr("ok"));
  EXPECT_THAT(text, Not(HasSubstr("MISSED")));
  EXPECT_THAT(Render({.figures = {Memory(30.0 * (1 << 20))}}),
              HasSubstr("15.00%  <= 10.00%  MISSED"));
}

TEST(Report, SurvivesItsJson) {
  Report report{.figures = {Acquire(0.001), Memory(30.0 * (1 << 20))}};
  report.environment = {.cpu = "a CPU",
                        .cores = 2,
                        .kernel = "Linux 6",
                        .accelerator = "tcg",
                        .qemu = "QEMU 7.2",
                        .load = "0 0 0",
                        .memory_mib = 24105};
  report.notes = {"a note"};
  const auto read = FromJsonText(ToJsonText(report));
  ASSERT_TRUE(read.has_value()) << ToString(read.error());
  EXPECT_EQ(Render(*read), Render(report));
  EXPECT_EQ(ToJsonText(*read), ToJsonText(report));
}

TEST(Report, RefusesWhatIsNoReport) {
  for (const char* text : {"", "{", "[]", "7", "{}", R"({"version": 2})", R"({"version": "1"})",
                           R"({"version": 1, "environment": []})"}) {
    EXPECT_FALSE(FromJsonText(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace hatchery::bench::old
