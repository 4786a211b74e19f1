#include "agent/client/ttrpc_client.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "agent/client/channel.h"
#include "agent/client/dial.h"
#include "agent/client/validate.h"
#include "base/ids.h"
#include "hatchery/agent/v1/guest.pb.h"
#include "kata/agent.pb.h"

namespace hatchery::agent {

namespace {

namespace wire = ::hatchery::agent::v1;
using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::string_view kGuest = "hatchery.agent.v1.Guest";
constexpr std::string_view kHealth = "grpc.Health";
constexpr std::string_view kKata = "grpc.AgentService";
constexpr std::size_t kExecIdBytes = 8;

// The other end. Shared by a client and its calls in flight: those that take more than one question
// must not ask the next of a channel that has gone. The client closes it when it is destroyed.
struct Peer {
  Peer(Executor executor, UniqueFd socket, std::string name)
      : channel(std::move(executor), std::move(socket), std::move(name)) {}

  Channel channel;
  bool foreign = false;      // known to have none of our calls, which it is then not asked any more
  bool takes_total = false;  // see TakesTotal()
};
using PeerPtr = std::shared_ptr<Peer>;

template <class T>
Task<T> Failed(Error error) {
  co_return std::unexpected(std::move(error));
}

template <class Reply>
Task<Reply> Parse(Task<std::string> answer, std::string_view method) {
  ASSIGN_OR_CO_RETURN(const std::string payload, co_await std::move(answer));
  Reply reply;
  if (!reply.ParseFromString(payload)) {
    co_return Internal(std::string(method) + ": the agent's reply is not of the expected type");
  }
  co_return reply;
}

// The request is serialized here and now, so the caller's arguments need not outlive this call.
template <class Reply, class Request>
Task<Reply> Call(Channel& channel, std::string_view service, std::string_view method,
                 const Request& request, Deadline deadline) {
  return Parse<Reply>(channel.Call(service, method, request.SerializeAsString(), deadline), method);
}

// For calls whose reply says nothing but that it was done.
template <class Reply>
Task<void> Done(Task<Reply> reply) {
  CO_RETURN_IF_ERROR(co_await std::move(reply));
  co_return Result<void>();
}

std::int64_t UnixNanoseconds(WallTime time) {
  return duration_cast<nanoseconds>(time.time_since_epoch()).count();
}

Task<void> CheckServing(Task<::grpc::HealthCheckResponse> reply) {
  ASSIGN_OR_CO_RETURN(const auto health, co_await std::move(reply));
  if (health.status() != ::grpc::HealthCheckResponse::SERVING) {
    co_return Unavailable("Check: the agent answers, but says that it does not serve");
  }
  co_return Result<void>();
}

Task<Versions> ToVersions(Task<::grpc::VersionCheckResponse> reply) {
  ASSIGN_OR_CO_RETURN(const auto versions, co_await std::move(reply));
  co_return Versions{versions.grpc_version(), versions.agent_version()};
}

Task<PersonalizeReport> ToReport(Task<wire::PersonalizeResponse> reply, Identity asked) {
  ASSIGN_OR_CO_RETURN(const auto done, co_await std::move(reply));
  PersonalizeReport report{.reseeded = done.reseeded(),
                           .clock_set = done.clock_set(),
                           .hostname_set = done.hostname_set(),
                           .machine_id_set = done.machine_id_set(),
                           .boot_id = done.boot_id(),
                           .online_vcpus = done.online_vcpus(),
                           .online_memory = Bytes(done.online_memory_bytes())};
  CO_RETURN_IF_ERROR(CheckConfirmed(asked, report));
  co_return report;
}

Task<OnlineReport> ToOnlineReport(Task<wire::AwaitOnlineResponse> reply) {
  ASSIGN_OR_CO_RETURN(auto online, co_await std::move(reply));
  co_return OnlineReport{.vcpus = online.online_vcpus(),
                         .memory = Bytes(online.online_memory_bytes()),
                         .problem = std::move(*online.mutable_problem())};
}

Task<ExecResult> ToExecResult(Task<wire::ExecResponse> reply) {
  ASSIGN_OR_CO_RETURN(auto done, co_await std::move(reply));
  ExecResult result{.timed_out = done.timed_out(),
                    .out = std::move(*done.mutable_out()),
                    .err = std::move(*done.mutable_err()),
                    .out_truncated = done.out_truncated(),
                    .err_truncated = done.err_truncated()};
  switch (done.end_case()) {
    case wire::ExecResponse::kExitCode: result.exit_code = done.exit_code(); break;
    case wire::ExecResponse::kSignal: result.signal = done.signal(); break;
    case wire::ExecResponse::END_NOT_SET:
      co_return Internal("Exec: the agent's reply does not say how the command ended");
  }
  co_return result;
}

Task<GuestDetails> ToDetails(Task<wire::DetailsResponse> reply) {
  ASSIGN_OR_CO_RETURN(const auto details, co_await std::move(reply));
  co_return GuestDetails{
      .agent_version = details.agent_version(),
      .kernel_release = details.kernel_release(),
      .hostname = details.hostname(),
      .boot_id = details.boot_id(),
      .machine_id = details.machine_id(),
      .online_vcpus = details.online_vcpus(),
      .online_memory = Bytes(details.online_memory_bytes()),
      .memory_block = Bytes(details.memory_block_bytes()),
      .time = WallTime(duration_cast<WallTime::duration>(nanoseconds(details.time_unix_ns())))};
}

// How long the guest may wait for what was hot-added: a little less than we wait for it, so that
// its error, which names the part, comes before our own.
std::uint64_t OnlineTimeoutMs(Deadline deadline) {
  constexpr milliseconds kLongest = std::chrono::minutes(10);
  const auto left = std::min<nanoseconds>(deadline - std::chrono::steady_clock::now(), kLongest);
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(1, duration_cast<milliseconds>(left).count() * 9 / 10));
}

Task<Versions> AskVersion(Channel& channel, Deadline deadline) {
  return ToVersions(Call<::grpc::VersionCheckResponse>(channel, kHealth, "Version",
                                                       ::grpc::CheckRequest(), deadline));
}

// Kata answers these with google.protobuf.Empty, so any message without fields will do.
template <class Request>
Task<void> KataCall(Channel& channel, std::string_view method, const Request& request,
                    Deadline deadline) {
  return Done(Call<wire::PowerOffResponse>(channel, kKata, method, request, deadline));
}

Task<void> BringOnline(Channel& channel, std::uint32_t count, bool wait, bool cpu_only,
                       Deadline deadline) {
  ::grpc::OnlineCPUMemRequest request;
  request.set_wait(wait);
  request.set_nb_cpus(count);
  request.set_cpu_only(cpu_only);
  return KataCall(channel, "OnlineCPUMem", request, deadline);
}

Task<void> Reseed(Channel& channel, std::string seed, Deadline deadline) {
  ::grpc::ReseedRandomDevRequest request;
  request.set_data(std::move(seed));
  return KataCall(channel, "ReseedRandomDev", request, deadline);
}

Task<void> SetTime(Channel& channel, WallTime time, Deadline deadline) {
  using std::chrono::floor;
  using std::chrono::microseconds;
  using std::chrono::seconds;
  const auto whole = floor<seconds>(time);
  ::grpc::SetGuestDateTimeRequest request;
  request.set_sec(whole.time_since_epoch().count());
  request.set_usec(duration_cast<microseconds>(time - whole).count());
  return KataCall(channel, "SetGuestDateTime", request, deadline);
}

// What Kata's agent of the given release takes for OnlineCPUMem's nb_cpus: how many CPUs are new,
// or, from 3.2 on (its pull request 6289), how many there shall be. Told the other's number, an
// older one waits 5 s for CPUs that do not come, and a newer one leaves some offline and says
// nothing.
bool TakesTotal(std::string_view release) {
  constexpr std::pair<unsigned, unsigned> kSince{3, 2};
  std::pair<unsigned, unsigned> version{0, 0};
  const char* const end = release.data() + release.size();
  const auto [dot, error] = std::from_chars(release.data(), end, version.first);
  if (error != std::errc() || dot == end || *dot != '.') return false;
  (void)std::from_chars(dot + 1, end, version.second);
  return version >= kSince;
}

// The nb_cpus for a guest that has `had` CPUs online and is to have `wanted`; 0: none are new.
std::uint32_t CountFor(const Peer& peer, std::uint32_t had, std::uint32_t wanted) {
  if (wanted <= had) return 0;
  return peer.takes_total ? wanted : wanted - had;
}

// Whether `code`, the answer to a call of our own service, means that the agent has no such
// service. ttrpc's servers say that differently: Go's with kUnimplemented, Rust's, which Kata's
// agent has, with kInvalidArgument, as ours refuses an argument. So the agent is asked who it is.
asio::awaitable<bool> TurnsOutForeign(PeerPtr peer, Code code, Deadline deadline) {
  if (code != Code::kUnimplemented && code != Code::kInvalidArgument) co_return false;
  if (!peer->foreign) {
    const auto versions = co_await AskVersion(peer->channel, deadline);
    peer->foreign =
        versions ? versions->protocol != kProtocol : versions.error().code == Code::kUnimplemented;
    peer->takes_total = versions && TakesTotal(versions->agent);
  }
  co_return peer->foreign;
}

// The outcome of `call`, which is one of our own service: kUnimplemented from a foreign agent.
template <class T>
Task<T> OursAlone(PeerPtr peer, Task<T> call, std::string_view method, Deadline deadline) {
  if (peer->foreign) co_return NoSuchMethod(method);
  auto result = co_await std::move(call);
  if (result) co_return result;
  const bool foreign = co_await TurnsOutForeign(peer, result.error().code, deadline);
  if (foreign) co_return NoSuchMethod(method);
  co_return result;
}

// With Kata's calls, in the order of what must not be missed. What is new is brought online last,
// because that takes longest.
Task<PersonalizeReport> PersonalizeForeign(PeerPtr peer, Identity identity, Deadline deadline) {
  PersonalizeReport report{.online_vcpus = std::max(identity.had_vcpus, identity.vcpus),
                           .online_memory = std::max(identity.had_memory, identity.memory),
                           .foreign = true};
  CO_RETURN_IF_ERROR(co_await Reseed(peer->channel, identity.seed, deadline));
  report.reseeded = true;
  CO_RETURN_IF_ERROR(co_await SetTime(peer->channel, identity.time, deadline));
  report.clock_set = true;
  const std::uint32_t count = CountFor(*peer, identity.had_vcpus, report.online_vcpus);
  if (count > 0 || report.online_memory > identity.had_memory) {
    CO_RETURN_IF_ERROR(co_await BringOnline(peer->channel, count, /*wait=*/true,
                                            /*cpu_only=*/false, deadline));
  }
  CO_RETURN_IF_ERROR(CheckConfirmed(identity, report));
  co_return report;
}

Task<PersonalizeReport> PersonalizeAny(PeerPtr peer, wire::PersonalizeRequest request,
                                       Identity identity, Deadline deadline) {
  if (!peer->foreign) {
    auto report = co_await ToReport(
        Call<wire::PersonalizeResponse>(peer->channel, kGuest, "Personalize", request, deadline),
        identity);
    if (report) co_return report;
    const bool foreign = co_await TurnsOutForeign(peer, report.error().code, deadline);
    if (!foreign) co_return report;
  }
  co_return co_await PersonalizeForeign(peer, std::move(identity), deadline);
}

Task<OnlineReport> AwaitOnlineAny(PeerPtr peer, wire::AwaitOnlineRequest request,
                                  std::uint32_t had_vcpus, Deadline deadline) {
  if (!peer->foreign) {
    auto report = co_await ToOnlineReport(
        Call<wire::AwaitOnlineResponse>(peer->channel, kGuest, "AwaitOnline", request, deadline));
    if (report) co_return report;
    const bool foreign = co_await TurnsOutForeign(peer, report.error().code, deadline);
    if (!foreign) co_return report;
  }
  const std::uint32_t count = CountFor(*peer, had_vcpus, request.vcpus());
  CO_RETURN_IF_ERROR(co_await BringOnline(peer->channel, count, /*wait=*/true,
                                          /*cpu_only=*/false, deadline));
  co_return OnlineReport{.vcpus = std::max(request.vcpus(), had_vcpus),
                         .memory = Bytes(request.memory_bytes())};
}

// The methods are no coroutines: what the coroutines above need is handed to them by value, so a
// client may be destroyed while its calls are in flight.
class TtrpcClient final : public Client {
 public:
  TtrpcClient(Executor executor, UniqueFd socket, std::string peer)
      : peer_(std::make_shared<Peer>(std::move(executor), std::move(socket), std::move(peer))) {}
  ~TtrpcClient() override { peer_->channel.Close(); }

