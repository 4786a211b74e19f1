#include "bench/outcome.h"

#include <gtest/gtest.h>

namespace hatchery::bench {
namespace {

Section WithTwo(std::vector<double> value, std::vector<double> against) {
  return {.benchmark = "b",
          .series = {{.key = "value", .samples = std::move(value)},
                     {.key = "against", .samples = std::move(against)}}};
}

Figure AgainstOther(Target target, bool inverse = false) {
  return {.key = "f",
          .value = {"value"},
          .against = Number{"against"},
          .inverse = inverse,
          .target = target};
}

constexpr Target kAtMost2 = {Target::Is::kAtMost, 2};
constexpr Target kAtLeast2 = {Target::Is::kAtLeast, 2};

TEST(Outcome, TheRatioIsValueByAgainst) {
  const auto outcome = Evaluate(WithTwo({6}, {4}), AgainstOther(kAtMost2));
  EXPECT_EQ(outcome.value, 6);
  EXPECT_EQ(outcome.against, 4);
  EXPECT_EQ(outcome.ratio, 1.5);
  EXPECT_EQ(outcome.met, true);
  EXPECT_EQ(outcome.missed_by, std::nullopt);
}

TEST(Outcome, TheInverseIsHowManyTimesFaster) {
  EXPECT_EQ(Evaluate(WithTwo({4}, {6}), AgainstOther(kAtLeast2, true)).ratio, 1.5);
}

TEST(Outcome, TheLimitItselfIsMet) {
  EXPECT_EQ(Evaluate(WithTwo({4}, {2}), AgainstOther(kAtMost2)).met, true);
  EXPECT_EQ(Evaluate(WithTwo({4}, {2}), AgainstOther(kAtLeast2)).met, true);
}

TEST(Outcome, SaysHowFarOffAMissedOneIs) {
  auto outcome = Evaluate(WithTwo({6}, {2}), AgainstOther(kAtMost2));
  EXPECT_EQ(outcome.met, false);
  EXPECT_EQ(outcome.missed_by, 1.5);
  outcome = Evaluate(WithTwo({1}, {1}), AgainstOther(kAtLeast2));
  EXPECT_EQ(outcome.met, false);
  EXPECT_EQ(outcome.missed_by, 2);
}

TEST(Outcome, AgainstNothingTheValueItselfIsHeld) {
  Figure figure{.key = "f", .value = {"value", Statistic::kSum}, .target = kAtMost2};
  EXPECT_EQ(Evaluate(WithTwo({1, 1}, {}), figure).met, true);
  EXPECT_EQ(Evaluate(WithTwo({1, 2}, {}), figure).met, false);
  EXPECT_EQ(Evaluate(WithTwo({1, 2}, {}), figure).ratio, std::nullopt);
}

TEST(Outcome, WhatWasNotMeasuredMeetsNoTarget) {
  EXPECT_EQ(Evaluate(WithTwo({}, {1}), AgainstOther(kAtMost2)).met, false);
  EXPECT_EQ(Evaluate(WithTwo({1}, {}), AgainstOther(kAtMost2)).met, false);
  EXPECT_EQ(Evaluate(WithTwo({1}, {0}), AgainstOther(kAtMost2)).met, false);
  EXPECT_EQ(Evaluate({.benchmark = "b"}, AgainstOther(kAtMost2)).met, false);
  Figure figure = AgainstOther(kAtMost2);
  figure.target.reset();
  EXPECT_EQ(Evaluate(WithTwo({}, {}), figure).met, std::nullopt);
}

TEST(Outcome, TheIntervalIsOfTheRatioAsItStands) {
  const std::vector<double> small(10, 2), large(10, 6);
  auto outcome = Evaluate(WithTwo(large, small), AgainstOther(kAtMost2));
  ASSERT_TRUE(outcome.interval.has_value());
  EXPECT_EQ(outcome.interval->low, 3);
  outcome = Evaluate(WithTwo(small, large), AgainstOther(kAtMost2, true));
  EXPECT_EQ(outcome.interval->high, 3);
  Figure sums = AgainstOther(kAtMost2);
  sums.value.statistic = Statistic::kSum;
  EXPECT_FALSE(Evaluate(WithTwo(large, small), sums).interval.has_value());
}

TEST(Outcome, CountsTargetsOnly) {
  Section section = WithTwo({3}, {1});
  section.figures = {AgainstOther(kAtMost2), AgainstOther(kAtLeast2), AgainstOther(kAtLeast2)};
  section.figures[2].target.reset();
  Tally tally = CountTargets({.sections = {section}});
  EXPECT_EQ(tally.targets, 2);
  EXPECT_EQ(tally.met, 1);
  EXPECT_FALSE(tally.AllMet());
  EXPECT_TRUE(CountTargets({}).AllMet());
}

}  // namespace
}  // namespace hatchery::bench
