#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <set>
#include <sstream>

#include "base/confine.h"
#include "base/files.h"
#include "base/notifier.h"

namespace hatchery {

std::string ToString(const ExitStatus& status) {
  switch (status.how) {
    case ExitStatus::How::kExited: return "exit code " + std::to_string(status.value);
    case ExitStatus::How::kSignalled: return std::string("signal ") + strsignal(status.value);
    case ExitStatus::How::kUnknown: return "exit status unknown";
  }
  return "exit status unknown";
}

Result<ProcessIdentity> IdentifyProcess(pid_t pid) {
  ASSIGN_OR_RETURN(const std::string stat, ReadFile("/proc/" + std::to_string(pid) + "/stat"));
  // The command name (field 2) may hold spaces and parentheses; what follows its last ')' does not.
  const auto paren = stat.rfind(')');
  if (paren == std::string::npos || paren + 2 >= stat.size()) {
    return Internal("unreadable /proc stat of pid " + std::to_string(pid));
  }
  if (stat[paren + 2] == 'Z' || stat[paren + 2] == 'X') {
    return NotFound("process " + std::to_string(pid) + " has ended");
  }
  std::size_t at = paren + 2;
  constexpr int kFieldsToStartTime = 22 - 3;  // `at` is at field 3
  for (int i = 0; i < kFieldsToStartTime; ++i) {
    at = stat.find(' ', at);
    if (at == std::string::npos)
      return Internal("unreadable /proc stat of pid " + std::to_string(pid));
    ++at;
  }
  ProcessIdentity identity{.pid = pid};
  const auto parsed =
      std::from_chars(stat.data() + at, stat.data() + stat.size(), identity.start_ticks);
  if (parsed.ec != std::errc()) {
    return Internal("unreadable start time of pid " + std::to_string(pid));
  }
  return identity;
}

struct Process::State {
  State(Executor executor, UniqueFd fd) : pidfd(executor, fd.Release()), changed(executor) {}
  asio::posix::stream_descriptor pidfd;
  Notifier changed;
  std::optional<ExitStatus> exit;
  bool watched = false;
  bool dropped = false;  // the Process is gone

  void Reap() {
    exit.emplace();
    // An adopted process may be our child after all, if it was dropped and taken over again.
    siginfo_t info{};
    if (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd.native_handle()), &info,
                 WEXITED) != 0) {
      return;
    }
    exit->how = info.si_code == CLD_EXITED ? ExitStatus::How::kExited : ExitStatus::How::kSignalled;
    exit->value = info.si_status;
  }
};

Process::Process(Executor executor, ProcessIdentity identity, UniqueFd pidfd)
    : identity_(identity), state_(std::make_shared<State>(std::move(executor), std::move(pidfd))) {}

Process::~Process() {
  state_->dropped = true;
  boost::system::error_code ignored;
  state_->pidfd.cancel(ignored);
  state_->changed.NotifyAll();
}

int Process::pidfd() const { return state_->pidfd.native_handle(); }

bool Process::ended() const { return state_->exit.has_value(); }

Result<std::unique_ptr<Process>> Process::Adopt(Executor executor, ProcessIdentity identity) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, identity.pid, 0)));
  // EINVAL: it is a thread's number by now.
  if (!pidfd && errno == EINVAL) {
    return NotFound("pid " + std::to_string(identity.pid) + " is no process's any more");
  }
  if (!pidfd) return ErrnoError(errno, "opening process " + std::to_string(identity.pid));
  // Read after the pidfd is held: from here on the pid cannot change hands unnoticed.
  ASSIGN_OR_RETURN(const ProcessIdentity now, IdentifyProcess(identity.pid));
  if (now != identity) {
    return NotFound("pid " + std::to_string(identity.pid) + " belongs to another process by now");
  }
  return std::make_unique<Process>(std::move(executor), identity, std::move(pidfd));
}

Result<std::unique_ptr<Process>> Process::OfChild(Executor executor, pid_t pid,
                                                  const std::string& name) {
  // Not reaped yet, so neither the pid nor its start time can change hands here.
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const int pidfd_error = errno;
  const auto identity = IdentifyProcess(pid);
  // One that has ended already keeps its pid until it is reaped, and needs no start time. One that
  // lives, and could not be looked at, would be nobody's for the next daemon.
  const bool known = identity || identity.error().code == Code::kNotFound;
  if (!pidfd || !known) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    if (!pidfd) return ErrnoError(pidfd_error, "watching " + name);
    return Annotate(identity.error(), "looking at " + name);
  }
  return std::make_unique<Process>(
      std::move(executor), identity.value_or(ProcessIdentity{.pid = pid}), std::move(pidfd));
}

Result<void> Process::Signal(int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd(), signal, nullptr, 0) != 0) {
    return ErrnoError(errno, "signalling process " + std::to_string(pid()));
  }
  return {};
}

