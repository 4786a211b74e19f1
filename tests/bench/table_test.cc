#include "bench/table.h"

#include <gmock/gmock.h>

#include <sstream>

#include "tests/bench/sample_report.h"

namespace hatchery::bench {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

std::size_t Width(const std::string& line) {
  return static_cast<std::size_t>(std::ranges::count_if(
      line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

TEST(Table, FitsItsWidth) {
  std::istringstream lines(RenderTable(SampleReport()));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(Width(line), static_cast<std::size_t>(kTableWidth)) << line;
  }
}

TEST(Table, FitsItsWidthWithLongNamesAndNotes) {
  Report report = SampleReport();
  for (Section& section : report.sections) {
    for (Series& series : section.series) series.name += std::string(80, 'x');
    for (Figure& figure : section.figures) figure.name += std::string(80, 'y');
    for (Curve& curve : section.curves) curve.name += std::string(80, 'z');
    section.notes = {"a note"};
    for (int i = 0; i < 50; ++i) section.notes[0] += " of many words";
  }
  report.command = "hatchery bench";
  for (int i = 0; i < 50; ++i) report.command += " --option";
  std::istringstream lines(RenderTable(report));
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" targets met") != std::string::npos) break;  // names in full from here on
    EXPECT_LE(Width(line), static_cast<std::size_t>(kTableWidth)) << line;
  }
}

TEST(Table, HasEverySeriesAndFigure) {
  const Report report = SampleReport();
  const std::string text = RenderTable(report);
  for (const Section& section : report.sections) {
    EXPECT_THAT(text, HasSubstr("== " + section.benchmark));
    for (const Series& series : section.series) EXPECT_THAT(text, HasSubstr(series.name));
    for (const Curve& curve : section.curves) EXPECT_THAT(text, HasSubstr(curve.name));
    for (const Figure& figure : section.figures) {
      EXPECT_THAT(text, HasSubstr(figure.name.substr(0, 33)));
    }
  }
  for (const auto& value : {report.environment.cpu, report.environment.vmm, report.command}) {
    EXPECT_THAT(text, HasSubstr(value));
  }
}

Report One(double value, Target target, std::vector<double> against = {1}) {
  return {.sections = {{.benchmark = "b",
                        .series = {{.key = "v", .name = "value", .samples = {value}},
                                   {.key = "a", .name = "other", .samples = std::move(against)}},
                        .figures = {{.key = "f",
                                     .name = "the figure",
                                     .value = {"v"},
                                     .against = Number{"a"},
                                     .target = target}}}}};
}

TEST(Table, SaysWhatWasMissedAndByHowMuch) {
  std::string text = RenderTable(One(1.5, {Target::Is::kAtMost, 1.5}));
  EXPECT_THAT(text, ContainsRegex("1\\.50x +<= 1\\.5x +ok\n"));
  EXPECT_THAT(text, HasSubstr("1 of 1 targets met\n"));
  text = RenderTable(One(3, {Target::Is::kAtMost, 1.5}));
  EXPECT_THAT(text, ContainsRegex("3\\.00x +<= 1\\.5x +MISSED by 2\\.00x\n"));
  EXPECT_THAT(text, HasSubstr("0 of 1 targets met; missed: b: the figure\n"));
  EXPECT_THAT(RenderTable(One(3, {Target::Is::kAtMost, 1.5}, {})),
              ContainsRegex("not measured +- +<= 1\\.5x +MISSED"));
}

TEST(Table, SharesArePercent) {
  EXPECT_THAT(RenderTable(One(0.075, {Target::Is::kAtMost, 0.08})),
              ContainsRegex("7\\.50% +<= 8% +ok"));
}

TEST(Table, FailuresAreToldWithTheirReason) {
  Report report = One(1, {});
  report.sections[0].series[0].failures = {{"deadline", 3}};
  EXPECT_THAT(RenderTable(report), HasSubstr("failed: value, 3x: deadline\n"));
  EXPECT_THAT(RenderTable(report), ContainsRegex("value +1 +3 +1\\.00 s"));
}

TEST(Table, PercentilesNeedTheirSamples) {
  EXPECT_THAT(RenderTable(One(1, {})),
              ContainsRegex("value +1 +0 +1\\.00 s +1\\.00 s +- +- +- +- +1\\.00 s\n"));
}

TEST(Table, WhatStandsInForAPercentileIsCalledSo) {
  Report report = One(1, {});
  report.sections[0].figures[0].value.statistic = Statistic::kP99;
  EXPECT_THAT(RenderTable(report), HasSubstr("max 1.00 s"));
  report.sections[0].series[0].samples.resize(100, 1);
  EXPECT_THAT(RenderTable(report), HasSubstr("p99 1.00 s"));
}

TEST(Table, SteersNoTerminal) {
  Report report = One(1, {});
  report.command = "a\033[2Jb";
  report.sections[0].benchmark = "c\033d";
  report.sections[0].notes = {"e\033f"};
  report.sections[0].series[0].name = "g\033h";
  report.sections[0].series[0].failures = {{"i\033j", 1}};
  report.sections[0].parameters = {{"k\033", "l\033"}};
  report.sections[0].figures[0].name = "m\033n";
  report.sections[0].curves = {
      {.name = "o\033", .plot = "p\033", .x = "q\033", .y = "r\033", .points = {{1, 1}}}};
  report.environment.cpu = "s\033t";
  EXPECT_THAT(RenderTable(report), Not(HasSubstr("\033")));
}

}  // namespace
}  // namespace hatchery::bench
