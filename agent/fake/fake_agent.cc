#include "agent/fake/fake_agent.h"

#include <signal.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <deque>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

#include "agent/client/validate.h"
#include "base/ids.h"
#include "base/notifier.h"

namespace hatchery::agent {

namespace {

std::string_view MethodName(Method method) {
  switch (method) {
    case Method::kConnect: return "Connect";
    case Method::kCheck: return "Check";
    case Method::kVersion: return "Version";
    case Method::kPersonalize: return "Personalize";
    case Method::kAwaitOnline: return "AwaitOnline";
    case Method::kExec: return "Exec";
    case Method::kDetails: return "Details";
    case Method::kPrepareSave: return "PrepareSave";
    case Method::kPowerOff: return "PowerOff";
    case Method::kOnlineCpuMem: return "OnlineCPUMem";
    case Method::kReseedRandomDev: return "ReseedRandomDev";
    case Method::kSetGuestDateTime: return "SetGuestDateTime";
  }
  return "?";
}

struct Fault {
  enum class Kind { kNone, kFail, kHang, kGarble, kSkipReseed };
  Kind kind = Kind::kFail;
  Error error = {};
};

// One client's side of a connection. Shared with its calls in flight, which may outlive it.
struct Connection {
  Connection(const Executor& executor, std::string p) : changed(executor), peer(std::move(p)) {}
  Notifier changed;
  std::string peer;
  std::optional<Error> failure;

  void Fail(Error reason) {
    if (failure) return;
    failure = std::move(reason);
    changed.NotifyAll();
  }
};

// The form of the kernel's boot ids.
std::string NewBootId() {
  std::string hex = ToHex(RandomBytes(16));
  for (const std::size_t dash : {8, 13, 18, 23}) hex.insert(dash, "-");
  return hex;
}

std::string Cut(std::string text, Bytes limit, bool& truncated) {
  truncated = text.size() > limit.count();
  if (truncated) text.resize(limit.count());
  return text;
}

Result<ExecResult> RunBuiltin(const ExecRequest& request) {
  RETURN_IF_ERROR(ValidateExec(request));
  const std::string& program = request.argv[0];
  ExecResult result{.exit_code = 0};
  std::string out;
  if (program == "echo") {
    for (std::size_t i = 1; i < request.argv.size(); ++i) {
      out += (i > 1 ? " " : "") + request.argv[i];
    }
    out += "\n";
  } else if (program == "cat") {
    out = request.stdin_data;
  } else if (program == "false") {
    result.exit_code = 1;
  } else if (program == "exit" && request.argv.size() == 2) {
    int code = 0;
    const auto& text = request.argv[1];
    std::from_chars(text.data(), text.data() + text.size(), code);
    result.exit_code = code & 0xff;
  } else if (program != "true") {
    return NotFound("Exec: no program named '" + program + "' in the guest");
  }
  result.out = Cut(std::move(out), request.output_limit, result.out_truncated);
  return result;
}

}  // namespace

struct FakeAgents::World {
  explicit World(Executor e) : executor(std::move(e)) {}
  Executor executor;
  // By endpoint.
  std::unordered_map<std::string, FakeGuest> guests;
  std::unordered_multimap<std::string, std::weak_ptr<Connection>> connections;
  std::map<Method, std::chrono::nanoseconds> delays;
  std::map<Method, std::deque<Fault>> faults;
  std::vector<FakeCall> calls;
  bool foreign = false;

  void Add(Method method, Fault fault, std::size_t times) {
    faults[method].insert(faults[method].end(), times, fault);
  }
  std::optional<Fault> TakeFault(Method method) {
    auto& queue = faults[method];
    if (queue.empty()) return std::nullopt;
    Fault fault = std::move(queue.front());
    queue.pop_front();
    return fault;
  }