Task<ExitStatus> Process::Wait(Deadline deadline) {
  const auto state = state_;
  const std::string name = "process " + std::to_string(pid());
  while (!state->exit) {
    if (state->dropped) co_return Cancelled("no longer watching " + name);
    if (!state->watched) {
      // One watch for all waiters. (A duplicate of the pidfd for each would stay in the epoll set
      // after its close, since the two share an open file.)
      state->watched = true;
      state->pidfd.async_wait(asio::posix::descriptor_base::wait_read,
                              [state](boost::system::error_code error) {
                                state->watched = false;
                                if (!error) state->Reap();
                                state->changed.NotifyAll();
                              });
    }
    auto changed = co_await state->changed.Wait(deadline);
    if (!changed && !state->exit) co_return Annotate(changed.error(), "waiting for " + name);
  }
  co_return *state->exit;
}

Task<ExitStatus> Process::Kill(Deadline deadline) {
  if (!ended()) (void)Signal(SIGKILL);
  co_return co_await Wait(deadline);
}

namespace {

// posix_spawn's attributes and actions, freed whatever happens.
struct SpawnPlan {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  SpawnPlan() {
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
  }
  ~SpawnPlan() {
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
};

// While it lives, what we start has huge pages off: the setting is inherited through exec, and
// posix_spawn(3) has no attribute for it. That ours are off for a moment, too, changes nothing.
class WithoutHugePages {
 public:
  explicit WithoutHugePages(bool wanted) : wanted_(wanted) {
    if (wanted_) ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  }
  ~WithoutHugePages() {
    if (wanted_) ::prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
  }
  WithoutHugePages(const WithoutHugePages&) = delete;
  WithoutHugePages& operator=(const WithoutHugePages&) = delete;

 private:
  bool wanted_;
};

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const auto& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Close-on-exec does not see to it: gRPC accepts its connections without, and a client whose
// connection lives on in a VMM never learns that the daemon has died.
void CloseAllBut(std::vector<int> kept, posix_spawn_file_actions_t* actions) {
  std::ranges::sort(kept);
  int next = STDERR_FILENO + 1;
  for (const int fd : kept) {
    for (; next < fd; ++next) posix_spawn_file_actions_addclose(actions, next);
    next = std::max(next, fd + 1);
  }
  posix_spawn_file_actions_addclosefrom_np(actions, next);
}

}  // namespace

Result<confine::Description> Describe(const Confinement& c) {
  confine::Description d{};
  if (c.cgroups.size() > confine::kMaxCgroups ||
      (c.ids && c.ids->groups.size() > confine::kMaxGroups)) {
    return MakeError(Code::kInvalidArgument, "too many groups to confine a process to");
  }
  if (c.ids) {
    d.change_ids = 1;
    d.uid = c.ids->uid;
    d.gid = c.ids->gid;
    std::ranges::copy(c.ids->groups, d.group);
    d.groups = static_cast<std::uint32_t>(c.ids->groups.size());
  }
  d.no_new_privileges = c.no_new_privileges ? 1 : 0;
  std::ranges::copy(c.cgroups, d.cgroup);
  d.cgroups = static_cast<std::uint32_t>(c.cgroups.size());
  d.core_size = c.core_size.value_or(confine::kAsItIs);
  d.open_files = c.open_files.value_or(confine::kAsItIs);
  d.processes = c.processes.value_or(confine::kAsItIs);
  return d;
}

namespace {

// The file that execvp(3) would run.
Result<std::string> FindInPath(const std::string& name) {
  std::vector<std::string> candidates = {name};
  if (name.find('/') == std::string::npos) {
    candidates.clear();
    const char* path = std::getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "/bin:/usr/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
      candidates.push_back(folder + "/" + name);
    }
  }
  int error = ENOENT;
  for (const auto& candidate : candidates) {
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    if (errno == EACCES) error = EACCES;
  }
  return ErrnoError(error, "starting " + name);
}

// The command that confines itself and becomes the one of `request`.
Result<std::vector<std::string>> ThroughLauncher(const SpawnRequest& request) {
  ASSIGN_OR_RETURN(const auto description, Describe(*request.confinement));
  ASSIGN_OR_RETURN(const std::string program, FindInPath(request.argv[0]));
  const auto launcher = ExecutablePath().parent_path() / "hatchery-launch";
  if (::access(launcher.c_str(), X_OK) != 0) {
    return FailedPrecondition(launcher.string() + " is missing; install it beside the program");
  }
  std::string digits;
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&description);
  for (std::size_t i = 0; i < sizeof(description); ++i) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    digits += {kDigits[bytes[i] >> 4], kDigits[bytes[i] & 0xf]};
  }
  const std::set<int> kept(request.inherit.begin(), request.inherit.end());
  std::string descriptors;
  for (const int fd : kept) descriptors += std::to_string(fd) + ",";
  std::vector<std::string> argv = {launcher, digits, descriptors, program};
  argv.insert(argv.end(), request.argv.begin(), request.argv.end());
  return argv;
}

}  // namespace

