// Logging with fields: every line about a VM carries its id, every line about a request the
// request's, in text ("… vm=vm-12 request=r1") and in JSON logs alike. Thread-safe.
#pragma once

#include <string_view>

namespace hatchery::log {

enum class Level { kDebug, kInfo, kWarning, kError };
enum class Format { kText, kJson };

// What a line is about; leave out what does not apply.
struct Fields {
  std::string_view vm = {};
  std::string_view request = {};
  std::string_view tmpl = {};  // the template's name or digest
};

// Sets up the process's log, on stderr. Before it is called, lines go to stderr as text.
void Configure(Level level, Format format);

void Write(Level level, const Fields& fields, std::string_view message);

inline void Debug(const Fields& f, std::string_view message) { Write(Level::kDebug, f, message); }
inline void Info(const Fields& f, std::string_view message) { Write(Level::kInfo, f, message); }
inline void Warning(const Fields& f, std::string_view message) {
  Write(Level::kWarning, f, message);
}
inline void Error(const Fields& f, std::string_view message) { Write(Level::kError, f, message); }

}  // namespace hatchery::log