  // A connection's way to a guest: whatever happens to a call before the guest acts on it. Answers
  // with the fault that the act itself has to heed, if any.
  static Task<std::optional<Fault>> Arrive(std::shared_ptr<World> world,
                                           std::shared_ptr<Connection> connection,
                                           Endpoint endpoint, Method method, Deadline deadline) {
    const std::string name(MethodName(method));
    const auto cancellation = co_await asio::this_coro::cancellation_state;
    if (cancellation.cancelled() != asio::cancellation_type::none) {
      co_return Cancelled(name + ": cancelled before it was sent");
    }
    if (connection->failure) co_return Annotate(*connection->failure, name);
    if (deadline <= std::chrono::steady_clock::now()) {
      co_return DeadlineExceeded(name + ": no time left to call");
    }
    world->calls.push_back({endpoint, method});
    const auto fault = world->TakeFault(method);
    co_await asio::post(world->executor, asio::use_awaitable);

    const bool hangs = fault && fault->kind == Fault::Kind::kHang;
    const Deadline ready = After(world->delays[method]);
    if (!connection->failure && (hangs || ready > std::chrono::steady_clock::now())) {
      const auto woken =
          co_await connection->changed.Wait(hangs ? deadline : Sooner(ready, deadline));
      // Nothing but the connection's failure notifies, so otherwise this is the time or a cancel.
      if (!connection->failure && woken.error().code != Code::kDeadlineExceeded) {
        co_return Annotate(woken.error(), name);
      }
      if (!connection->failure && (hangs || deadline < ready)) {
        co_return DeadlineExceeded(name + ": the agent at " + connection->peer +
                                   " did not answer in time");
      }
    }
    if (fault && fault->kind == Fault::Kind::kGarble) {
      connection->Fail(
          {Code::kUnavailable, "the agent at " + connection->peer + " sent garbage: as told"});
    }
    if (method != Method::kConnect && !world->guests[connection->peer].alive) {
      connection->Fail(
          {Code::kUnavailable, "the agent at " + connection->peer + " closed the connection"});
    }
    if (connection->failure) co_return Annotate(*connection->failure, name);
    if (fault && fault->kind == Fault::Kind::kFail) co_return Annotate(fault->error, name);
    co_return fault;
  }
};

namespace {

// As Kata's agent: so many more CPUs, and all memory.
Result<void> BringOnline(FakeGuest& guest, std::uint32_t new_vcpus, Bytes memory) {
  if (new_vcpus > guest.present_vcpus - guest.online_vcpus) {
    return Internal("OnlineCPUMem: " + std::to_string(new_vcpus) + " vcpus did not appear in time");
  }
  guest.online_vcpus += new_vcpus;
  guest.online_memory = std::max(guest.online_memory, std::min(memory, guest.present_memory));
  return {};
}

Result<PersonalizeReport> PersonalizeGuest(FakeGuest& guest, const Identity& identity,
                                           bool reseed) {
  if (identity.vcpus > guest.present_vcpus || identity.memory > guest.present_memory) {
    return DeadlineExceeded(identity.vcpus > guest.present_vcpus
                                ? "Personalize: vcpus did not appear in time"
                                : "Personalize: memory did not appear in time");
  }
  if (reseed) guest.seeds.push_back(identity.seed);
  guest.time = identity.time;
  if (!identity.hostname.empty()) guest.hostname = identity.hostname;
  if (!identity.machine_id.empty()) guest.machine_id = identity.machine_id;
  if (identity.renew_boot_id) guest.boot_id = NewBootId();
  guest.online_vcpus = std::max(guest.online_vcpus, identity.vcpus);
  guest.online_memory = std::max(guest.online_memory, identity.memory);
  PersonalizeReport report{.reseeded = reseed,
                           .clock_set = true,
                           .hostname_set = !identity.hostname.empty(),
                           .machine_id_set = !identity.machine_id.empty(),
                           .boot_id = guest.boot_id,
                           .online_vcpus = guest.online_vcpus,
                           .online_memory = guest.online_memory};
  RETURN_IF_ERROR(CheckConfirmed(identity, report));
  return report;
}

}  // namespace

class FakeClient final : public Client {
 public:
  using World = FakeAgents::World;
  FakeClient(std::shared_ptr<World> world, std::shared_ptr<Connection> connection,
             Endpoint endpoint)
      : world_(std::move(world)),
        connection_(std::move(connection)),
        endpoint_(std::move(endpoint)) {}
  ~FakeClient() override {
    connection_->Fail({Code::kCancelled, "the connection to the agent at " + connection_->peer +
                                             " was closed on this side"});
    const auto [first, last] = world_->connections.equal_range(connection_->peer);
    for (auto it = first; it != last;) {
      it = it->second.lock() == connection_ ? world_->connections.erase(it) : std::next(it);
    }
  }

