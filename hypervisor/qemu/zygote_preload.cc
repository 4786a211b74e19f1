// The library that makes a zygote of a program (zygote.h): preloaded, it comes between the dynamic
// loader and main(). Started as a zygote, the program does not run main() but waits; each request
// makes a copy of the process, loaded and relocated as it is, and that runs main() with arguments
// of its own. Started otherwise, nothing changes.
//
// It lives in somebody else's process: no C++ runtime, no allocation but in the copies, no output.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "hypervisor/qemu/zygote_protocol.h"

namespace {

using namespace hatchery::hypervisor::qemu::zygote;

using Main = int (*)(int, char**, char**);
Main program_main = nullptr;

constexpr int kCannotStart = 127;
int request_socket = -1;
int32_t* outcome = nullptr;  // what the one in between tells us: a pid or a negative errno

struct Request {
  RequestHeader header;
  int descriptors[kMaxDescriptors];
  int targets[kMaxDescriptors];
  char* cwd;
  char* arguments;  // one after the other
  char* end;
};

// False when `text`, of `size` bytes and a zero byte after it, is no request.
bool Parse(char* text, size_t size, Request& request) {
  if (size < sizeof(RequestHeader)) return false;
  memcpy(&request.header, text, sizeof(RequestHeader));
  const size_t count = request.header.descriptors;
  const size_t names = sizeof(RequestHeader) + count * sizeof(int32_t);
  if (request.header.magic != kMagic || count > kMaxDescriptors || size <= names) return false;
  if (!hatchery::confine::Valid(request.header.confinement)) return false;
  for (size_t i = 0; i < count; ++i) {
    int32_t target = 0;
    memcpy(&target, text + sizeof(RequestHeader) + i * sizeof(target), sizeof(target));
    if (target < 0) return false;
    request.targets[i] = target;
  }
  request.cwd = text + names;
  request.end = text + size;
  request.arguments = request.cwd + strlen(request.cwd) + 1;
  return request.arguments < request.end && request.end[-1] == '\0';
}

// Where the process shows its arguments, in /proc/PID/cmdline: the room that the zygote was started
// with.
struct Room {
  char* start;
  size_t size;
};

Room RoomOf(char** argv, int argc) {
  const char* const end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;
  return {argv[0], static_cast<size_t>(end - argv[0])};
}

size_t ShownSize(const Request& request, const Room& room) {
  const auto size = static_cast<size_t>(request.end - request.arguments);
  return size < room.size ? size : room.size - 1;
}

// Makes the room as small as what will be in it, where we may: as root. Else zero bytes follow it.
void FitRoom(const Request& request, const Room& room) {
  prctl(PR_SET_MM, PR_SET_MM_ARG_END, room.start + ShownSize(request, room), 0, 0);
}

// The last thing before main(): who sees these arguments sees the process as it was asked for.
void Show(const Request& request, const Room& room) {
  memset(room.start, 0, room.size);
  memcpy(room.start, request.arguments, ShownSize(request, room));
}

// In the new process: becomes what was asked for. Does not return.
[[noreturn]] void Run(Request& request, const Room& room, char** environment) {
  close(request_socket);
  munmap(outcome, sizeof(*outcome));
  const int count = static_cast<int>(request.header.descriptors);
  // First out of each other's way, above all places where they belong.
  int parking = 0;
  for (int i = 0; i < count; ++i) {
    if (request.targets[i] >= parking) parking = request.targets[i] + 1;
  }
  for (int i = 0; i < count; ++i) {
    const int parked = fcntl(request.descriptors[i], F_DUPFD, parking);
    if (parked < 0) _exit(kCannotStart);
    close(request.descriptors[i]);
    request.descriptors[i] = parked;
  }
  for (int i = 0; i < count; ++i) {
    if (dup2(request.descriptors[i], request.targets[i]) < 0) _exit(kCannotStart);
    close(request.descriptors[i]);
  }
  if (request.header.new_session != 0) setsid();
  if (request.header.huge_pages == 0) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  if (chdir(request.cwd) != 0) _exit(kCannotStart);
  if (request.header.confined != 0) {
    const char* const failed = hatchery::confine::Limit(request.header.confinement);
    if (failed != nullptr) {
      hatchery::confine::Complain(2, request.arguments, failed);
      _exit(hatchery::confine::kExitCode);
    }
  }

  int arguments = 0;
  for (const char* at = request.arguments; at < request.end; at += strlen(at) + 1) ++arguments;
  const auto size = static_cast<size_t>(request.end - request.arguments);
  auto* const text = static_cast<char*>(malloc(size));
  auto** const own = static_cast<char**>(calloc(static_cast<size_t>(arguments) + 1, sizeof(char*)));
  if (text == nullptr || own == nullptr) _exit(kCannotStart);
  memcpy(text, request.arguments, size);
  char* at = text;
  for (int i = 0; i < arguments; ++i) {
    own[i] = at;
    at += strlen(at) + 1;
  }
  Show(request, room);
  exit(program_main(arguments, own, environment));
}

// The pid that was made, or the negative errno.
void Answer(int32_t value) { (void)send(request_socket, &value, sizeof(value), MSG_NOSIGNAL); }

// Takes what the groups to enter are entered by out of what the process itself is to have, and puts
// the descriptors into the description. False if one did not come along.
bool TakeCgroups(Request& request) {
  auto& description = request.header.confinement;
  for (uint32_t i = 0; i < description.cgroups; ++i) {
    uint32_t at = 0;
    while (at < request.header.descriptors && request.targets[at] != description.cgroup[i]) ++at;
    if (at == request.header.descriptors) return false;
    description.cgroup[i] = request.descriptors[at];
    // All stay in the list, for Wait() to close.
    const uint32_t last = --request.header.descriptors;
    request.descriptors[at] = request.descriptors[last];
    request.descriptors[last] = description.cgroup[i];
    request.targets[at] = request.targets[last];
  }
  return true;
}

// The one in between, as fork(2) but without the program's fork handlers: QEMU's would start a
// thread. Under version 2 it is made in its group, which spares the wait that entering would be.
pid_t MakeBetween(hatchery::confine::Description& description) {
  if (description.cgroups == 1 && hatchery::confine::IsFolder(description.cgroup[0])) {
    clone_args into{};
    into.flags = CLONE_INTO_CGROUP;
    into.exit_signal = SIGCHLD;
    into.cgroup = static_cast<uint64_t>(description.cgroup[0]);
    const auto pid = static_cast<pid_t>(syscall(SYS_clone3, &into, sizeof(into)));
    if (pid == 0) {
      close(description.cgroup[0]);
      description.cgroups = 0;
    }
    // Refused like this by seccomp filters of containers.
    if (pid >= 0 || errno != ENOSYS) return pid;
  }
  return static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0));
}

