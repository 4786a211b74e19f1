// What a client wrote down, line by line: before each call what it wants, after each reply what it
// got. The checker believes these and the kernel, nothing else. A line is one write(2) at the end
// of the file, so that a SIGKILL leaves whole lines.
//
// Every line has "at", nanoseconds since the host's boot, and one of
//   "call":  acquire, exec, renew, release; about to be made
//   "reply": the same, with "code" (0: OK) and what came back
//   "did":   something else: what the test did to the world, what the daemon's process did
// Lines about a lease have "sandbox", which the client makes up for each lease it wants and gives
// again with each retry: it is the lease's name here.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/json.h"

namespace hatchery::torture {

class Journal {
 public:
  // Goes on at the end of what is there.
  explicit Journal(const std::filesystem::path& path);
  // Adds "at". From any thread.
  void Write(Json line);

 private:
  UniqueFd file_;
};

// The lines of one file, in its order.
std::vector<Json> ReadJournal(const std::filesystem::path& path);

// All lines of all "*.jsonl" files in a folder, in the order of time.
std::vector<Json> ReadJournals(const std::filesystem::path& folder);

}  // namespace hatchery::torture
