#include "cache/strays.h"

#include <unistd.h>

#include "base/files.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

constexpr auto kKillTimeout = std::chrono::seconds(5);
// A template's build whose VMM withstood being killed, for one, leaves its folder.
constexpr auto kLookEvery = std::chrono::minutes(1);
constexpr std::string_view kVmPrefix = "vm-";

// The processes whose command line names a file below `root`, by the folder that it is in.
std::multimap<std::string, ProcessIdentity> ProcessesBelow(const fs::path& root) {
  std::multimap<std::string, ProcessIdentity> found;
  const std::string needle = root.string() + "/";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto command = ReadFile(entry.path() / "cmdline");
    if (!command) continue;
    const auto at = command->find(needle);
    if (at == std::string::npos) continue;
    const auto from = at + needle.size();
    const auto folder =
        command->substr(from, command->find_first_of(std::string("/,\0", 3), from) - from);
    const auto identity = IdentifyProcess(std::stoi(name));
    if (identity && identity->pid != ::getpid()) found.emplace(folder, *identity);
  }
  return found;
}

}  // namespace

Strays::Strays(Executor executor, Vms& vms, fs::path run_root)
    : executor_(executor),
      vms_(vms),
      run_root_(std::move(run_root)),
      swept_(executor),
      tasks_(executor) {}

Strays::Found Strays::Find(bool only_with_folders) const {
  Found found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run_root_, ignored)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(kVmPrefix) && !vms_.Knows(name)) found.folders.insert(name);
  }
  // Looking at every process of a large host takes its time.
  if (only_with_folders && found.folders.empty()) return found;
  for (auto& [name, identity] : ProcessesBelow(run_root_)) {
    if (!vms_.Knows(name)) found.processes.emplace(name, identity);
  }
  return found;
}

void Strays::Start() { tasks_.Spawn("sweep strays", Sweep()); }

Task<void> Strays::Swept(Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await swept_.Wait(deadline));
  co_return Result<void>();
}

asio::awaitable<void> Strays::Sweep() {
  (void)co_await End(Find(/*only_with_folders=*/false));
  swept_.Set(true);
  while (co_await SleepFor(kLookEvery)) (void)co_await End(Find(/*only_with_folders=*/true));
}

Task<void> Strays::End(Found found) {
  for (const auto& [name, identity] : found.processes) {
    auto process = Process::Adopt(executor_, identity);
    if (!process) continue;
    log::Info({.vm = name}, "ending a stray VMM, pid " + std::to_string(identity.pid));
    auto ended = co_await (*process)->Kill(After(kKillTimeout));
    if (co_await IsCancelled()) co_return Cancelled("cancelled");
    if (ended) continue;
    log::Error({.vm = name}, "ending a stray VMM: " + ToString(ended.error()));
    found.folders.erase(name);
  }
  for (const auto& name : found.folders) {
    log::Info({.vm = name}, "removing the folder of a VM that is no more");
    if (auto removed = RemoveAll(run_root_ / name); !removed) {
      log::Error({.vm = name}, ToString(removed.error()));
    }
  }
  co_return Result<void>();
}

asio::awaitable<void> Strays::Stop() {
  tasks_.Cancel();
  co_await tasks_.Join();
}

}  // namespace hatchery::cache