  Task<void> Check(Deadline deadline) override {
    return CheckServing(Call<::grpc::HealthCheckResponse>(peer_->channel, kHealth, "Check",
                                                          ::grpc::CheckRequest(), deadline));
  }

  Task<Versions> Version(Deadline deadline) override {
    return AskVersion(peer_->channel, deadline);
  }

  Task<PersonalizeReport> Personalize(const Identity& identity, Deadline deadline) override {
    if (auto valid = ValidateIdentity(identity); !valid) {
      return Failed<PersonalizeReport>(valid.error());
    }
    wire::PersonalizeRequest request;
    request.set_seed(identity.seed);
    request.set_time_unix_ns(UnixNanoseconds(identity.time));
    request.set_hostname(identity.hostname);
    request.set_machine_id(identity.machine_id);
    request.set_renew_boot_id(identity.renew_boot_id);
    request.set_vcpus(identity.vcpus);
    request.set_memory_bytes(identity.memory.count());
    request.set_timeout_ms(OnlineTimeoutMs(deadline));
    return PersonalizeAny(peer_, std::move(request), identity, deadline);
  }

  Task<OnlineReport> AwaitOnline(std::uint32_t vcpus, Bytes memory, std::uint32_t had_vcpus,
                                 Deadline deadline) override {
    wire::AwaitOnlineRequest request;
    request.set_vcpus(vcpus);
    request.set_memory_bytes(memory.count());
    request.set_timeout_ms(OnlineTimeoutMs(deadline));
    return AwaitOnlineAny(peer_, std::move(request), had_vcpus, deadline);
  }