Result<std::unique_ptr<Process>> PosixSpawner::Spawn(const SpawnRequest& request) {
  if (request.argv.empty()) return Internal("asked to start a process without a program");
  SpawnPlan plan;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  sigdelset(&all, SIGKILL);
  sigdelset(&all, SIGSTOP);
  posix_spawnattr_setsigmask(&plan.attributes, &none);
  posix_spawnattr_setsigdefault(&plan.attributes, &all);
  short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
  if (request.new_session) flags |= POSIX_SPAWN_SETSID;
  posix_spawnattr_setflags(&plan.attributes, flags);

  const std::pair<int, int> standard[] = {
      {request.stdin_fd, 0}, {request.stdout_fd, 1}, {request.stderr_fd, 2}};
  for (const auto& [source, target] : standard) {
    if (source >= 0) {
      posix_spawn_file_actions_adddup2(&plan.actions, source, target);
    } else {
      posix_spawn_file_actions_addopen(&plan.actions, target, "/dev/null",
                                       target == 0 ? O_RDONLY : O_WRONLY, 0);
    }
  }
  // dup2 of a descriptor onto itself clears its close-on-exec flag in the child (glibc 2.29 on).
  for (int fd : request.inherit) posix_spawn_file_actions_adddup2(&plan.actions, fd, fd);
  std::vector<std::string> command = request.argv;
  std::vector<int> kept = request.inherit;
  if (request.confinement) {
    ASSIGN_OR_RETURN(command, ThroughLauncher(request));
    for (int fd : request.confinement->cgroups) {
      posix_spawn_file_actions_adddup2(&plan.actions, fd, fd);
      kept.push_back(fd);
    }
  }
  CloseAllBut(std::move(kept), &plan.actions);
  posix_spawn_file_actions_addchdir_np(&plan.actions, request.cwd.c_str());

  auto argv = Pointers(command);
  auto env = Pointers(request.env);
  pid_t pid = -1;
  const WithoutHugePages setting(!request.huge_pages);
  const int error =
      posix_spawnp(&pid, argv[0], &plan.actions, &plan.attributes, argv.data(), env.data());
  if (error != 0) return ErrnoError(error, "starting " + request.argv[0]);

  return Process::OfChild(executor_, pid, request.argv[0]);
}

std::vector<std::string> MinimalEnvironment() {
  std::vector<std::string> env;
  for (const char* name : {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR"}) {
    if (const char* value = std::getenv(name)) env.push_back(std::string(name) + "=" + value);
  }
  return env;
}

namespace {

constexpr std::size_t kMaxCommandOutput = 1 << 20;

// Reads to the end, keeping the first kMaxCommandOutput bytes.
asio::awaitable<std::string> Drain(asio::posix::stream_descriptor pipe) {
  std::string kept;
  std::string buffer(16 << 10, '\0');
  for (;;) {
    auto [error, n] =
        co_await pipe.async_read_some(asio::buffer(buffer), asio::as_tuple(asio::use_awaitable));
    if (error) co_return kept;
    kept.append(buffer, 0, std::min(n, kMaxCommandOutput - kept.size()));
  }
}

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "creating a pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

}  // namespace

Task<CommandOutput> RunCommand(ProcessSpawner& spawner, std::vector<std::string> argv,
                               Deadline deadline) {
  const auto executor = co_await asio::this_coro::executor;
  ASSIGN_OR_CO_RETURN(Pipe out, MakePipe());
  ASSIGN_OR_CO_RETURN(Pipe err, MakePipe());
  SpawnRequest request;
  request.argv = argv;
  request.env = MinimalEnvironment();
  request.stdout_fd = out.write.get();
  request.stderr_fd = err.write.get();
  ASSIGN_OR_CO_RETURN(auto process, spawner.Spawn(request));
  out.write.Reset();
  err.write.Reset();

  // The readers run beside the wait; they end when the last writer is gone, or when the scope is
  // cancelled because a grandchild holds the pipe open past the deadline.
  struct Outputs {
    std::string out, err;
  };
  auto outputs = std::make_shared<Outputs>();
  TaskScope readers(executor);
  auto read_into = [](asio::posix::stream_descriptor pipe, std::shared_ptr<Outputs> all,
                      std::string Outputs::* into) -> asio::awaitable<void> {
    (*all).*into = co_await Drain(std::move(pipe));
  };
  readers.Spawn("read stdout", read_into({executor, out.read.Release()}, outputs, &Outputs::out));
  readers.Spawn("read stderr", read_into({executor, err.read.Release()}, outputs, &Outputs::err));

  auto status = co_await process->Wait(deadline);
  if (!status) {
    (void)co_await process->Kill(After(std::chrono::seconds(5)));
    readers.Cancel();
    co_await readers.Join();
    co_return Annotate(status.error(), argv[0]);
  }
  // A grandchild may hold the pipes open: the deadline holds for reading, too.
  TaskScope watchdog(executor);
  watchdog.Spawn("stop reading", [](TaskScope& all, Deadline at) -> asio::awaitable<void> {
    if (co_await SleepFor(at - std::chrono::steady_clock::now())) all.Cancel();
  }(readers, deadline));
  co_await readers.Join();
  watchdog.Cancel();
  co_await watchdog.Join();
  co_return CommandOutput{*status, std::move(outputs->out), std::move(outputs->err)};
}

}  // namespace hatchery
