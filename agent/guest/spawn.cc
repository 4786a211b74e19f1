#include "agent/guest/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <string_view>
#include <utility>

namespace hatchery::agent::guest {

namespace {

constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

bool HasZeroByte(const std::string& text) { return text.find('\0') != std::string::npos; }

Result<void> Validate(const v1::ExecRequest& request) {
  if (request.argv().empty() || request.argv(0).empty()) {
    return InvalidArgument("argv", "must not be empty");
  }
  for (const std::string& arg : request.argv()) {
    if (HasZeroByte(arg)) return InvalidArgument("argv", "must not hold a zero byte");
  }
  for (const auto& [name, value] : request.env()) {
    if (name.empty() || name.find('=') != std::string::npos || HasZeroByte(name + value)) {
      return InvalidArgument("env", "'" + name + "' is no variable, or its value has a zero byte");
    }
  }
  if (HasZeroByte(request.cwd())) return InvalidArgument("cwd", "must not hold a zero byte");
  return {};
}

// Where the program is; what it may say about it comes from the first hit that cannot be run, as
// execvp(3) does it.
Result<std::string> FindProgram(const std::string& name, std::string_view search, int cwd) {
  auto check = [cwd](const std::string& path) {
    struct stat info{};
    if (::fstatat(cwd, path.c_str(), &info, 0) != 0) return errno;
    if (!S_ISREG(info.st_mode)) return EACCES;
    return ::faccessat(cwd, path.c_str(), X_OK, AT_EACCESS) == 0 ? 0 : errno;
  };
  auto refuse = [&name](int error) -> std::unexpected<Error> {
    if (error == EACCES) {
      return MakeError(Code::kPermissionDenied, "program '" + name + "' is not executable");
    }
    if (error == ENOENT || error == ENOTDIR) return NotFound("no program '" + name + "'");
    return ErrnoError(error, "program '" + name + "'");
  };
  if (name.find('/') != std::string::npos) {
    if (const int error = check(name); error != 0) return refuse(error);
    return name;
  }
  int denied = ENOENT;
  while (true) {
    const std::size_t end = search.find(':');
    const std::string folder(search.substr(0, end));
    const std::string path = (folder.empty() ? "." : folder) + "/" + name;
    const int error = check(path);
    if (error == 0) return path;
    if (error == EACCES) denied = EACCES;
    if (end == std::string_view::npos) return refuse(denied);
    search.remove_prefix(end + 1);
  }
}

struct Pipe {
  UniqueFd ours, theirs;
};

Result<Pipe> MakePipe(bool we_read) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "creating a pipe");
  Pipe pipe{UniqueFd(fds[we_read ? 0 : 1]), UniqueFd(fds[we_read ? 1 : 0])};
  ::fcntl(pipe.ours.get(), F_SETFL, O_NONBLOCK);
  return pipe;
}

// posix_spawn's two descriptions, freed together.
struct SpawnPlan {
  SpawnPlan() {
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
  }
  ~SpawnPlan() {
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

Result<pid_t> Spawn(const std::string& program, const std::vector<std::string>& argv,
                    const std::vector<std::string>& env, int cwd, const int (&stdio)[3]) {
  SpawnPlan plan;
  for (int fd = 0; fd < 3; ++fd) {
    ::posix_spawn_file_actions_adddup2(&plan.actions, stdio[fd], fd);
  }
  ::posix_spawn_file_actions_addfchdir_np(&plan.actions, cwd);
  // The agent ignores SIGPIPE and blocks nothing; a command starts from the system's defaults.
  sigset_t all, none;
  ::sigfillset(&all);
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigdefault(&plan.attributes, &all);
  ::posix_spawnattr_setsigmask(&plan.attributes, &none);
  ::posix_spawnattr_setflags(&plan.attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  auto pointers = [](const std::vector<std::string>& strings) {
    std::vector<char*> out;
    for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
    out.push_back(nullptr);
    return out;
  };
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &plan.actions, &plan.attributes,
                                  pointers(argv).data(), pointers(env).data());
  if (error == E2BIG) return InvalidArgument("argv", "arguments and environment are too long");
  if (error == ENOEXEC) {
    return MakeError(Code::kPermissionDenied, "program '" + program + "' is of no known format");
  }
  if (error != 0) return ErrnoError(error, "starting '" + program + "'");
  return pid;
}

}  // namespace

Result<Child> SpawnCommand(const v1::ExecRequest& request) {
  RETURN_IF_ERROR(Validate(request));
  std::map<std::string, std::string> variables = {{"PATH", kDefaultPath}, {"HOME", "/root"}};
  for (const auto& [name, value] : request.env()) variables[name] = value;

  const std::string cwd_path = request.cwd().empty() ? "/" : request.cwd();
  UniqueFd cwd(::open(cwd_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!cwd) return ErrnoError(errno, "cwd '" + cwd_path + "'");
  ASSIGN_OR_RETURN(const std::string program,
                   FindProgram(request.argv(0), variables["PATH"], cwd.get()));

  ASSIGN_OR_RETURN(Pipe out, MakePipe(true));
  ASSIGN_OR_RETURN(Pipe err, MakePipe(true));
  Pipe in;
  if (request.stdin_data().empty()) {
    in.theirs = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!in.theirs) return ErrnoError(errno, "opening /dev/null");
  } else {
    ASSIGN_OR_RETURN(in, MakePipe(false));
  }

  std::vector<std::string> env;
  for (const auto& [name, value] : variables) env.push_back(name + "=" + value);
  const int stdio[3] = {in.theirs.get(), out.theirs.get(), err.theirs.get()};
  ASSIGN_OR_RETURN(const pid_t pid, Spawn(program, {request.argv().begin(), request.argv().end()},
                                          env, cwd.get(), stdio));
  Child child{.pid = pid,
              .pidfd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))),
              .in = std::move(in.ours),
              .out = std::move(out.ours),
              .err = std::move(err.ours)};
  if (!child.pidfd) {
    const int error = errno;
    ::kill(-pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return ErrnoError(error, "watching '" + program + "'");
  }
  return child;
}

}  // namespace hatchery::agent::guest