  Task<ExecResult> Exec(const ExecRequest& exec, Deadline deadline) override {
    if (auto valid = ValidateExec(exec); !valid) return Failed<ExecResult>(valid.error());
    wire::ExecRequest request;
    for (const auto& argument : exec.argv) request.add_argv(argument);
    for (const auto& [name, value] : exec.env) (*request.mutable_env())[name] = value;
    request.set_cwd(exec.cwd);
    request.set_stdin_data(exec.stdin_data);
    request.set_timeout_ms(
        static_cast<std::uint64_t>(std::max<std::int64_t>(0, exec.timeout.count())));
    request.set_output_limit(exec.output_limit.count());
    request.set_exec_id(ToHex(RandomBytes(kExecIdBytes)));
    wire::KillRequest kill;
    kill.set_exec_id(request.exec_id());
    auto result = ToExecResult(Parse<wire::ExecResponse>(
        peer_->channel.Call(kGuest, "Exec", request.SerializeAsString(), deadline,
                            Channel::Message{kGuest, "Kill", kill.SerializeAsString()}),
        "Exec"));
    return OursAlone(peer_, std::move(result), "Exec", deadline);
  }

  Task<GuestDetails> Details(Deadline deadline) override {
    auto details = ToDetails(Call<wire::DetailsResponse>(peer_->channel, kGuest, "Details",
                                                         wire::DetailsRequest(), deadline));
    return OursAlone(peer_, std::move(details), "Details", deadline);
  }

