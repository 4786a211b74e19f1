#include "agent/client/ttrpc_client.h"

#include <algorithm>
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

// The methods are no coroutines: what the coroutines below need is handed to them by value, so a
// client may be destroyed while its calls are in flight.
class TtrpcClient final : public Client {
 public:
  TtrpcClient(Executor executor, UniqueFd socket, std::string peer)
      : channel_(std::move(executor), std::move(socket), std::move(peer)) {}

  Task<void> Check(Deadline deadline) override {
    return CheckServing(Call<::grpc::HealthCheckResponse>(channel_, kHealth, "Check",
                                                          ::grpc::CheckRequest(), deadline));
  }

  Task<Versions> Version(Deadline deadline) override {
    return ToVersions(Call<::grpc::VersionCheckResponse>(channel_, kHealth, "Version",
                                                         ::grpc::CheckRequest(), deadline));
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
    return ToReport(
        Call<wire::PersonalizeResponse>(channel_, kGuest, "Personalize", request, deadline),
        identity);
  }

  Task<OnlineReport> AwaitOnline(std::uint32_t vcpus, Bytes memory, Deadline deadline) override {
    wire::AwaitOnlineRequest request;
    request.set_vcpus(vcpus);
    request.set_memory_bytes(memory.count());
    request.set_timeout_ms(OnlineTimeoutMs(deadline));
    return ToOnlineReport(
        Call<wire::AwaitOnlineResponse>(channel_, kGuest, "AwaitOnline", request, deadline));
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
    return ToExecResult(Parse<wire::ExecResponse>(
        channel_.Call(kGuest, "Exec", request.SerializeAsString(), deadline,
                      Channel::Message{kGuest, "Kill", kill.SerializeAsString()}),
        "Exec"));
  }

  Task<GuestDetails> Details(Deadline deadline) override {
    return ToDetails(
        Call<wire::DetailsResponse>(channel_, kGuest, "Details", wire::DetailsRequest(), deadline));
  }

  Task<void> PrepareSave(Deadline deadline) override {
    return Done(Call<wire::PrepareSaveResponse>(channel_, kGuest, "PrepareSave",
                                                wire::PrepareSaveRequest(), deadline));
  }

  Task<void> PowerOff(Deadline deadline) override {
    return Done(Call<wire::PowerOffResponse>(channel_, kGuest, "PowerOff", wire::PowerOffRequest(),
                                             deadline));
  }

  Task<void> OnlineCpuMem(std::uint32_t vcpus, bool wait, bool cpu_only,
                          Deadline deadline) override {
    ::grpc::OnlineCPUMemRequest request;
    request.set_wait(wait);
    request.set_nb_cpus(vcpus);
    request.set_cpu_only(cpu_only);
    return KataCall("OnlineCPUMem", request, deadline);
  }

  Task<void> ReseedRandomDev(std::string seed, Deadline deadline) override {
    ::grpc::ReseedRandomDevRequest request;
    request.set_data(std::move(seed));
    return KataCall("ReseedRandomDev", request, deadline);
  }

  Task<void> SetGuestDateTime(WallTime time, Deadline deadline) override {
    using std::chrono::floor;
    using std::chrono::microseconds;
    using std::chrono::seconds;
    const auto whole = floor<seconds>(time);
    ::grpc::SetGuestDateTimeRequest request;
    request.set_sec(whole.time_since_epoch().count());
    request.set_usec(duration_cast<microseconds>(time - whole).count());
    return KataCall("SetGuestDateTime", request, deadline);
  }

  bool usable() const override { return channel_.usable(); }

 private:
  // Kata answers these with google.protobuf.Empty, so any message without fields will do.
  template <class Request>
  Task<void> KataCall(std::string_view method, const Request& request, Deadline deadline) {
    return Done(Call<wire::PowerOffResponse>(channel_, kKata, method, request, deadline));
  }

  Channel channel_;
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
