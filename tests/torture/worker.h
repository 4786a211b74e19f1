// One client of the torture, a process of its own: acquires, runs commands, renews, releases,
// cancels and retries as its dice say, until SIGTERM; then asks again for what it never got an
// answer about, looks at all that it holds and gives it back.
//
// It may be killed at any time. Started again under its name, it goes on from its journal.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

namespace hatchery::torture {

struct WorkerOptions {
  std::string name;
  std::uint64_t seed = 0;
  std::string socket;
  std::filesystem::path journals;
  // Real guests take as many milliseconds as pretended ones take microseconds.
  bool real_guests = false;
  // How long to try to give back what is held.
  std::chrono::seconds last_words{60};
};

// The exit code: 1 if something could not be given back.
int RunWorker(const WorkerOptions& options);

}  // namespace hatchery::torture
