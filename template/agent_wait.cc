#include "template/agent_wait.h"

#include <optional>
#include <utility>

#include "base/notifier.h"

namespace hatchery::tmpl {

namespace {

// The host's side of a virtio-serial port takes bytes long before the guest opens its own. QEMU
// then keeps them, and the first Check is answered when the agent comes up; but a guest that resets
// its devices on the way may lose them. So a Check is repeated, on the same connection, at this
// interval.
constexpr auto kAttempt = std::chrono::milliseconds(500);

constexpr Bytes kConsoleTail = Bytes::KiB(2);

struct Outcome {
  explicit Outcome(Executor executor) : changed(std::move(executor)) {}
  std::unique_ptr<agent::Client> client;        // it answered
  std::optional<hypervisor::ExitReason> ended;  // the VM did
  std::optional<Error> gave_up;                 // at the deadline: what the last attempt said
  Notifier changed;

  bool any() const { return client || ended || gave_up; }
};

asio::awaitable<void> TalkToAgent(hypervisor::Vm& vm, agent::Connector& connector,
                                  Deadline deadline, Outcome& outcome) {
  const Endpoint endpoint = vm.endpoints().agent;
  std::unique_ptr<agent::Client> client;
  while (!co_await IsCancelled()) {
    const Deadline attempt = Sooner(deadline, After(kAttempt));
    Result<void> answer;
    if (!client) {
      auto connected = co_await connector.Connect(endpoint, attempt);
      if (connected) {
        client = *std::move(connected);
      } else {
        answer = std::unexpected(connected.error());
      }
    }
    if (client) answer = co_await client->Check(attempt);
    if (answer) {
      outcome.client = std::move(client);
      break;
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      outcome.gave_up = answer.error();
      break;
    }
    if (client && !client->usable()) client.reset();
    // An attempt that failed early is not repeated before its time; only the VM's end is quicker.
    if (co_await vm.Wait(attempt)) break;
  }
  outcome.changed.NotifyAll();
}

asio::awaitable<void> WatchVm(hypervisor::Vm& vm, Outcome& outcome) {
  auto ended = co_await vm.Wait(Deadline::max());
  if (ended) outcome.ended = *std::move(ended);
  outcome.changed.NotifyAll();
}

std::string WithConsole(std::string message, const hypervisor::Vm& vm) {
  const std::string tail = PrintableConsoleTail(vm);
  if (tail.empty()) return message + "; its console is empty";
  return message + "; its console ends:\n" + tail;
}

}  // namespace

std::string PrintableConsoleTail(const hypervisor::Vm& vm) {
  std::string text;
  for (const char c : vm.ConsoleTail(kConsoleTail)) {
    if (c == '\r') continue;
    const bool printable = (c >= ' ' && c <= '~') || c == '\n' || c == '\t';
    text.push_back(printable ? c : '.');
  }
  return text;
}

Task<std::unique_ptr<agent::Client>> WaitForAgent(hypervisor::Vm& vm, agent::Connector& connector,
                                                  Deadline deadline) {
  if (co_await IsCancelled()) co_return Cancelled("cancelled while the guest was booting");
  const Executor executor = co_await asio::this_coro::executor;
  Outcome outcome(executor);
  TaskScope scope(executor);
  scope.Spawn("watch the VM", WatchVm(vm, outcome));
  scope.Spawn("talk to the agent", TalkToAgent(vm, connector, deadline, outcome));
  bool cancelled = false;
  while (!outcome.any() && !cancelled) {
    cancelled = !co_await outcome.changed.Wait(Deadline::max());
  }
  scope.Cancel();
  co_await scope.Join();
  if (cancelled) co_return Cancelled("cancelled while the guest was booting");
  if (outcome.client) co_return std::move(outcome.client);
  if (outcome.ended) {
    co_return FailedPrecondition(WithConsole(
        "the VM ended before its agent answered: " + std::string(Name(outcome.ended->kind)) + ", " +
            outcome.ended->detail,
        vm));
  }
  co_return DeadlineExceeded(WithConsole(
      "the guest's agent did not answer in time (" + outcome.gave_up->message + ")", vm));
}

}  // namespace hatchery::tmpl
