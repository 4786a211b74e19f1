// The benchmarks on a real QEMU, each with the smallest plan there is: for their logic, never for
// their numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "base/files.h"
#include "bench/benchmark.h"

namespace hatchery::bench {
namespace {

using testing::Each;
using testing::Ge;
using testing::Gt;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class BenchTest : public testing::Test {
 protected:
  // Everything a benchmark makes is below a folder of this test.
  BenchTest() { ::setenv("TMPDIR", dir_.path().c_str(), /*overwrite=*/1); }
  ~BenchTest() override { ::unsetenv("TMPDIR"); }

  void TearDown() override {
    for (const auto& entry : fs::directory_iterator(dir_.path())) {
      EXPECT_EQ(entry.path(), wrapper()) << "left behind";
    }
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const auto command = ReadFile(entry.path() / "cmdline");
      if (!command) continue;
      EXPECT_THAT(*command, testing::Not(HasSubstr((dir_.path() / "hatchery-bench-").string())))
          << "still runs: " << entry.path();
    }
  }

  bench::Setup MakeSetup() {
    const char* image = std::getenv("HATCHERY_TEST_IMAGE_DIR");
    return {.image_dir = image != nullptr ? image : "/HATCHERY_TEST_IMAGE_DIR is not set",
            .daemon = ExecutablePath().parent_path() / "hatcheryd",
            .accelerator = "tcg",
            .interrupt = interrupt_,
            .say = [this](const std::string& text) { OnSaid(text); },
            .environment = environment_};
  }
  void OnSaid(const std::string& text) {
    said_.push_back(text);
    if (on_said_) on_said_(text);
  }

  fs::path wrapper() const { return dir_.path() / "qemu"; }
  fs::path broken() const { return dir_.path() / "broken"; }
  // A QEMU that clones no more once the file broken() exists.
  void WrapQemu() {
    std::ofstream script(wrapper());
    script << "#!/bin/sh\n"
           << "case \"$*\" in *\"-incoming defer\"*) [ ! -e " << broken().string()
           << " ] || exit 1;; esac\n"
           << "exec qemu-system-x86_64 \"$@\"\n";
    script.close();
    // VMMs are users of their own, who have to find it.
    constexpr auto kForAll = static_cast<fs::perms>(0755);
    fs::permissions(wrapper(), kForAll);
    fs::permissions(dir_.path(), kForAll);
  }

  static const Series& Of(const Section& section, const std::string& key) {
    const auto found = std::ranges::find(section.series, key, &Series::key);
    if (found == section.series.end()) throw std::runtime_error("no series " + key);
    return *found;
  }
  static double Only(const Section& section, const std::string& key) {
    return Of(section, key).samples.at(0);
  }
  // What holds for every section: values are positive, nothing failed, and figures are of series
  // that there are.
  static void ExpectSound(const Section& section) {
    for (const auto& series : section.series) {
      EXPECT_THAT(series.samples, testing::Not(IsEmpty())) << series.key;
      EXPECT_THAT(series.failures, IsEmpty()) << series.key;
      // A paused VM may use no CPU time at all.
      if (series.key.ends_with("cpu_idle")) {
        EXPECT_THAT(series.samples, Each(Ge(0.0))) << series.key;
      } else {
        EXPECT_THAT(series.samples, Each(Gt(0.0))) << series.key;
      }
    }
    EXPECT_THAT(section.figures, testing::Not(IsEmpty()));
    for (const auto& figure : section.figures) {
      EXPECT_NO_THROW(Of(section, figure.value.series)) << figure.key;
      if (figure.against) EXPECT_NO_THROW(Of(section, figure.against->series)) << figure.key;
    }
    EXPECT_THAT(section.notes, testing::Not(IsEmpty()));
  }

