#include "tests/torture/mischief.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/files.h"
#include "tests/torture/fake_qemu/signals.h"

namespace hatchery::torture {

namespace {

constexpr auto kBallast = "ballast";

// One of the VMMs, in the order of their ids, that is still there when it is looked at closely.
std::optional<Vmm> Choose(Dice& dice, const Site& site) {
  auto all = FindVmms(site.state_dir());
  const auto which = dice.Next();
  if (all.empty()) return std::nullopt;
  std::ranges::sort(all, {}, &Vmm::vm);
  return all[which % all.size()];
}

// Only to the very process: its pid may be another's by now.
void Signal(const Alive& process, int signal) {
  if (LookAt(process.pid) == process) ::kill(process.pid, signal);
}

}  // namespace

void Mischief::Note(const std::string& deed, Json more) {
  more["did"] = deed;
  means_.site.journal().Write(std::move(more));
}

void Mischief::Later(Dice& dice, std::int64_t least_ms, std::int64_t most_ms,
                     std::function<void()> undo) {
  const auto after = std::chrono::milliseconds(dice.Between(least_ms, most_ms));
  undo_.emplace(std::chrono::steady_clock::now() + after, std::move(undo));
}

void Mischief::Undo() {
  while (!undo_.empty() && undo_.begin()->first <= std::chrono::steady_clock::now()) {
    const auto undo = std::move(undo_.begin()->second);
    undo_.erase(undo_.begin());
    undo();
  }
}

void Mischief::EndAll() {
  while (!undo_.empty()) {
    const auto undo = std::move(undo_.begin()->second);
    undo_.erase(undo_.begin());
    undo();
  }
  means_.site.controls().crash_in = 0;
}

void Mischief::Do(std::uint64_t seed, std::uint64_t step) {
  Dice dice(seed, "mischief", step);
  const auto deed = dice.Below(100);
  if (deed < 22) return KillDaemon();
  if (deed < 26) return StopDaemon();
  if (deed < 42) return CrashDaemon(dice);
  if (deed < 45) return PauseDaemon(dice);
  if (deed < 55) return HurtVmm(dice, "kill vmm");
  if (deed < 61) return HurtVmm(dice, "stop vmm");
  if (deed < 73) return HurtAgent(dice);
  if (deed < 79) {
    const auto which = dice.Next();
    Note("kill client");
    return means_.kill_client(which);
  }
  if (deed < 84) return FillDisk(dice);
  if (deed < 89) return RefuseWrites(dice);
  if (deed < 94) return FillDescriptors(dice);
  SetClock(dice);
}

void Mischief::KillDaemon() {
  Note("kill daemon");
  expects_death_ = true;
  (void)means_.site.daemon().Signal(SIGKILL);
}

void Mischief::StopDaemon() {
  Note("stop daemon");
  expects_death_ = true;
  (void)means_.site.daemon().Signal(SIGTERM);
}

void Mischief::CrashDaemon(Dice& dice) {
  const auto writes = static_cast<std::uint32_t>(dice.Between(1, 40));
  Note("crash daemon", {{"half_writes", writes}});
  expects_death_ = true;
  means_.site.controls().crash_in = writes;
}

void Mischief::PauseDaemon(Dice& dice) {
  Note("pause daemon");
  (void)means_.site.daemon().Signal(SIGSTOP);
  Later(dice, 20, 800, [this] {
    if (means_.site.daemon().started()) (void)means_.site.daemon().Signal(SIGCONT);
  });
}

void Mischief::HurtVmm(Dice& dice, const std::string& deed) {
  const auto vmm = Choose(dice, means_.site);
  if (!vmm) return;
  Note(deed, {{"hurts", vmm->vm}, {"pid", vmm->process.pid}});
  if (deed == "kill vmm") return Signal(vmm->process, SIGKILL);
  Signal(vmm->process, SIGSTOP);
  Later(dice, 50, 4000, [process = vmm->process] { Signal(process, SIGCONT); });
}

void Mischief::HurtAgent(Dice& dice) {
  const auto how = dice.Below(3);
  const auto vmm = Choose(dice, means_.site);
  if (!vmm) return;
  if (!means_.pretended_vmms) {
    // The command's parent is the agent.
    const bool kill = how == 0;
    Note(kill ? "kill agent" : "stop agent", {{"hurts", vmm->vm}});
    return means_.run_in_guest(vmm->vm, kill ? "kill -9 $PPID" : "kill -STOP $PPID");
  }
  if (how == 0) {
    Note("garbage from agent", {{"hurts", vmm->vm}});
    return Signal(vmm->process, AgentGarbageSignal());
  }
  if (how == 1) {
    Note("garbage from monitor", {{"hurts", vmm->vm}});
    return Signal(vmm->process, MonitorGarbageSignal());
  }
  Note("agent falls silent", {{"hurts", vmm->vm}});
  Signal(vmm->process, AgentSilentSignal());
  Later(dice, 50, 4000, [process = vmm->process] { Signal(process, AgentSpeaksSignal()); });
}

void Mischief::FillDisk(Dice& dice) {
  if (!means_.own_disk) return RefuseWrites(dice);
  Note("fill disk");
  const auto path = means_.site.state_dir() / kBallast;
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  // As large as it gets, in ever smaller pieces.
  off_t size = 0;
  for (off_t piece = off_t{1} << 30; piece >= 4096;) {
    if (::posix_fallocate(file.get(), size, piece) == 0) {
      size += piece;
    } else {
      piece /= 2;
    }
  }
  Later(dice, 50, 1000, [path] { (void)RemoveAll(path); });
}

void Mischief::RefuseWrites(Dice& dice) {
  Note("refuse writes");
  means_.site.controls().refuse_writes = 1;
  Later(dice, 20, 1000, [this] { means_.site.controls().refuse_writes = 0; });
}

void Mischief::FillDescriptors(Dice& dice) {
  const pid_t pid = means_.site.daemon().pid();
  std::error_code error;
  std::size_t open = 0;
  for (std::filesystem::directory_iterator it("/proc/" + std::to_string(pid) + "/fd", error), end;
       !error && it != end; it.increment(error)) {
    ++open;
  }
  const auto room = static_cast<std::size_t>(dice.Between(0, 6));
  Note("fill descriptors", {{"open", open}, {"room", room}});
  rlimit limit{};
  if (::prlimit(pid, RLIMIT_NOFILE, nullptr, &limit) != 0) return;
  const rlimit tight{.rlim_cur = open + room, .rlim_max = limit.rlim_max};
  ::prlimit(pid, RLIMIT_NOFILE, &tight, nullptr);
  Later(dice, 50, 1500, [this, pid, limit] {
    if (means_.site.daemon().pid() == pid) ::prlimit(pid, RLIMIT_NOFILE, &limit, nullptr);
  });
}

void Mischief::SetClock(Dice& dice) {
  constexpr std::int64_t kSecond = 1'000'000'000, kMostSeconds = 100'000;
  const auto offset = dice.Between(-kMostSeconds, kMostSeconds);
  Note("set clock", {{"offset_s", offset}});
  means_.site.controls().wall_offset_ns = offset * kSecond;
}

}  // namespace hatchery::torture
