#include "hypervisor/qemu/zygote.h"

#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "hypervisor/qemu/proc.h"
#include "hypervisor/qemu/zygote_protocol.h"

namespace hatchery::hypervisor::qemu {

namespace {

namespace fs = std::filesystem;
using namespace zygote;

constexpr int kAnswerTimeoutMs = 2000;

// Whether it is a program that the dynamic loader loads, or may be: a script is not.
bool IsElf(const std::string& path) {
  std::array<char, SELFMAG> start{};
  std::ifstream(path).read(start.data(), start.size());
  return std::memcmp(start.data(), ELFMAG, SELFMAG) == 0;
}

void Append(std::string& message, const void* data, std::size_t size) {
  message.append(static_cast<const char*>(data), size);
}

// What is passed on, and under which numbers.
struct Passed {
  std::vector<int> descriptors;
  std::vector<std::int32_t> targets;
  void Add(int descriptor, int target) {
    descriptors.push_back(descriptor);
    targets.push_back(target);
  }
};

Result<std::string> Encode(const SpawnRequest& request, const Passed& passed) {
  RequestHeader header{.magic = kMagic,
                       .descriptors = static_cast<std::uint32_t>(passed.targets.size()),
                       .huge_pages = request.huge_pages ? 1u : 0u,
                       .new_session = request.new_session ? 1u : 0u,
                       .confined = request.confinement ? 1u : 0u};
  if (request.confinement) {
    ASSIGN_OR_RETURN(header.confinement, Describe(*request.confinement));
  }
  std::string message;
  Append(message, &header, sizeof(header));
  Append(message, passed.targets.data(), passed.targets.size() * sizeof(std::int32_t));
  message += request.cwd.string() + '\0';
  for (const auto& argument : request.argv) message += argument + '\0';
  return message;
}

Result<void> Send(int socket, const std::string& message, const std::vector<int>& descriptors) {
  if (SendWithDescriptors(socket, message, descriptors) < 0) {
    return ErrnoError(errno, "asking the zygote");
  }
  return {};
}

// The pid of the process that was started, a child of ours.
Result<pid_t> Receive(int socket) {
  pollfd readable{.fd = socket, .events = POLLIN, .revents = 0};
  if (::poll(&readable, 1, kAnswerTimeoutMs) != 1) return Unavailable("the zygote does not answer");
  std::int32_t value = 0;
  if (::recv(socket, &value, sizeof(value), MSG_DONTWAIT) != sizeof(value)) {
    return Unavailable("the zygote has ended");
  }
  if (value < 0) return ErrnoError(-value, "starting a process from the zygote");
  return value;
}

}  // namespace

struct ZygoteSpawner::Zygote {
  std::unique_ptr<Process> process;
  UniqueFd socket;  // it ends when this is closed
  std::vector<std::string> env;
  std::string identity;  // of the program's file
  int processes = 0;
};

fs::path FindZygoteLibrary() {
  const auto path = ExecutablePath().parent_path() / "libhatchery-zygote.so";
  std::error_code ignored;
  return fs::exists(path, ignored) ? path : fs::path();
}

ZygoteSpawner::ZygoteSpawner(Executor executor, ProcessSpawner& plain, fs::path library,
                             std::string program)
    : executor_(std::move(executor)),
      plain_(plain),
      library_(std::move(library)),
      program_(std::move(program)) {
  // VMMs whose parent, for a moment, was the zygote come to us.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

ZygoteSpawner::~ZygoteSpawner() = default;

Result<ZygoteSpawner::Zygote*> ZygoteSpawner::Ready(const SpawnRequest& request) {
  ASSIGN_OR_RETURN(const std::string path, FindProgram(program_));
  ASSIGN_OR_RETURN(std::string identity, FileIdentity(path));
  if (identity == unfit_) return Unavailable("this program cannot be one");
  if (zygote_ && zygote_->identity == identity && zygote_->env == request.env &&
      zygote_->processes < kProcessesPerZygote) {
    return zygote_.get();
  }
  zygote_.reset();
  if (!IsElf(path)) {
    unfit_ = identity;
    return Unavailable("this program cannot be one");
  }
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    return ErrnoError(errno, "making a zygote's socket");
  }
  auto zygote = std::make_unique<Zygote>();
  zygote->socket = UniqueFd(pair[0]);
  const UniqueFd theirs(pair[1]);
  SpawnRequest start;
  start.argv = {path, kName, std::to_string(theirs.get()), std::string(kArgumentRoom, 'x')};
  start.env = request.env;
  start.env.push_back("LD_PRELOAD=" + library_.string());
  start.inherit = {theirs.get()};
  start.huge_pages = true;  // each process chooses for itself
  ASSIGN_OR_RETURN(zygote->process, plain_.Spawn(start));
  zygote->env = request.env;
  zygote->identity = std::move(identity);
  zygote_ = std::move(zygote);
  return zygote_.get();
}

Result<std::unique_ptr<Process>> ZygoteSpawner::Fork(Zygote& zygote, const SpawnRequest& request) {
  Passed passed;
  UniqueFd null;
  const std::array<int, 3> standard = {request.stdin_fd, request.stdout_fd, request.stderr_fd};
  for (int target = 0; target < 3; ++target) {
    int source = standard[static_cast<std::size_t>(target)];
    if (source < 0) {
      if (!null) null = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
      source = null.get();
    }
    passed.Add(source, target);
  }
  for (const int fd : request.inherit) passed.Add(fd, fd);
  if (request.confinement) {
    for (const int fd : request.confinement->cgroups) passed.Add(fd, fd);
  }
  ASSIGN_OR_RETURN(const std::string message, Encode(request, passed));
  if (message.size() > kMaxRequest || passed.targets.size() > kMaxDescriptors) {
    return Unavailable("the request is too large for a zygote");
  }
  RETURN_IF_ERROR(Send(zygote.socket.get(), message, passed.descriptors));
  ASSIGN_OR_RETURN(const pid_t pid, Receive(zygote.socket.get()));
  ++zygote.processes;
  return Process::OfChild(executor_, pid, request.argv[0]);
}

Result<std::unique_ptr<Process>> ZygoteSpawner::Spawn(const SpawnRequest& request) {
  if (request.argv.empty() || request.argv[0] != program_) return plain_.Spawn(request);
  auto zygote = Ready(request);
  if (!zygote) return plain_.Spawn(request);
  auto process = Fork(**zygote, request);
  if (process) return process;
  log::Warning({}, "starting a VMM from its zygote: " + process.error().message +
                       "; started without, and anew");
  if ((*zygote)->processes == 0) unfit_ = (*zygote)->identity;
  zygote_.reset();
  return plain_.Spawn(request);
}

}  // namespace hatchery::hypervisor::qemu
