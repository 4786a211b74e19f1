#include "bench/compare.h"

#include <gmock/gmock.h>

#include "tests/bench/sample_report.h"

namespace hatchery::bench {
namespace {

using testing::Contains;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(Compare, AReportAndItselfDifferInNothing) {
  const auto comparison = Compare(SampleReport(), SampleReport());
  EXPECT_THAT(comparison.differences, IsEmpty());
  EXPECT_THAT(comparison.only_a, IsEmpty());
  EXPECT_THAT(comparison.only_b, IsEmpty());
  for (const Change& change : comparison.changes) {
    EXPECT_EQ(change.ratio, 1) << change.name;
    EXPECT_EQ(change.verdict, change.a.count < 6 ? Verdict::kTooFew : Verdict::kNoise)
        << change.name;
  }
  std::size_t series = 0;
  for (const auto& section : SampleReport().sections) series += section.series.size();
  EXPECT_EQ(comparison.changes.size(), series);
}

Change Of(const Comparison& comparison, const std::string& name) {
  return *std::ranges::find(comparison.changes, name, &Change::name);
}

TEST(Compare, FindsWhatGotSlowerAndLarger) {
  Report b = SampleReport();
  for (double& sample : b.sections[0].series[2].samples) sample *= 1.3;
  for (double& sample : b.sections[0].series[1].samples) sample /= 1.3;
  for (double& sample : b.sections[2].series[0].samples) sample *= 1.3;
  const auto comparison = Compare(SampleReport(), b);
  const Change acquire = Of(comparison, "acquire from the pool");
  EXPECT_EQ(acquire.verdict, Verdict::kSlower);
  EXPECT_NEAR(*acquire.ratio, 1.3, 1e-9);
  EXPECT_LT(acquire.interval->low, 1.3);
  EXPECT_GT(acquire.interval->high, 1.3);
  EXPECT_EQ(Of(comparison, "clone on demand to agent").verdict, Verdict::kFaster);
  EXPECT_EQ(Of(comparison, "private memory, warm clone").verdict, Verdict::kLarger);
  EXPECT_EQ(Of(comparison, "cold boot to agent").verdict, Verdict::kNoise);
  const std::string text = RenderComparison(comparison);
  EXPECT_THAT(text,
              ContainsRegex("acquire from the pool .* 1\\.30x +1\\.[0-9]+ to 1\\.[0-9]+ +slower"));
  EXPECT_THAT(text, Not(HasSubstr("Only in")));
}

TEST(Compare, SaysWhatIsNotTheSame) {
  Report b = SampleReport();
  b.environment.cpu = "Another CPU";
  b.environment.cores = 64;
  b.environment.accelerator = "kvm";
  b.environment.vmm = "QEMU 9.0";
  b.environment.template_digest = "sha256:b";
  b.environment.load = "9 9 9";
  b.sections[0].parameters["samples"] = "20";
  b.sections[0].parameters.erase("burst");
  const auto comparison = Compare(SampleReport(), b);
  EXPECT_THAT(
      comparison.differences,
      ElementsAre("CPU: Some CPU @ 2.50GHz in A, Another CPU in B", "cores: 2 in A, 64 in B",
                  "accelerator: tcg in A, kvm in B", "VMM: QEMU 7.2.22 in A, QEMU 9.0 in B",
                  HasSubstr("template: sha256:aaa"), "cold-start's burst: 20 in A, nothing in B",
                  "cold-start's samples: 100 in A, 20 in B"));
  EXPECT_THAT(RenderComparison(comparison), HasSubstr("- cores: 2 in A, 64 in B\n"));
}

TEST(Compare, ListsWhatOnlyOneHas) {
  Report b = SampleReport();
  b.sections.pop_back();
  b.sections[0].series[0].key = "other";
  b.sections[0].series[0].name = "the other";
  b.sections[0].series[1].unit = Unit::kBytes;
  const auto comparison = Compare(SampleReport(), b);
  EXPECT_THAT(comparison.only_a,
              ElementsAre("cold-start: cold boot to agent", "cold-start: clone on demand to agent",
                          "resize: acquire with +1 vCPU, +256 MiB",
                          "resize: bare device_add, running guest"));
  EXPECT_THAT(comparison.only_b, Contains("cold-start: the other"));
  EXPECT_THAT(RenderComparison(comparison), HasSubstr("Only in B:\n- cold-start: the other\n"));
}

TEST(Compare, SeriesWithoutSamplesCompareToNothing) {
  Report b = SampleReport();
  b.sections[0].series[2].samples.clear();
  const Change change = Of(Compare(SampleReport(), b), "acquire from the pool");
  EXPECT_EQ(change.ratio, std::nullopt);
  EXPECT_EQ(change.verdict, Verdict::kTooFew);
}

TEST(Compare, NothingInCommonIsSaid) {
  EXPECT_THAT(RenderComparison(Compare({}, {})), HasSubstr("no series in common"));
}

}  // namespace
}  // namespace hatchery::bench
