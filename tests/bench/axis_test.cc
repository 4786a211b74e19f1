#include "bench/axis.h"

#include <gmock/gmock.h>

#include <cmath>

namespace hatchery::bench {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> Labels(const Axis& axis) {
  std::vector<std::string> labels;
  for (const Tick& tick : axis.ticks) {
    if (!tick.label.empty()) labels.push_back(tick.label);
  }
  return labels;
}

void ExpectReadable(const Axis& axis) {
  EXPECT_GE(Labels(axis).size(), 2u);
  EXPECT_LE(Labels(axis).size(), 12u);
  double last = -1;
  for (const Tick& tick : axis.ticks) {
    EXPECT_GE(tick.at, -1e-9);
    EXPECT_LE(tick.at, 1 + 1e-9);
    if (tick.label.empty()) continue;
    EXPECT_GE(tick.at - last, 0.05) << tick.label;
    last = tick.at;
  }
}

TEST(Axis, LogarithmicOnesAreLabelledAtPowersOfTen) {
  const Axis axis = LogAxis(Unit::kSeconds, {0.00021, 2.4});
  EXPECT_THAT(Labels(axis), ElementsAre("1 ms", "10 ms", "100 ms", "1 s"));
  EXPECT_NEAR(axis.place(0.01) - axis.place(0.001), axis.place(1) - axis.place(0.1), 1e-9);
}

TEST(Axis, ShortLogarithmicOnesHaveMoreLabels) {
  EXPECT_THAT(Labels(LogAxis(Unit::kSeconds, {0.0012, 0.09})),
              ElementsAre("1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms", "100 ms"));
}

TEST(Axis, NarrowLogarithmicOnesHaveEvenSteps) {
  EXPECT_THAT(Labels(LogAxis(Unit::kSeconds, {0.322, 0.411})),
              ElementsAre("320 ms", "340 ms", "360 ms", "380 ms", "400 ms", "420 ms"));
}

TEST(Axis, AnyRangeIsReadableAndHoldsItsValues) {
  for (double low = 1e-7; low < 1e7; low *= 3.7) {
    for (const double times : {1.0, 1.001, 1.3, 3.9, 4.1, 30.0, 1e3, 1e6}) {
      const std::vector<double> values = {low, low * times};
      for (const Unit unit : {Unit::kSeconds, Unit::kBytes, Unit::kPerSecond}) {
        for (const Axis& axis : {LogAxis(unit, values), LinearAxis(unit, values)}) {
          SCOPED_TRACE(testing::Message() << low << " x " << times);
          ExpectReadable(axis);
          for (const double value : values) {
            EXPECT_GE(axis.place(value), -1e-9);
            EXPECT_LE(axis.place(value), 1 + 1e-9);
          }
        }
      }
    }
  }
}

TEST(Axis, NothingAndZeroHaveAnAxisToo) {
  for (const std::vector<double>& values : {std::vector<double>{}, {0.0}, {0.0, 0.0}}) {
    ExpectReadable(LogAxis(Unit::kSeconds, values));
    ExpectReadable(LinearAxis(Unit::kBytes, values));
    ExpectReadable(CountAxis(values));
    EXPECT_EQ(LogAxis(Unit::kSeconds, values).place(0), 0);
  }
  ExpectReadable(LinearAxis(Unit::kBytes, {-5, 3}));
}

TEST(Axis, BytesAreInBinaryUnits) {
  EXPECT_THAT(Labels(LinearAxis(Unit::kBytes, {1.9 * (1 << 30)})),
              ElementsAre("0 GiB", "0.5 GiB", "1 GiB", "1.5 GiB", "2 GiB"));
}

TEST(Axis, CountsThatDoubleAreLogarithmic) {
  const Axis axis = CountAxis({1, 2, 4, 8, 16, 32});
  EXPECT_THAT(Labels(axis), ElementsAre("1", "2", "4", "8", "16", "32"));
  EXPECT_NEAR(axis.place(2), 0.2, 1e-9);
  EXPECT_THAT(Labels(CountAxis({10, 1000, 10000})), ElementsAre("10", "1000", "10000"));
}

TEST(Axis, CountsInEvenStepsAreLinear) {
  EXPECT_THAT(Labels(CountAxis({10, 20, 30, 40, 50, 60, 70, 80, 90, 100})),
              ElementsAre("0", "20", "40", "60", "80", "100"));
}

TEST(Axis, PercentilesAreSpreadByWhatLiesBeyond) {
  const Axis axis = PercentileAxis(2000);
  EXPECT_THAT(Labels(axis), ElementsAre("0%", "50%", "90%", "95%", "99%", "99.9%"));
  EXPECT_NEAR(axis.place(0.99) - axis.place(0.9), axis.place(0.999) - axis.place(0.99), 1e-9);
  EXPECT_NEAR(axis.place(ShareOf(2000, 2000)), 1, 1e-9) << "the largest is at the end";
  EXPECT_EQ(ShareOf(99, 100), 0.99) << "p99 of 100 is at 99%";
}

}  // namespace
}  // namespace hatchery::bench