  Task<void> PrepareSave(Deadline deadline) override {
    auto prepared = Done(Call<wire::PrepareSaveResponse>(peer_->channel, kGuest, "PrepareSave",
                                                         wire::PrepareSaveRequest(), deadline));
    return OursAlone(peer_, std::move(prepared), "PrepareSave", deadline);
  }

  Task<void> PowerOff(Deadline deadline) override {
    auto off = Done(Call<wire::PowerOffResponse>(peer_->channel, kGuest, "PowerOff",
                                                 wire::PowerOffRequest(), deadline));
    return OursAlone(peer_, std::move(off), "PowerOff", deadline);
  }

  Task<void> OnlineCpuMem(std::uint32_t vcpus, bool wait, bool cpu_only,
                          Deadline deadline) override {
    return BringOnline(peer_->channel, vcpus, wait, cpu_only, deadline);
  }

  Task<void> ReseedRandomDev(std::string seed, Deadline deadline) override {
    return Reseed(peer_->channel, std::move(seed), deadline);
  }

  Task<void> SetGuestDateTime(WallTime time, Deadline deadline) override {
    return SetTime(peer_->channel, time, deadline);
  }

  bool usable() const override { return peer_->channel.usable(); }

 private:
  const PeerPtr peer_;
};

Task<std::unique_ptr<Client>> ConnectTo(Executor executor, Endpoint endpoint, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(UniqueFd socket, co_await Dial(endpoint, deadline));
  co_return MakeTtrpcClient(std::move(executor), std::move(socket), ToString(endpoint));
}

}  // namespace

std::unique_ptr<Client> MakeTtrpcClient(Executor executor, UniqueFd socket, std::string peer) {
  return std::make_unique<TtrpcClient>(std::move(executor), std::move(socket), std::move(peer));
}

Task<std::unique_ptr<Client>> TtrpcConnector::Connect(const Endpoint& endpoint, Deadline deadline) {
  return ConnectTo(executor_, endpoint, deadline);
}

}  // namespace hatchery::agent
