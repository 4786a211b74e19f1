#include "hypervisor/qemu/strays.h"

#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "base/files.h"
#include "hypervisor/qemu/command_line.h"

namespace hatchery::hypervisor::qemu {

namespace {

// Whether /proc/PID/exe is `program`, or was until it was replaced on disk.
bool Runs(const fs::path& process, const fs::path& program) {
  constexpr std::string_view kReplaced = " (deleted)";
  std::error_code error;
  std::string running = fs::read_symlink(process / "exe", error);
  if (error) return false;
  if (running.ends_with(kReplaced)) running.resize(running.size() - kReplaced.size());
  const auto canonical = fs::weakly_canonical(program, error);
  return running == program || (!error && running == canonical);
}

// The VM of a command line with zero bytes between its arguments; nothing if it is none of ours.
std::optional<VmId> VmOf(std::string_view line, const fs::path& run_root) {
  const std::string ours = std::string("\0-name\0", 7) + NameOf(run_root / "");
  const auto program_end = line.find('\0');
  if (program_end == std::string_view::npos) return {};
  line.remove_prefix(program_end);
  if (!line.starts_with(ours)) return {};
  line.remove_prefix(ours.size());
  const auto id = line.substr(0, line.find('\0'));
  if (id.empty() || id.find('/') != std::string_view::npos) return {};
  return VmId(std::string(id));
}

}  // namespace

std::vector<Stray> FindVmms(const StraySearch& search) {
  std::vector<Stray> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(search.proc, ignored)) {
    const std::string name = entry.path().filename();
    pid_t pid = -1;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) continue;
    // Who it is comes first: what is read afterwards is then of no later process of this pid, or
    // the pid and start time name nobody any more.
    const auto identity = IdentifyProcess(pid);
    if (!identity) continue;
    const auto line = ReadFile(entry.path() / "cmdline");
    if (!line) continue;
    auto id = VmOf(*line, search.run_root);
    if (!id) continue;
    if (!Runs(entry.path(), search.program) && !(search.vouch && search.vouch(pid))) continue;
    found.push_back({*std::move(id), *identity});
  }
  return found;
}

}  // namespace hatchery::hypervisor::qemu
