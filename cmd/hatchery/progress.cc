#include "cmd/hatchery/progress.h"

#include "base/bytes.h"
#include "cmd/hatchery/table.h"

namespace hatchery::cli {

std::string ToText(const v1::Progress& progress) {
  std::string text = Printable(progress.step());
  if (progress.done() == 0 && progress.total() == 0) return text;
  const bool bytes = progress.unit() == "bytes";
  auto amount = [&](std::uint64_t n) { return bytes ? ToString(Bytes(n)) : std::to_string(n); };
  text += ": " + amount(progress.done());
  if (progress.total() != 0) text += " of " + amount(progress.total());
  if (!bytes && !progress.unit().empty()) text += " " + Printable(progress.unit());
  return text;
}

ProgressPrinter::~ProgressPrinter() {
  if (terminal_ && !last_.empty()) out_ << "\r\033[K" << std::flush;
}

void ProgressPrinter::Show(std::string step) {
  v1::Progress progress;
  progress.set_step(std::move(step));
  Show(progress);
}

void ProgressPrinter::Show(const v1::Progress& progress) {
  const std::string text = ToText(progress);
  // What a line must differ in from the one before it to be worth printing.
  std::string key = text;
  if (!terminal_ && progress.unit() == "bytes") {
    const double part = progress.total() == 0 ? 0
                                              : static_cast<double>(progress.done()) /
                                                    static_cast<double>(progress.total());
    key = progress.step() + std::to_string(static_cast<int>(part * 4));
  }
  if (key == last_) return;
  last_ = key;
  if (terminal_) {
    out_ << "\r\033[K" << text << std::flush;
  } else {
    out_ << text << std::endl;
  }
}

}  // namespace hatchery::cli