  Task<void> Check(Deadline deadline) override {
    return Call<void>(Method::kCheck, deadline, [](FakeGuest&) { return Result<void>(); });
  }
  Task<Versions> Version(Deadline deadline) override {
    const bool foreign = world_->foreign;
    return Call<Versions>(Method::kVersion, deadline, [foreign](FakeGuest&) -> Result<Versions> {
      if (foreign) return Versions{"0.0.1", "3.0.0"};
      return Versions{std::string(kProtocol), "fake"};
    });
  }

  Task<PersonalizeReport> Personalize(const Identity& identity, Deadline deadline) override {
    if (world_->foreign) {
      return PersonalizeForeign(world_, connection_, endpoint_, identity, deadline);
    }
    return CallHeedingFaults<PersonalizeReport>(
        world_, connection_, endpoint_, Method::kPersonalize, deadline,
        [identity](FakeGuest& guest, bool skip_reseed) -> Result<PersonalizeReport> {
          return PersonalizeGuest(guest, identity, !skip_reseed);
        },
        ValidateIdentity(identity));
  }
  Task<OnlineReport> AwaitOnline(std::uint32_t vcpus, Bytes memory, std::uint32_t had_vcpus,
                                 Deadline deadline) override {
    if (world_->foreign) {
      return Call<OnlineReport>(
          Method::kOnlineCpuMem, deadline, [=](FakeGuest& guest) -> Result<OnlineReport> {
            RETURN_IF_ERROR(BringOnline(guest, vcpus - std::min(vcpus, had_vcpus), memory));
            return OnlineReport{.vcpus = std::max(vcpus, had_vcpus), .memory = memory};
          });
    }
    return Call<OnlineReport>(
        Method::kAwaitOnline, deadline, [vcpus, memory](FakeGuest& guest) -> Result<OnlineReport> {
          guest.online_vcpus = std::max(guest.online_vcpus, std::min(vcpus, guest.present_vcpus));
          guest.online_memory =
              std::max(guest.online_memory, std::min(memory, guest.present_memory));
          OnlineReport report{.vcpus = guest.online_vcpus, .memory = guest.online_memory};
          if (vcpus > report.vcpus) report.problem = "vcpus did not appear in time";
          if (memory > report.memory) report.problem = "memory did not appear in time";
          return report;
        });
  }
  Task<ExecResult> Exec(const ExecRequest& request, Deadline deadline) override {
    if (world_->foreign) return Refused<ExecResult>(Method::kExec, deadline);
    if (!request.argv.empty() && request.argv[0] == "sleep") {
      return Sleep(world_, connection_, endpoint_, deadline, request.timeout);
    }
    return CallHeedingFaults<ExecResult>(
        world_, connection_, endpoint_, Method::kExec, deadline,
        [request](FakeGuest&, bool) { return RunBuiltin(request); }, ValidateExec(request));
  }
  Task<GuestDetails> Details(Deadline deadline) override {
    if (world_->foreign) return Refused<GuestDetails>(Method::kDetails, deadline);
    return Call<GuestDetails>(Method::kDetails, deadline,
                              [](FakeGuest& guest) -> Result<GuestDetails> {
                                return GuestDetails{.agent_version = "fake",
                                                    .kernel_release = "0.0.0-fake",
                                                    .hostname = guest.hostname,
                                                    .boot_id = guest.boot_id,
                                                    .machine_id = guest.machine_id,
                                                    .online_vcpus = guest.online_vcpus,
                                                    .online_memory = guest.online_memory,
                                                    .memory_block = guest.memory_block,
                                                    .time = guest.time};
                              });
  }
  Task<void> PrepareSave(Deadline deadline) override {
    if (world_->foreign) return Refused<void>(Method::kPrepareSave, deadline);
    return Call<void>(Method::kPrepareSave, deadline, [](FakeGuest& guest) {
      guest.prepared_for_save = true;
      return Result<void>();
    });
  }
  Task<void> PowerOff(Deadline deadline) override {
    if (world_->foreign) return Refused<void>(Method::kPowerOff, deadline);
    return Call<void>(Method::kPowerOff, deadline, [](FakeGuest& guest) {
      guest.alive = false;
      return Result<void>();
    });
  }
  Task<void> OnlineCpuMem(std::uint32_t vcpus, bool, bool, Deadline deadline) override {
    return Call<void>(Method::kOnlineCpuMem, deadline, [vcpus](FakeGuest& guest) {
      guest.online_vcpus += std::min(vcpus, guest.present_vcpus - guest.online_vcpus);
      return Result<void>();
    });
  }
  Task<void> ReseedRandomDev(std::string seed, Deadline deadline) override {
    return Call<void>(Method::kReseedRandomDev, deadline, [seed](FakeGuest& guest) -> Result<void> {
      if (seed.empty()) return InvalidArgument("data", "ReseedRandomDev: data is empty");
      guest.seeds.push_back(seed);
      return {};
    });
  }
  Task<void> SetGuestDateTime(WallTime time, Deadline deadline) override {
    return Call<void>(Method::kSetGuestDateTime, deadline, [time](FakeGuest& guest) {
      guest.time = time;
      return Result<void>();
    });
  }

