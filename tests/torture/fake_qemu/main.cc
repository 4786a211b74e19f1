// A program that passes for QEMU: it takes the command line that hypervisor/qemu makes, speaks QMP,
// and answers as the guest's agent, but runs no guest. It starts in a millisecond, so a torture
// test can have thousands, under the driver and the recovery that real VMs have.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "tests/torture/fake_qemu/guest.h"
#include "tests/torture/fake_qemu/monitor.h"
#include "tests/torture/fake_qemu/signals.h"

namespace hatchery::torture {
namespace {

using agent::guest::EventLoop;

// The options, each value as its parts: "socket,id=qmp,fd=3" is {"": "socket", "id": "qmp", …}.
struct Option {
  std::string name;
  std::map<std::string, std::string> parts;

  std::string Part(const std::string& key) const {
    const auto found = parts.find(key);
    return found == parts.end() ? std::string() : found->second;
  }
};

std::map<std::string, std::string> Split(std::string_view value) {
  std::map<std::string, std::string> parts;
  while (!value.empty()) {
    const auto comma = value.find(',');
    const std::string_view part = value.substr(0, comma);
    const auto equals = part.find('=');
    if (equals == std::string_view::npos) {
      parts[""] = part;
    } else {
      parts[std::string(part.substr(0, equals))] = part.substr(equals + 1);
    }
    value = comma == std::string_view::npos ? "" : value.substr(comma + 1);
  }
  return parts;
}

std::vector<Option> Parse(int argc, char** argv) {
  std::vector<Option> options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with('-')) {
      options.push_back({std::string(argument), {}});
    } else if (!options.empty()) {
      options.back().parts = Split(argument);
    }
  }
  return options;
}

std::uint64_t Number(std::string_view text) {
  std::uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// What this VM is, as far as a pretended one needs to know.
struct Wanted {
  int agent_fd = -1;
  int qmp_fd = -1;
  bool incoming = false;
  Board board;
  BoardLimits limits;
  std::string memory_path;
  std::string console;
};

Wanted Read(const std::vector<Option>& options) {
  Wanted wanted;
  for (const Option& option : options) {
    const std::string id = option.Part("id");
    if (option.name == "-incoming") wanted.incoming = true;
    if (option.name == "-smp") {
      wanted.board.vcpus = static_cast<std::uint32_t>(Number(option.Part("cpus")));
      wanted.limits = {wanted.board.vcpus,
                       static_cast<std::uint32_t>(Number(option.Part("maxcpus")))};
    }
    if (option.name == "-m") wanted.board.memory_bytes = Number(option.Part("size")) << 20;
    if (option.name == "-object" && id == "m0") wanted.memory_path = option.Part("mem-path");
    if (option.name != "-chardev") continue;
    if (id == "agent") wanted.agent_fd = static_cast<int>(Number(option.Part("fd")));
    if (id == "qmp") wanted.qmp_fd = static_cast<int>(Number(option.Part("fd")));
    if (id == "console") wanted.console = option.Part("path");
  }
  return wanted;
}

// A word on the console, as a guest would have.
void Greet(const std::string& console) {
  if (console.empty()) return;
  const UniqueFd file(::open(console.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  constexpr std::string_view kWords = "a guest that is none is up\n";
  if (file && ::write(file.get(), kWords.data(), kWords.size()) < 0) std::perror("console");
}

void SetNonBlocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

int Run(const Wanted& wanted) {
  sigset_t faults;
  sigemptyset(&faults);
  for (const int signal :
       {AgentGarbageSignal(), MonitorGarbageSignal(), AgentSilentSignal(), AgentSpeaksSignal()}) {
    sigaddset(&faults, signal);
  }
  ::sigprocmask(SIG_BLOCK, &faults, nullptr);
  const UniqueFd signals(::signalfd(-1, &faults, SFD_CLOEXEC | SFD_NONBLOCK));
  auto loop = EventLoop::Create();
  if (!loop || !signals || wanted.agent_fd < 0 || wanted.qmp_fd < 0) {
    std::fprintf(stderr, "fake-qemu: it needs the sockets of agent and monitor\n");
    return 1;
  }
  SetNonBlocking(wanted.agent_fd);
  SetNonBlocking(wanted.qmp_fd);
  Greet(wanted.console);

  Board board = wanted.board;
  FakeGuest guest(**loop, board, UniqueFd(wanted.agent_fd));
  FakeMonitor monitor({**loop, board, guest, wanted.limits, wanted.memory_path},
                      UniqueFd(wanted.qmp_fd), wanted.incoming);
  auto watch = (*loop)->Watch(signals.get(), EPOLLIN, [&](std::uint32_t) {
    signalfd_siginfo info{};
    if (::read(signals.get(), &info, sizeof(info)) != sizeof(info)) return;
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == AgentGarbageSignal()) guest.SendGarbage();
    if (signal == MonitorGarbageSignal()) monitor.SendGarbage();
    if (signal == AgentSilentSignal()) guest.FallSilent(true);
    if (signal == AgentSpeaksSignal()) guest.FallSilent(false);
  });
  if (!watch) return 1;
  (*loop)->Run();
  return 0;
}

int Main(int argc, char** argv) {
  const auto options = Parse(argc, argv);
  if (options.empty()) return 1;
  if (options[0].name == "--version") {
    std::puts("QEMU emulator version 7.2.0 (a pretended one, for tests)");
    return 0;
  }
  if (options[0].name == "-machine" && options[0].Part("") == "help") {
    std::puts("q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)");
    return 0;
  }
  return Run(Read(options));
}

}  // namespace
}  // namespace hatchery::torture

int main(int argc, char** argv) { return hatchery::torture::Main(argc, argv); }
