// A hostile QEMU: what it says on its control channel while VMs are taken over and resized.
//
// The input is lines. Each is said when the driver waits for something, with the number of the last
// command in the place of every '@'; after the last the channel closes.
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <optional>

#include "base/run.h"
#include "hypervisor/qemu/hotplug.h"
#include "hypervisor/qemu/qmp_message.h"
#include "tests/fuzz/fuzz.h"

namespace hatchery::hypervisor::qemu {
namespace {

constexpr auto kLong = std::chrono::hours(1);

Task<void> Drive(std::shared_ptr<Instance> vm) {
  bool broken = false;
  const auto try_out = [](Result<void> done) { fuzz::RequireWords(done); };
  try_out(co_await vm->qmp->Handshake(After(kLong)));
  try_out(co_await LearnHotAdded(vm, After(kLong)));
  try_out(co_await AddVcpus(vm, 1, After(kLong), &broken));
  try_out(co_await AddMemory(vm, kMemoryBlock, After(kLong), &broken));
  fuzz::Require(vm->config.vcpus + vm->hot_vcpus <= vm->config.max_vcpus &&
                    HotAddedMemory(*vm) <= vm->config.max_memory,
                "no VM has more than its maximum");
  if (!vm->dimms.empty()) {
    try_out(co_await RemoveMemory(vm, vm->dimms.back().size, After(kLong)));
  }
  if (vm->hot_vcpus > 0) try_out(co_await RemoveVcpus(vm, 1, After(kLong)));
  co_return Result<void>();
}

// What the driver has sent since; the number of its last command goes to `id`.
bool Hear(int qemu, std::string& id) {
  static char buffer[1 << 16];
  const ssize_t n = ::recv(qemu, buffer, sizeof(buffer), MSG_DONTWAIT);
  if (n <= 0) return false;
  const std::string said(buffer, static_cast<std::size_t>(n));
  if (const auto at = said.rfind("\"id\":"); at != std::string::npos) {
    id = said.substr(at + 5, said.find_first_not_of("0123456789", at + 5) - at - 5);
  }
  return true;
}

void Say(int qemu, std::string_view line, const std::string& id) {
  std::string text;
  for (const char c : line) c == '@' ? void(text += id) : text.push_back(c);
  text += "\n";
  (void)!::send(qemu, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Poll(asio::io_context& io) {
  io.restart();
  while (io.poll() > 0) {
  }
}

void CheckMessage(std::string_view line) {
  const auto message = ParseQmpMessage(line);
  fuzz::RequireWords(message);
  if (!message) return;
  const auto* reply = std::get_if<QmpReply>(&*message);
  if (reply == nullptr || !reply->result) return;
  const std::string command = EncodeQmpCommand("x", *reply->result, 7);
  fuzz::Require(std::ranges::count(command, '\n') == 1 && ParseJson(command, "a command"),
                "a command is one line of JSON");
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  using namespace hatchery::hypervisor;
  int fds[2];
  fuzz::Require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
                "a socket pair can be made");
  UniqueFd peer(fds[1]);
  asio::io_context io;
  VmConfig config;
  config.vcpus = 1;
  config.max_vcpus = 4;
  config.memory = kMemoryBlock;
  config.max_memory = Bytes::GiB(1);
  auto vm = std::make_shared<qemu::Instance>(io.get_executor(), config,
                                             std::make_shared<hypervisor::Isolation>());
  vm->Connect(UniqueFd(fds[0]));
  std::optional<Result<void>> result;
  asio::co_spawn(io, qemu::Drive(vm), [&](std::exception_ptr bug, Result<void> r) {
    fuzz::Require(!bug, "no verb throws");
    result = std::move(r);
  });
  qemu::Poll(io);
  std::string id = "0";
  for (std::string_view rest = fuzz::Text(data, size); !rest.empty() && !result;) {
    const auto end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    qemu::CheckMessage(line);
    qemu::Say(peer.get(), line, id);
    qemu::Poll(io);
    while (qemu::Hear(peer.get(), id)) {
    }
  }
  peer.Reset();
  qemu::Poll(io);
  fuzz::Require(result.has_value(), "every verb ends with the channel");
  vm->Detach();
  qemu::Poll(io);
  return 0;
}