// The groups that the process is to be in, and what it is to give up, done by the one in between:
// it has one thread, and the program's fork handlers may give the process itself another. False
// after a complaint, with errno set.
bool Confine(const Request& request) {
  if (request.header.confined == 0) return true;
  const char* failed = hatchery::confine::Enter(request.header.confinement);
  if (failed == nullptr) failed = hatchery::confine::Drop(request.header.confinement);
  if (failed == nullptr) return true;
  const int error = errno;
  for (uint32_t i = 0; i < request.header.descriptors; ++i) {
    if (request.targets[i] != 2) continue;
    hatchery::confine::Complain(request.descriptors[i], request.arguments, failed);
  }
  errno = error;
  return false;
}

// Starts the process from one in between, so that it becomes the child of who asked, not ours. It
// is that once the one in between has ended, and the answer comes no sooner: who asked could not
// learn how a process ended that is not its child. Unlike the one in between, the process is made
// with the program's fork handlers.
void Start(Request& request, int argc, char** argv, char** environment) {
  auto& confinement = request.header.confinement;
  if (request.header.confined == 0) confinement.cgroups = 0;
  if (!TakeCgroups(request)) return Answer(-EINVAL);
  *outcome = -ECHILD;  // unless the one in between lives to tell
  const pid_t between = MakeBetween(confinement);
  if (between < 0) return Answer(-errno);
  if (between > 0) {
    while (waitpid(between, nullptr, 0) < 0 && errno == EINTR) {
    }
    return Answer(*outcome);
  }
  const Room room = RoomOf(argv, argc);
  FitRoom(request, room);
  pid_t pid = -1;
  if (Confine(request)) pid = fork();
  if (pid == 0) Run(request, room, environment);
  *outcome = pid < 0 ? -errno : pid;
  _exit(0);
}

// Instead of main(). Ends when who started the zygote is gone.
int Wait(int argc, char** argv, char** environment) {
  static char text[kMaxRequest + 1];
  // What came along from who started us would be in every process.
  const auto socket = static_cast<unsigned>(request_socket);
  if (socket > 3) close_range(3, socket - 1, 0);
  close_range(socket + 1, ~0u, 0);
  void* const shared =
      mmap(nullptr, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) _exit(kCannotStart);
  outcome = static_cast<int32_t*>(shared);
  for (;;) {
    Request request{};
    iovec data{text, kMaxRequest};
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(request_socket, &message, MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) _exit(0);
    text[size] = '\0';
    size_t received = 0;
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
      received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      memcpy(request.descriptors, CMSG_DATA(header), received * sizeof(int));
    }
    const bool whole = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 &&
                       Parse(text, static_cast<size_t>(size), request) &&
                       request.header.descriptors == received;
    if (whole) {
      Start(request, argc, argv, environment);
    } else {
      Answer(-EINVAL);
    }
    for (size_t i = 0; i < received; ++i) close(request.descriptors[i]);
  }
}

}  // namespace

// glibc's own, by whose place in the program's start-up this library comes in.
extern "C" __attribute__((visibility("default"))) int __libc_start_main(Main main, int argc,
                                                                        char** argv, void (*init)(),
                                                                        void (*fini)(),
                                                                        void (*rtld_fini)(),
                                                                        void* stack_end) {
  using Start = int (*)(Main, int, char**, void (*)(), void (*)(), void (*)(), void*);
  const auto start = reinterpret_cast<Start>(dlsym(RTLD_NEXT, "__libc_start_main"));
  unsetenv("LD_PRELOAD");
  program_main = main;
  const bool is_zygote = argc == 4 && strcmp(argv[1], kName) == 0;
  if (is_zygote) request_socket = atoi(argv[2]);
  return start(is_zygote ? Wait : main, argc, argv, init, fini, rtld_fini, stack_end);
}
