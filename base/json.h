// JSON without exceptions. The parser is nlohmann's; only files that handle JSON include this.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/status.h"

namespace hatchery {

using Json = nlohmann::ordered_json;

// To copy or to write a value takes stack for each level of it.
inline constexpr int kMaxJsonNesting = 64;

// kInvalidArgument names `what`; also for more than kMaxJsonNesting levels.
inline Result<Json> ParseJson(std::string_view text, std::string_view what) {
  bool too_deep = false;
  const auto limit = [&too_deep](int depth, Json::parse_event_t, const Json&) {
    too_deep = too_deep || depth > kMaxJsonNesting;
    return !too_deep;
  };
  Json json = Json::parse(text, limit, /*allow_exceptions=*/false);
  if (too_deep) {
    return MakeError(Code::kInvalidArgument,
                     std::string(what) + " is JSON that is nested too deep");
  }
  if (json.is_discarded()) {
    return MakeError(Code::kInvalidArgument, std::string(what) + " is not valid JSON");
  }
  return json;
}

// `text` with what is no UTF-8 in it replaced: guests print what they like, protobuf's strings may
// not hold it.
inline std::string ValidUtf8(const std::string& text) {
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace))
      .get<std::string>();
}

// One line of text, whatever bytes the strings hold.
inline std::string DumpJson(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace hatchery
