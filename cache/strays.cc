#include "cache/strays.h"

#include "base/files.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

constexpr auto kKillTimeout = std::chrono::seconds(5);
// A template's build whose VMM withstood being killed, for one, leaves its folder.
constexpr auto kLookEvery = std::chrono::minutes(1);
constexpr std::string_view kVmPrefix = "vm-";

}  // namespace

Strays::Strays(Executor executor, hypervisor::Driver& driver, Vms& vms, fs::path run_root)
    : executor_(executor),
      driver_(driver),
      vms_(vms),
      run_root_(std::move(run_root)),
      swept_(executor),
      tasks_(executor) {}

Strays::Found Strays::Find(bool only_with_folders) const {
  Found found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run_root_, ignored)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(kVmPrefix) && !vms_.Knows(VmId(name))) found.folders.insert(name);
  }
  // Looking at every process of a large host takes its time.
  if (only_with_folders && found.folders.empty()) return found;
  for (auto& stray : driver_.FindStrays(run_root_)) {
    if (!vms_.Knows(stray.id)) found.processes.push_back(std::move(stray));
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
  for (const auto& [id, identity] : found.processes) {
    const std::string& name = id.str();
    auto process = Process::Adopt(executor_, identity);
    if (!process) continue;
    log::Info({.vm = name}, "ending a stray VMM, pid " + std::to_string(identity.pid));
    auto ended = co_await (*process)->Kill(After(kKillTimeout));
    if (co_await IsCancelled()) co_return Cancelled("cancelled");
    if (ended) continue;
    log::Error({.vm = name}, "ending a stray VMM: " + ToString(ended.error()));
    found.folders.erase(name);
  }
  driver_.RemoveRemains(run_root_, [this](const VmId& id) { return vms_.Knows(id); });
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
