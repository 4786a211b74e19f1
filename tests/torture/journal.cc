#include "tests/torture/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "tests/torture/world.h"

namespace hatchery::torture {

Journal::Journal(const std::filesystem::path& path)
    : file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) {}

void Journal::Write(Json line) {
  line["at"] = SinceBootNs();
  const std::string text = DumpJson(line) + "\n";
  if (::write(file_.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) return;
  std::perror("a journal cannot be written, so nothing can be proven");
  std::abort();
}

std::vector<Json> ReadJournal(const std::filesystem::path& path) {
  std::vector<Json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (auto json = ParseJson(line, "a journal's line")) lines.push_back(*std::move(json));
  }
  return lines;
}

std::vector<Json> ReadJournals(const std::filesystem::path& folder) {
  std::multimap<std::int64_t, Json> by_time;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    for (Json& line : ReadJournal(entry.path())) {
      const auto at = line.value("at", std::int64_t{0});
      by_time.emplace(at, std::move(line));
    }
  }
  std::vector<Json> lines;
  for (auto& [at, line] : by_time) lines.push_back(std::move(line));
  return lines;
}

}  // namespace hatchery::torture