  bool usable() const override { return !connection_->failure; }

 private:
  template <class T>
  Task<T> Call(Method method, Deadline deadline, std::function<Result<T>(FakeGuest&)> act) {
    return CallHeedingFaults<T>(
        world_, connection_, endpoint_, method, deadline,
        [act = std::move(act)](FakeGuest& guest, bool) { return act(guest); }, {});
  }

  // A method that a foreign agent has not.
  template <class T>
  Task<T> Refused(Method method, Deadline deadline) {
    return Call<T>(method, deadline,
                   [method](FakeGuest&) -> Result<T> { return NoSuchMethod(MethodName(method)); });
  }

  // As the real client does it with Kata's calls.
  static Task<PersonalizeReport> PersonalizeForeign(std::shared_ptr<World> world,
                                                    std::shared_ptr<Connection> connection,
                                                    Endpoint endpoint, Identity identity,
                                                    Deadline deadline) {
    CO_RETURN_IF_ERROR(ValidateIdentity(identity));
    CO_RETURN_IF_ERROR(
        co_await World::Arrive(world, connection, endpoint, Method::kReseedRandomDev, deadline));
    world->guests[connection->peer].seeds.push_back(identity.seed);
    CO_RETURN_IF_ERROR(
        co_await World::Arrive(world, connection, endpoint, Method::kSetGuestDateTime, deadline));
    world->guests[connection->peer].time = identity.time;
    PersonalizeReport report{.reseeded = true,
                             .clock_set = true,
                             .online_vcpus = std::max(identity.had_vcpus, identity.vcpus),
                             .online_memory = std::max(identity.had_memory, identity.memory),
                             .foreign = true};
    const std::uint32_t new_vcpus = report.online_vcpus - identity.had_vcpus;
    if (new_vcpus > 0 || report.online_memory > identity.had_memory) {
      CO_RETURN_IF_ERROR(
          co_await World::Arrive(world, connection, endpoint, Method::kOnlineCpuMem, deadline));
      CO_RETURN_IF_ERROR(
          BringOnline(world->guests[connection->peer], new_vcpus, report.online_memory));
    }
    CO_RETURN_IF_ERROR(CheckConfirmed(identity, report));
    co_return report;
  }

  // Static, and by value: the client may be destroyed while the call is in flight.
  template <class T>
  static Task<T> CallHeedingFaults(std::shared_ptr<World> world,
                                   std::shared_ptr<Connection> connection, Endpoint endpoint,
                                   Method method, Deadline deadline,
                                   std::function<Result<T>(FakeGuest&, bool skip_reseed)> act,
                                   Result<void> valid) {
    if (!valid) co_return std::unexpected(valid.error());
    ASSIGN_OR_CO_RETURN(const auto fault,
                        co_await World::Arrive(world, connection, endpoint, method, deadline));
    const bool skip_reseed = fault && fault->kind == Fault::Kind::kSkipReseed;
    co_return act(world->guests[ToString(endpoint)], skip_reseed);
  }

