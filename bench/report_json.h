// A report as JSON, whole: every raw sample, so that nothing has to be believed, and beside them
// what they come to (summaries, ratios, whether targets were met), so that nothing has to be
// computed. Only the former is read back; the latter is derived again.
//
// The format is bench/report.schema.json, field by field. "version" is raised when a reader of the
// old one would misread the new one; fields that are added do not raise it. Numbers are in the
// series' unit, unrounded.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/status.h"
#include "bench/model.h"

namespace hatchery::bench {

inline constexpr int kReportVersion = 1;
// Most that a reader should take into memory: a report of 100,000 samples has about 2 MiB.
inline constexpr Bytes kMaxReportSize = Bytes::MiB(256);

std::string ToJsonText(const Report& report);

// Never crashes, whatever the text. kInvalidArgument names what is wrong and where:
// "sections[0].series[2].samples[7] is no number". Fields that it does not know are left alone;
// figures speak only of series that are there.
Result<Report> FromJsonText(std::string_view text);

}  // namespace hatchery::bench
