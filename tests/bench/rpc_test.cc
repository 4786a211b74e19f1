// The service's benchmark, small, on a real hatcheryd with its fake driver.
#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "bench/benchmark.h"

namespace hatchery::bench {
namespace {

using testing::HasSubstr;

class RpcBenchmarkTest : public testing::Test {
 protected:
  bench::Setup MakeSetup() {
    return {.image_dir = {},
            .daemon = ExecutablePath().parent_path() / "hatcheryd",
            .interrupt = interrupt_,
            .say =
                [this](const std::string& step) {
                  steps_.push_back(step);
                  if (on_step_) on_step_();
                },
            .environment = environment_};
  }
  static RpcPlan TinyPlan() {
    RpcPlan plan;
    plan.calls = 20;
    plan.concurrency = {1, 3};
    plan.pools = {4, 12};
    plan.rates = {50};
    plan.open_loop = std::chrono::seconds(1);
    return plan;
  }
  cli::Interrupt interrupt_;
  Environment environment_;
  std::vector<std::string> steps_;
  std::function<void()> on_step_;
};

TEST_F(RpcBenchmarkTest, EveryPointHasItsSamplesAndEveryFigureItsSeries) {
  const auto section = MeasureRpc(MakeSetup(), TinyPlan());
  ASSERT_TRUE(section.has_value()) << ToString(section.error());
  std::map<std::string, const Series*> series;
  for (const auto& s : section->series) {
    EXPECT_TRUE(series.emplace(s.key, &s).second) << s.key << " is there twice";
  }
  for (const char* key : {"empty.c1", "acquire.c1", "release.c1", "empty.c3", "acquire.c3",
                          "empty.pool4", "acquire.pool4", "acquire.pool12", "acquire.sustained"}) {
    ASSERT_TRUE(series.contains(key)) << key;
    const Series& s = *series[key];
    std::uint64_t attempts = s.samples.size();
    for (const auto& [reason, count] : s.failures) attempts += count;
    EXPECT_GE(attempts, 20u) << key;
    EXPECT_EQ(s.unit, Unit::kSeconds);
    for (const double sample : s.samples) EXPECT_GT(sample, 0);
  }
  // A pool that is full serves all that a turn takes.
  for (const char* key : {"acquire.c1", "acquire.c3", "acquire.pool4", "acquire.pool12"}) {
    EXPECT_TRUE(series[key]->failures.empty())
        << key << ": " << series[key]->failures.begin()->first;
    EXPECT_GT(series[key]->warm_up, 0u) << key;
  }
  ASSERT_TRUE(series.contains("acquire.rate50"));
  EXPECT_EQ(series["acquire.rate50"]->samples.size(), 50u);
  for (const auto& figure : section->figures) {
    ASSERT_TRUE(series.contains(figure.value.series)) << figure.value.series;
    EXPECT_FALSE(series[figure.value.series]->samples.empty()) << figure.key;
    ASSERT_TRUE(figure.against.has_value());
    ASSERT_TRUE(series.contains(figure.against->series)) << figure.against->series;
    EXPECT_FALSE(series[figure.against->series]->samples.empty()) << figure.key;
  }
  for (const auto& curve : section->curves) EXPECT_EQ(curve.points.size(), 2u) << curve.key;
  EXPECT_EQ(section->curves.size(), 8u);
  EXPECT_EQ(environment_.accelerator, "fake");
  EXPECT_EQ(environment_.template_digest.size(), 64u);
  EXPECT_EQ(section->parameters.at("pools"), "4, 12");
}

TEST_F(RpcBenchmarkTest, AnInterruptEndsItAndLeavesNothing) {
  const TempDir dir = TempDir::Create("/tmp", "hatchery-rpc-").value();
  ASSERT_EQ(::setenv("TMPDIR", dir.path().c_str(), 1), 0);
  on_step_ = [this] {
    if (steps_.size() == 2) interrupt_.Raise(2);
  };
  const auto section = MeasureRpc(MakeSetup(), TinyPlan());
  ASSERT_FALSE(section.has_value());
  EXPECT_EQ(section.error().code, Code::kCancelled) << section.error().message;
  EXPECT_EQ(steps_.size(), 2u) << steps_.back();
  ASSERT_EQ(::unsetenv("TMPDIR"), 0);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST_F(RpcBenchmarkTest, ADaemonThatDoesNotStartIsAnErrorThatSaysSo) {
  auto setup = MakeSetup();
  setup.daemon = "/bin/false";
  const auto section = MeasureRpc(setup, TinyPlan());
  ASSERT_FALSE(section.has_value());
  EXPECT_THAT(section.error().message, HasSubstr("/bin/false"));
}

}  // namespace
}  // namespace hatchery::bench