  TempDir dir_ = TempDir::Create("/tmp", "hb-").value();
  cli::Interrupt interrupt_;
  Environment environment_;
  std::vector<std::string> said_;
  std::function<void(const std::string&)> on_said_;
};

TEST_F(BenchTest, ColdStartTakesAllKindsInTurn) {
  const auto section =
      MeasureColdStart(MakeSetup(), {.samples = 1, .cold_boots = 1, .warm_ups = 1, .burst = 2});
  ASSERT_TRUE(section.has_value()) << ToString(section.error());
  EXPECT_EQ(section->benchmark, "cold-start");
  EXPECT_EQ(section->parameters.at("samples"), "1");
  ExpectSound(*section);
  for (const auto& series : section->series) {
    const bool cold = series.key.starts_with("cold"), burst = series.key.starts_with("burst");
    EXPECT_THAT(series.samples, SizeIs(burst ? 2 : 1)) << series.key;
    EXPECT_EQ(series.warm_up, cold || burst ? 0u : 1u) << series.key;
  }
  // Each of these is a part of the next.
  for (const char* key : {"cold", "clone", "acquire"}) {
    EXPECT_LT(Only(*section, key), Only(*section, std::string(key) + ".first_exec")) << key;
    EXPECT_LT(Only(*section, std::string(key) + ".first_exec"),
              Only(*section, std::string(key) + ".tenth_exec"));
  }
  EXPECT_LT(Only(*section, "acquire.personalize"), Only(*section, "acquire.inside"));
  EXPECT_LT(Only(*section, "acquire.inside"), Only(*section, "acquire"));
  EXPECT_LT(Only(*section, "bare.greeting"), Only(*section, "bare"));
  EXPECT_LT(Only(*section, "clone.loaded"), Only(*section, "clone"));
  EXPECT_LE(Only(*section, "clone.loaded_cpu"), Only(*section, "clone.warm_cpu"));
  EXPECT_LT(Only(*section, "burst.acquire"), Only(*section, "burst.first_exec"));
  EXPECT_EQ(environment_.accelerator, "tcg");
  EXPECT_THAT(environment_.vmm, HasSubstr("QEMU"));
  EXPECT_THAT(environment_.template_digest, SizeIs(64));
}

TEST_F(BenchTest, BurstRefillsThePool) {
  const auto section = MeasureBurst(MakeSetup(), {.size = 2, .rounds = 1, .singles = 1});
  ASSERT_TRUE(section.has_value()) << ToString(section.error());
  ExpectSound(*section);
  EXPECT_THAT(Of(*section, "single").samples, SizeIs(1));
  EXPECT_EQ(Of(*section, "single").warm_up, 1u);
  EXPECT_THAT(Of(*section, "burst").samples, SizeIs(2));
  EXPECT_THAT(Of(*section, "refill").samples, SizeIs(1));
  EXPECT_THAT(Of(*section, "bare_batch").samples, SizeIs(1));
  EXPECT_GT(Only(*section, "refill"), Only(*section, "burst"));
}

TEST_F(BenchTest, DensityGrowsStepByStep) {
  const auto section = MeasureDensity(MakeSetup(), {.max_vms = 2, .step = 1, .cold_boots = 1});
  ASSERT_TRUE(section.has_value()) << ToString(section.error());
  ExpectSound(*section);
  EXPECT_THAT(Of(*section, "warm.private").samples, SizeIs(2));
  EXPECT_THAT(Of(*section, "used.pss").samples, SizeIs(2));
  EXPECT_THAT(Of(*section, "template").samples, SizeIs(1));
  EXPECT_THAT(Of(*section, "cold.private").samples, SizeIs(1));
  // A VM that shares nothing costs more than one that shares its template.
  EXPECT_GT(Only(*section, "cold.private"), Only(*section, "warm.private"));
  ASSERT_THAT(section->curves, SizeIs(10));
  for (const auto& curve : section->curves) {
    ASSERT_THAT(curve.points, SizeIs(2)) << curve.key;
    EXPECT_EQ(curve.points[0].x, 1) << curve.key;
    EXPECT_EQ(curve.points[1].x, 2) << curve.key;
  }
}

TEST_F(BenchTest, ResizeWaitsForTheGuest) {
  const auto section = MeasureResize(MakeSetup(), {.samples = 1, .warm_ups = 0});
  ASSERT_TRUE(section.has_value()) << ToString(section.error());
  ExpectSound(*section);
  for (const auto& series : section->series) EXPECT_THAT(series.samples, SizeIs(1)) << series.key;
  EXPECT_LT(Only(*section, "acquire.background"), Only(*section, "acquire.background.ready"));
  EXPECT_LT(Only(*section, "acquire.resized.vmm"), Only(*section, "acquire.resized"));
  // It has to be found by the guest's kernel first.
  EXPECT_GT(Only(*section, "acquire.resized"), Only(*section, "acquire"));
}

TEST_F(BenchTest, WhatFailsIsCountedAndTheRestMeasured) {
  WrapQemu();
  auto setup = MakeSetup();
  setup.qemu = wrapper();
  on_said_ = [this](const std::string& text) {
    if (text == "round 2 of 2") std::ofstream(broken()) << "";
  };
  const auto section =
      MeasureColdStart(setup, {.samples = 2, .cold_boots = 0, .warm_ups = 0, .burst = 0});
  fs::remove(broken());
  ASSERT_TRUE(section.has_value()) << ToString(section.error());
  EXPECT_THAT(Of(*section, "bare").samples, SizeIs(2));
  EXPECT_THAT(Of(*section, "bare").failures, IsEmpty());
  for (const char* key : {"clone", "clone.tenth_exec", "acquire.sized"}) {
    EXPECT_THAT(Of(*section, key).samples, SizeIs(1)) << key;
    ASSERT_THAT(Of(*section, key).failures, SizeIs(1)) << key;
    EXPECT_EQ(Of(*section, key).failures.begin()->second, 1u) << key;
  }
  EXPECT_THAT(section->notes, testing::Contains(HasSubstr("clone on demand to warm: ")));
}

TEST_F(BenchTest, AnInterruptEndsItAndLeavesNothing) {
  on_said_ = [this](const std::string& text) {
    if (text == "round 1 of 100") interrupt_.Raise(SIGINT);
  };
  const auto section = MeasureColdStart(MakeSetup(), {.warm_ups = 0});
  ASSERT_FALSE(section.has_value());
  EXPECT_EQ(section.error().code, Code::kCancelled);
}

TEST_F(BenchTest, ADaemonThatDoesNotStartIsAnError) {
  auto setup = MakeSetup();
  setup.daemon = "/bin/false";
  const auto section = MeasureBurst(setup, {});
  ASSERT_FALSE(section.has_value());
  EXPECT_THAT(section.error().message, HasSubstr("/bin/false does not serve"));
}

}  // namespace
}  // namespace hatchery::bench