  // A command that lasts: until its time limit, or until nobody waits for it.
  static Task<ExecResult> Sleep(std::shared_ptr<World> world,
                                std::shared_ptr<Connection> connection, Endpoint endpoint,
                                Deadline deadline, std::chrono::milliseconds timeout) {
    CO_RETURN_IF_ERROR(
        co_await World::Arrive(world, connection, endpoint, Method::kExec, deadline));
    ++world->guests[connection->peer].running_commands;
    const Deadline limit = timeout.count() > 0 ? After(timeout) : Deadline::max();
    const auto woken = co_await connection->changed.Wait(Sooner(limit, deadline));
    FakeGuest& guest = world->guests[connection->peer];
    const bool timed_out =
        !connection->failure && woken.error().code == Code::kDeadlineExceeded && limit <= deadline;
    if (timed_out || connection->failure || guest.knows_kill) --guest.running_commands;
    if (timed_out) co_return ExecResult{.signal = SIGKILL, .timed_out = true};
    if (connection->failure) co_return Annotate(*connection->failure, "Exec");
    co_return Annotate(woken.error(), "Exec");
  }

  std::shared_ptr<World> world_;
  std::shared_ptr<Connection> connection_;
  Endpoint endpoint_;
};

FakeAgents::FakeAgents(Executor executor) : world_(std::make_shared<World>(std::move(executor))) {}
FakeAgents::~FakeAgents() = default;

namespace {

template <class World>
Task<std::unique_ptr<Client>> ConnectTo(std::shared_ptr<World> world, Endpoint endpoint,
                                        Deadline deadline) {
  auto connection = std::make_shared<Connection>(world->executor, ToString(endpoint));
  CO_RETURN_IF_ERROR(
      co_await World::Arrive(world, connection, endpoint, Method::kConnect, deadline));
  if (!world->guests[connection->peer].alive) {
    co_return Unavailable("agent at " + connection->peer + ": the guest is dead");
  }
  world->connections.emplace(connection->peer, connection);
  co_return std::make_unique<FakeClient>(world, connection, endpoint);
}

}  // namespace

Task<std::unique_ptr<Client>> FakeAgents::Connect(const Endpoint& endpoint, Deadline deadline) {
  return ConnectTo(world_, endpoint, deadline);
}

void FakeAgents::SetDelay(Method method, std::chrono::nanoseconds delay) {
  world_->delays[method] = delay;
}

void FakeAgents::PassNext(Method method, std::size_t times) {
  world_->Add(method, {Fault::Kind::kNone}, times);
}
void FakeAgents::ClearFaults() { world_->faults.clear(); }
void FakeAgents::FailNext(Method method, Error error, std::size_t times) {
  world_->Add(method, {Fault::Kind::kFail, std::move(error)}, times);
}
void FakeAgents::HangNext(Method method, std::size_t times) {
  world_->Add(method, {Fault::Kind::kHang}, times);
}
void FakeAgents::GarbleNext(Method method, std::size_t times) {
  world_->Add(method, {Fault::Kind::kGarble}, times);
}
void FakeAgents::SetForeign(bool foreign) { world_->foreign = foreign; }

void FakeAgents::SkipReseedNext(std::size_t times) {
  world_->Add(Method::kPersonalize, {Fault::Kind::kSkipReseed}, times);
}

FakeGuest& FakeAgents::guest(const Endpoint& endpoint) {
  return world_->guests[ToString(endpoint)];
}

void FakeAgents::KillGuest(const Endpoint& endpoint) {
  guest(endpoint).alive = false;
  const std::string peer = ToString(endpoint);
  const auto [first, last] = world_->connections.equal_range(peer);
  for (auto it = first; it != last; ++it) {
    if (const auto connection = it->second.lock()) {
      connection->Fail({Code::kUnavailable, "the agent at " + peer + " closed the connection"});
    }
  }
}

void FakeAgents::ReviveGuest(const Endpoint& endpoint) { guest(endpoint) = FakeGuest(); }

const std::vector<FakeCall>& FakeAgents::calls() const { return world_->calls; }

std::size_t FakeAgents::CountCalls(Method method) const {
  return static_cast<std::size_t>(std::ranges::count(world_->calls, method, &FakeCall::method));
}

}  // namespace hatchery::agent
