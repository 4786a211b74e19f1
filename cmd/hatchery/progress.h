// The progress of long work: one line that is rewritten on a terminal, plain lines elsewhere.
#pragma once

#include <hatchery/v1/types.pb.h>

#include <ostream>
#include <string>

namespace hatchery::cli {

// "reading memory: 64 MiB of 256 MiB", "cloning: 2 of 4 vms", "booting".
std::string ToText(const v1::Progress& progress);

class ProgressPrinter {
 public:
  // `out` outlives this; `terminal` says whether it can rewrite a line.
  ProgressPrinter(std::ostream& out, bool terminal) : out_(out), terminal_(terminal) {}
  // Clears the line, so that what is printed next starts clean.
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  // Elsewhere than on a terminal, a step's bytes are told in quarters: a log wants few lines.
  void Show(const v1::Progress& progress);
  // A step of which nothing can be counted.
  void Show(std::string step);

 private:
  std::ostream& out_;
  const bool terminal_;
  std::string last_;
};

}  // namespace hatchery::cli
