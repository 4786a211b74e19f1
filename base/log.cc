#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace hatchery::log {

namespace {

std::atomic<Format> g_format = Format::kText;

spdlog::level::level_enum ToSpdlog(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarning: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

void Configure(Level level, Format format) {
  auto logger = std::make_shared<spdlog::logger>("hatchery",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(ToSpdlog(level));
  logger->flush_on(spdlog::level::debug);
  // In JSON, the whole line is the payload: the fields need escaping that a pattern cannot do.
  logger->set_pattern(format == Format::kJson ? "%v" : "%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  g_format = format;
  spdlog::set_default_logger(std::move(logger));
}

void Write(Level level, const Fields& fields, std::string_view message) {
  auto* logger = spdlog::default_logger_raw();
  const auto spdlog_level = ToSpdlog(level);
  if (!logger->should_log(spdlog_level)) return;
  const std::pair<std::string_view, std::string_view> named[] = {
      {"vm", fields.vm}, {"request", fields.request}, {"template", fields.tmpl}};
  if (g_format == Format::kJson) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    nlohmann::ordered_json line;
    line["time_unix_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
    line["level"] = spdlog::level::to_string_view(spdlog_level).data();
    line["message"] = message;
    for (const auto& [name, value] : named) {
      if (!value.empty()) line[std::string(name)] = value;
    }
    logger->log(spdlog_level, "{}",
                line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  std::string text(message);
  for (const auto& [name, value] : named) {
    if (!value.empty()) text.append(" ").append(name).append("=").append(value);
  }
  logger->log(spdlog_level, "{}", text);
}

}  // namespace hatchery::log
