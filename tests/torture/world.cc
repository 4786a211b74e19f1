#include "tests/torture/world.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <ctime>
#include <map>
#include <sstream>

#include "base/fd.h"

namespace hatchery::torture {

namespace {

namespace fs = std::filesystem;

// What can be read of it: a process may end in the midst of that.
std::string Slurp(const fs::path& path) {
  std::string text;
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  for (ssize_t n; file && (n = ::read(file.get(), buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return text;
}

std::vector<pid_t> Pids() {
  std::vector<pid_t> pids;
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    pid_t pid = 0;
    const auto [last, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad == std::errc() && last == name.data() + name.size()) pids.push_back(pid);
  }
  return pids;
}

struct Stat {
  char state = '?';
  pid_t parent = 0;
  std::uint64_t start = 0;
};

// proc(5): the name in parentheses may hold anything, so fields are counted from the last one.
std::optional<Stat> ReadStat(pid_t pid) {
  const std::string text = Slurp("/proc/" + std::to_string(pid) + "/stat");
  const auto close = text.rfind(')');
  if (close == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(close + 1));
  Stat stat;
  std::string skipped;
  fields >> stat.state >> stat.parent;
  constexpr int kFirst = 5, kStartTime = 22;
  for (int field = kFirst; field < kStartTime; ++field) fields >> skipped;
  fields >> stat.start;
  if (!fields) return std::nullopt;
  return stat;
}

bool IsEnded(const Stat& stat) { return stat.state == 'Z' || stat.state == 'X'; }

// Its command line, with blanks between the arguments.
std::string CommandOf(pid_t pid) {
  std::string text = Slurp("/proc/" + std::to_string(pid) + "/cmdline");
  for (char& c : text) {
    if (c == '\0') c = ' ';
  }
  return text;
}

std::string Show(pid_t pid) {
  return "pid " + std::to_string(pid) + ": " + CommandOf(pid).substr(0, 160);
}

std::vector<std::string> LinesThatName(const fs::path& table, const std::string& needle) {
  std::vector<std::string> found;
  std::istringstream lines(Slurp(table));
  for (std::string line; std::getline(lines, line);) {
    if (line.find(needle) != std::string::npos) found.push_back(table.string() + ": " + line);
  }
  return found;
}

void AddDescendants(const std::set<pid_t>& known, std::vector<std::string>& found) {
  std::map<pid_t, Stat> all;
  for (const pid_t pid : Pids()) {
    if (const auto stat = ReadStat(pid)) all[pid] = *stat;
  }
  for (const auto& [pid, stat] : all) {
    if (IsEnded(stat) || known.contains(pid)) continue;
    // Up the tree, as far as it goes.
    pid_t above = stat.parent;
    for (std::size_t i = 0; i < all.size() && above > 1 && above != ::getpid(); ++i) {
      if (known.contains(above)) break;
      const auto next = all.find(above);
      above = next == all.end() ? 0 : next->second.parent;
    }
    if (above == ::getpid()) found.push_back("a process is left, " + Show(pid));
  }
}

void AddEntries(const fs::path& folder, const std::string& prefix, const std::string& what,
                std::vector<std::string>& found) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with(prefix)) {
      found.push_back(what + " is left: " + it->path().string());
    }
  }
}

void AddControlGroups(const std::set<std::string>& vms, std::vector<std::string>& found) {
  std::error_code error;
  const auto options = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator it("/sys/fs/cgroup", options, error), end;
       !error && it != end; it.increment(error)) {
    if (it->is_directory(error) && vms.contains(it->path().filename().string())) {
      found.push_back("a control group is left: " + it->path().string());
    }
  }
}

}  // namespace

std::optional<Alive> LookAt(pid_t pid) {
  const auto stat = ReadStat(pid);
  if (!stat || IsEnded(*stat)) return std::nullopt;
  return Alive{pid, stat->start};
}

std::vector<Vmm> FindVmms(const fs::path& state_dir) {
  std::vector<Vmm> found;
  const std::string needle = (state_dir / "vms").string() + "/";
  for (const pid_t pid : Pids()) {
    if (pid == ::getpid()) continue;
    const std::string command = CommandOf(pid);
    const auto at = command.find(needle);
    if (at == std::string::npos) continue;
    const auto from = at + needle.size();
    const auto alive = LookAt(pid);
    if (alive) {
      found.push_back({*alive, command.substr(from, command.find_first_of("/, ", from) - from)});
    }
  }
  return found;
}

std::int64_t SinceBootNs() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void AdoptOrphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

void ReapOrphans(const std::set<pid_t>& known) {
  for (const pid_t pid : Pids()) {
    const auto stat = ReadStat(pid);
    if (stat && stat->state == 'Z' && stat->parent == ::getpid() && !known.contains(pid)) {
      ::waitpid(pid, nullptr, WNOHANG);
    }
  }
}

std::vector<std::string> FindLeftOvers(const fs::path& state_dir, const std::set<std::string>& vms,
                                       const std::set<pid_t>& known) {
  std::vector<std::string> found;
  for (const Vmm& vmm : FindVmms(state_dir)) {
    found.push_back("a VMM is left, " + Show(vmm.process.pid));
  }
  AddDescendants(known, found);
  AddControlGroups(vms, found);
  AddEntries(state_dir / "vms", "", "a VM's folder", found);
  AddEntries(state_dir / "templates", ".", "an unfinished template", found);
  const std::string below = state_dir.string() + "/";
  for (const char* table : {"/proc/net/unix", "/proc/self/mountinfo"}) {
    for (auto& line : LinesThatName(table, below)) found.push_back("still there, " + line);
  }
  return found;
}

}  // namespace hatchery::torture
