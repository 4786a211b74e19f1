// hatcheryd as it is, but for two seams: its metadata store can refuse a write, or end the daemon
// before or after one, and its wall clock can be set. See controls.h.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cmd/hatcheryd/config.h"
#include "cmd/hatcheryd/daemon.h"
#include "tests/torture/controls.h"

namespace hatchery::torture {
namespace {

using cache::KvStore;

// Where to die, as TORTURE_CRASH says it.
struct CrashPoint {
  std::string label;
  std::string when;  // "before" or "after"
  int number = 0;    // the first, the second … write of that label
};

std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

CrashPoint ParseCrashPoint(const std::string& text) {
  const auto first = text.find(':'), second = text.rfind(':');
  if (first == std::string::npos || second == first) return {};
  return {text.substr(0, first), text.substr(first + 1, second - first - 1),
          std::atoi(text.c_str() + second + 1)};
}

class MortalStore final : public KvStore {
 public:
  MortalStore(std::unique_ptr<KvStore> store, Controls* controls)
      : store_(std::move(store)),
        controls_(controls),
        point_(ParseCrashPoint(Variable(kCrashVariable))),
        dropped_(Variable(kDropVariable)) {}

  Result<void> Write(const Batch& batch, cache::Durability durability) override {
    const bool here = batch.label == point_.label && --point_.number == 0;
    const std::uint32_t countdown = CountDown();
    if ((here && point_.when == "before") || countdown == 1) Die(batch.label, "before");
    if (batch.label == dropped_) return {};
    if (controls_ != nullptr && controls_->refuse_writes.load() != 0) {
      return ResourceExhausted("the disk is full, says the torture test");
    }
    auto written = store_->Write(batch, durability);
    if ((here && point_.when == "after") || countdown == 2) Die(batch.label, "after");
    return written;
  }
  Result<std::string> Get(cache::Table table, std::string_view key) const override {
    return store_->Get(table, key);
  }
  Result<std::vector<std::pair<std::string, std::string>>> Scan(cache::Table table) const override {
    return store_->Scan(table);
  }

 private:
  // What is left of the countdown: 1 and 2 mean this write.
  std::uint32_t CountDown() {
    if (controls_ == nullptr) return 0;
    const std::uint32_t left = controls_->crash_in.load();
    if (left == 0) return 0;
    controls_->crash_in.store(left > 2 ? left - 2 : 0);
    return left;
  }
  [[noreturn]] static void Die(std::string_view label, std::string_view when) {
    const std::string line =
        std::string(kCrashWords) + std::string(when) + " " + std::string(label) + "\n";
    (void)!::write(STDERR_FILENO, line.data(), line.size());
    ::kill(::getpid(), SIGKILL);
    for (;;) ::pause();
  }

  std::unique_ptr<KvStore> store_;
  Controls* const controls_;
  CrashPoint point_;
  const std::string dropped_;
};

class SetClock final : public Clock {
 public:
  explicit SetClock(const Controls* controls) : controls_(controls) {}
  WallTime Now() const override {
    const auto offset = std::chrono::nanoseconds(controls_ ? controls_->wall_offset_ns.load() : 0);
    return clock_.Now() + std::chrono::duration_cast<WallTime::duration>(offset);
  }
  std::chrono::nanoseconds SinceBoot() const override { return clock_.SinceBoot(); }

 private:
  SystemClock clock_;
  const Controls* controls_;
};

int Fail(const std::string& why) {
  std::fprintf(stderr, "hatcheryd-torture: %s\n", why.c_str());
  return 1;
}

int Main(int argc, char** argv) {
  auto invocation = daemon::ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc));
  if (!invocation) return Fail(invocation.error().message);
  const auto* config = std::get_if<daemon::Config>(&*invocation);
  if (config == nullptr) return Fail("it only runs the daemon");
  Controls* controls = nullptr;
  if (const std::string path = Variable(kControlsVariable); !path.empty()) {
    auto mapped = MapControls(path);
    if (!mapped) return Fail(mapped.error().message);
    controls = *mapped;
  }
  const SetClock clock(controls);
  daemon::Seams seams;
  seams.clock = &clock;
  seams.wrap_store = [controls](std::unique_ptr<KvStore> store) -> std::unique_ptr<KvStore> {
    return std::make_unique<MortalStore>(std::move(store), controls);
  };
  log::Configure(config->log.level, config->log.format);
  auto ran = daemon::RunDaemon(*config, seams);
  return ran ? 0 : Fail(ran.error().message);
}

}  // namespace
}  // namespace hatchery::torture

int main(int argc, char** argv) { return hatchery::torture::Main(argc, argv); }
