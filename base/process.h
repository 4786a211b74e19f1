// Child processes: started through one seam, watched through pidfds, never through SIGCHLD.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/status.h"
#include "base/task.h"

namespace hatchery {

// What a child gives up before its program runs.
struct Confinement {
  // Who it becomes; only root may ask for it.
  struct Ids {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  // supplementary, at most 8
  };
  std::optional<Ids> ids;
  bool no_new_privileges = true;
  // Limits that it cannot raise again. Processes are counted over all of one user id, so that makes
  // sense only with an id of its own.
  std::optional<std::uint64_t> core_size, open_files, processes;
  // The control groups that it enters, as OpenMembers() opens them; at most 4. They do not stay
  // open in the child.
  std::vector<int> cgroups;
};

struct SpawnRequest {
  std::vector<std::string> argv;  // argv[0] is a path, or a name that is looked up in PATH
  std::vector<std::string> env;   // whole environment, "NAME=value"
  std::filesystem::path cwd = "/";
  // Descriptors the child keeps, under the same numbers. All others are closed.
  std::vector<int> inherit;
  // Become the child's 0, 1 and 2; /dev/null where -1.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  // Whether the kernel may back the child's memory with huge pages, where it asks for them.
  bool huge_pages = true;
  // In a session of its own, so that no signal to our process group reaches it.
  bool new_session = true;
  // Without it, the child is as we are. With it, what keeps the child from becoming the program
  // shows as exit code 126 and a line on stderr, not as an error of Spawn().
  std::optional<Confinement> confinement = {};
};

// Names a process for good: a pid alone may be reused, a pid with its start time is not until the
// host reboots.
struct ProcessIdentity {
  pid_t pid = -1;
  std::uint64_t start_ticks = 0;  // field 22 of /proc/PID/stat
  bool operator==(const ProcessIdentity&) const = default;
};

// How a process ended.
struct ExitStatus {
  enum class How { kExited, kSignalled, kUnknown };  // kUnknown: it was not our child
  How how = How::kUnknown;
  int value = 0;  // exit code or signal number
};
std::string ToString(const ExitStatus& status);

// A running process. The destructor neither kills nor reaps it: VMs outlive the daemon.
// Loop thread only.
class Process {
 public:
  // Takes over a process that an earlier daemon started. kNotFound when it is gone or when the pid
  // belongs to another process by now.
  static Result<std::unique_ptr<Process>> Adopt(Executor executor, ProcessIdentity identity);

  // Takes a child of ours that was just started and that nobody has waited for: it may have ended.
  // `name` is for messages. One that cannot be watched is killed and reaped.
  static Result<std::unique_ptr<Process>> OfChild(Executor executor, pid_t pid,
                                                  const std::string& name);

  Process(Executor executor, ProcessIdentity identity, UniqueFd pidfd);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  const ProcessIdentity& identity() const { return identity_; }
  pid_t pid() const { return identity_.pid; }
  int pidfd() const;

  // Sends a signal to exactly this process; kNotFound when it has ended.
  Result<void> Signal(int signal);

  // Returns when the process has ended, and reaps it if it is our child. May be awaited by several
  // and again later: the answer stays. kCancelled when this object is destroyed meanwhile.
  Task<ExitStatus> Wait(Deadline deadline);

  // SIGKILL and Wait. Success when it had ended already.
  Task<ExitStatus> Kill(Deadline deadline);

  bool ended() const;

 private:
  struct State;
  ProcessIdentity identity_;
  std::shared_ptr<State> state_;
};

// The seam to posix_spawn(3). vfork semantics: never fork() from a process this large.
class ProcessSpawner {
 public:
  virtual ~ProcessSpawner() = default;
  // kNotFound / kPermissionDenied name the program; kFailedPrecondition when something that comes
  // with this program is not beside it; nothing is left behind on failure.
  virtual Result<std::unique_ptr<Process>> Spawn(const SpawnRequest& request) = 0;
};

// Confined children are started by hatchery-launch, which is beside this program.
class PosixSpawner final : public ProcessSpawner {
 public:
  explicit PosixSpawner(Executor executor) : executor_(std::move(executor)) {}
  Result<std::unique_ptr<Process>> Spawn(const SpawnRequest& request) override;

 private:
  Executor executor_;
};

// As confine.h has it. kInvalidArgument when there is more of something than it holds.
namespace confine {
struct Description;
}
Result<confine::Description> Describe(const Confinement& confinement);

// Start time of a live process; kNotFound when there is none. A zombie counts as gone. Any other
// error (no descriptor is left, say) tells nothing of the process: it may well be there.
Result<ProcessIdentity> IdentifyProcess(pid_t pid);

// What a helper command said. For tools run to completion (qemu --version, dpkg, apt-get).
struct CommandOutput {
  ExitStatus status;
  std::string out;  // stdout, at most 1 MiB of it
  std::string err;  // stderr, likewise
};

// Runs a command to its end, killing it at `deadline`. An exit code other than 0 is not an error
// here: look at `status`.
Task<CommandOutput> RunCommand(ProcessSpawner& spawner, std::vector<std::string> argv,
                               Deadline deadline);

// The environment children get: PATH, HOME, LANG and the like from ours, nothing else.
std::vector<std::string> MinimalEnvironment();

}  // namespace hatchery
