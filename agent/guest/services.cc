#include "agent/guest/services.h"

#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "kata/agent.pb.h"

namespace hatchery::agent::guest {

namespace {

using std::chrono::milliseconds;

constexpr std::string_view kProtocol = "hatchery.agent.v1";
constexpr std::string_view kKataProtocol = "0.0.1";  // what Kata's agent says, of whatever release
constexpr std::string_view kGuestService = "hatchery.agent.v1.Guest";
constexpr std::string_view kHealthService = "grpc.Health";
constexpr std::string_view kKataService = "grpc.AgentService";
constexpr milliseconds kDefaultOnlineTimeout{10'000};
constexpr std::uint64_t kMaxOnlineTimeoutMs = 3'600'000;

milliseconds OnlineTimeout(std::uint64_t timeout_ms) {
  return timeout_ms == 0 ? kDefaultOnlineTimeout
                         : milliseconds(std::min(timeout_ms, kMaxOnlineTimeoutMs));
}

// Answers that carry nothing, as google.protobuf.Empty.
const std::string kEmpty;

}  // namespace

Services::Services(EventLoop& loop, Worker& worker, GuestSystem& system, Onliner& onliner)
    : loop_(loop),
      worker_(worker),
      system_(system),
      onliner_(onliner),
      personalizer_(system),
      execs_(loop),
      kata_vcpus_(onliner.online().vcpus) {}

void Services::AddTo(Dispatcher& dispatcher, Offer offer) {
  AddHealth(dispatcher, offer == Offer::kAll ? kProtocol : kKataProtocol);
  AddKata(dispatcher);
  if (offer == Offer::kAll) AddGuest(dispatcher);
}

void Services::AddHealth(Dispatcher& dispatcher, std::string_view protocol) {
  dispatcher.AddUnary<grpc::CheckRequest>(
      kHealthService, "Check", [](const grpc::CheckRequest&) -> Result<grpc::HealthCheckResponse> {
        grpc::HealthCheckResponse response;
        response.set_status(grpc::HealthCheckResponse::SERVING);
        return response;
      });
  dispatcher.AddUnary<grpc::CheckRequest>(
      kHealthService, "Version",
      [protocol](const grpc::CheckRequest&) -> Result<grpc::VersionCheckResponse> {
        grpc::VersionCheckResponse response;
        response.set_grpc_version(std::string(protocol));
        response.set_agent_version(HATCHERY_VERSION);
        return response;
      });
}

void Services::AddKata(Dispatcher& dispatcher) {
  dispatcher.AddAsync<grpc::OnlineCPUMemRequest>(
      kKataService, "OnlineCPUMem",
      [this](const grpc::OnlineCPUMemRequest& request, std::shared_ptr<Call> call) {
        OnlineCpuMem(request.nb_cpus(), request.wait(), std::move(call));
      });
  dispatcher.AddAsync<grpc::ReseedRandomDevRequest>(
      kKataService, "ReseedRandomDev",
      [this](const grpc::ReseedRandomDevRequest& request, const std::shared_ptr<Call>& call) {
        constexpr std::size_t kMaxSeedBytes = 4096;
        if (request.data().empty() || request.data().size() > kMaxSeedBytes) {
          return call->Finish(InvalidArgument("data", "must be 1 to 4096 bytes"));
        }
        auto reseeded = system_.Reseed(request.data());
        if (!reseeded) return call->Finish(Annotate(std::move(reseeded.error()), "seed"));
        call->Finish(kEmpty);
      });
  dispatcher.AddAsync<grpc::SetGuestDateTimeRequest>(
      kKataService, "SetGuestDateTime",
      [this](const grpc::SetGuestDateTimeRequest& request, const std::shared_ptr<Call>& call) {
        constexpr std::int64_t kUsecPerSec = 1'000'000, kNsPerSec = 1'000'000'000;
        constexpr std::int64_t kMaxSec = INT64_MAX / kNsPerSec - 1;
        if (request.sec() < 0 || request.sec() > kMaxSec || request.usec() < 0 ||
            request.usec() >= kUsecPerSec) {
          return call->Finish(InvalidArgument("Sec", "no time between 1970 and 2262"));
        }
        auto set = system_.SetClock(request.sec() * kNsPerSec + request.usec() * 1000);
        if (!set) return call->Finish(Annotate(std::move(set.error()), "clock"));
        call->Finish(kEmpty);
      });
  dispatcher.AddUnary<grpc::GuestDetailsRequest>(
      kKataService, "GetGuestDetails",
      [this](const grpc::GuestDetailsRequest& request) -> Result<grpc::GuestDetailsResponse> {
        grpc::GuestDetailsResponse response;
        if (request.mem_block_size()) {
          response.set_mem_block_size_bytes(MemoryBlockSize(system_).count());
        }
        if (request.mem_hotplug_probe()) {
          std::error_code ignored;
          response.set_support_mem_hotplug_probe(
              std::filesystem::exists(system_.Path("/sys/devices/system/memory/probe"), ignored));
        }
        response.mutable_agent_details()->set_version(HATCHERY_VERSION);
        return response;
      });
}

void Services::AddGuest(Dispatcher& dispatcher) {
  dispatcher.AddAsync<v1::PersonalizeRequest>(
      kGuestService, "Personalize",
      [this](const v1::PersonalizeRequest& request, std::shared_ptr<Call> call) {
        Personalize(request, std::move(call));
      });
  dispatcher.AddAsync<v1::AwaitOnlineRequest>(
      kGuestService, "AwaitOnline",
      [this](const v1::AwaitOnlineRequest& request, std::shared_ptr<Call> call) {
        AwaitOnline(request, std::move(call));
      });
  dispatcher.AddAsync<v1::ExecRequest>(
      kGuestService, "Exec", [this](const v1::ExecRequest& request, std::shared_ptr<Call> call) {
        execs_.Start(request, std::move(call));
      });
  dispatcher.AddUnary<v1::KillRequest>(
      kGuestService, "Kill", [this](const v1::KillRequest& request) -> Result<v1::KillResponse> {
        execs_.Kill(request.exec_id());
        return v1::KillResponse();
      });
  dispatcher.AddUnary<v1::DetailsRequest>(
      kGuestService, "Details",
      [this](const v1::DetailsRequest&) -> Result<v1::DetailsResponse> { return Details(); });
  dispatcher.AddAsync<v1::PrepareSaveRequest>(
      kGuestService, "PrepareSave",
      [this](const v1::PrepareSaveRequest&, std::shared_ptr<Call> call) {
        PrepareSave(std::move(call));
      });
  dispatcher.AddAsync<v1::PowerOffRequest>(
      kGuestService, "PowerOff", [this](const v1::PowerOffRequest&, std::shared_ptr<Call> call) {
        PowerOff(std::move(call));
      });
}

void Services::WaitForOnline(std::uint32_t vcpus, Bytes memory, std::chrono::nanoseconds timeout,
                             std::shared_ptr<Call> call, Onliner::Done done) {
  if (call->deadline() != Time::max()) {
    timeout = std::min<std::chrono::nanoseconds>(
        timeout, call->deadline() - std::chrono::steady_clock::now());
  }
  const Onliner::WaitId wait = onliner_.WaitFor(vcpus, memory, timeout, std::move(done));
  // 0: `done` has run, and the call is over.
  if (wait != 0) call->OnCancel([this, wait] { onliner_.CancelWait(wait); });
}

void Services::Personalize(const v1::PersonalizeRequest& request, std::shared_ptr<Call> call) {
  auto identity = personalizer_.Apply(request);
  if (!identity) return call->Finish(std::unexpected(identity.error()));
  WaitForOnline(
      request.vcpus(), Bytes(request.memory_bytes()), OnlineTimeout(request.timeout_ms()), call,
      [this, call, response = *std::move(identity)](const Result<Online>& online) mutable {
        if (!online) return call->Finish(std::unexpected(online.error()));
        kata_vcpus_ = online->vcpus;
        response.set_online_vcpus(online->vcpus);
        response.set_online_memory_bytes(online->memory.count());
        call->Finish(response.SerializeAsString());
      });
}

void Services::AwaitOnline(const v1::AwaitOnlineRequest& request, std::shared_ptr<Call> call) {
  WaitForOnline(request.vcpus(), Bytes(request.memory_bytes()), OnlineTimeout(request.timeout_ms()),
                call, [this, call](const Result<Online>& online) {
                  v1::AwaitOnlineResponse response;
                  if (!online) response.set_problem(online.error().message);
                  const Online& now = onliner_.online();
                  kata_vcpus_ = now.vcpus;
                  response.set_online_vcpus(now.vcpus);
                  response.set_online_memory_bytes(now.memory.count());
                  call->Finish(response.SerializeAsString());
                });
}

void Services::OnlineCpuMem(std::uint32_t new_vcpus, bool wait, std::shared_ptr<Call> call) {
  // CPUs and memory come online by themselves; the call is a barrier for who asked to wait.
  const std::uint32_t target = wait ? kata_vcpus_ + new_vcpus : 0;
  WaitForOnline(target, Bytes(), kDefaultOnlineTimeout, call,
                [this, call, wait](const Result<Online>& online) {
                  if (!online) return call->Finish(std::unexpected(online.error()));
                  if (wait) kata_vcpus_ = online->vcpus;
                  call->Finish(kEmpty);
                });
}

v1::DetailsResponse Services::Details() const {
  v1::DetailsResponse response;
  response.set_agent_version(HATCHERY_VERSION);
  utsname names{};
  if (::uname(&names) == 0) response.set_kernel_release(names.release);
  response.set_hostname(system_.Hostname());
  response.set_boot_id(system_.Read("/proc/sys/kernel/random/boot_id").value_or(""));
  response.set_machine_id(system_.Read("/etc/machine-id").value_or(""));
  response.set_online_vcpus(onliner_.online().vcpus);
  response.set_online_memory_bytes(onliner_.online().memory.count());
  response.set_memory_block_bytes(MemoryBlockSize(system_).count());
  response.set_time_unix_ns(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                std::chrono::system_clock::now().time_since_epoch())
                                .count());
  return response;
}

void Services::PrepareSave(std::shared_ptr<Call> call) {
  personalizer_.Prepare();
  worker_.Submit([this, call = std::move(call)]() mutable {
    system_.Sync();
    Result<void> dropped = system_.WriteKernelFile("/proc/sys/vm/drop_caches", "3");
    // Absent in kernels without memory compaction, and then not missed.
    (void)system_.WriteKernelFile("/proc/sys/vm/compact_memory", "1");
    system_.Settle();
    loop_.Post([call = std::move(call), dropped = std::move(dropped)] {
      if (!dropped) return call->Finish(std::unexpected(dropped.error()));
      call->Finish(kEmpty);
    });
  });
}

void Services::PowerOff(std::shared_ptr<Call> call) {
  call->Finish(kEmpty, [this] {
    // Off the loop: it writes back first, and that can take long.
    worker_.Submit([this] {
      const auto off = system_.PowerOff();
      if (!off) std::fprintf(stderr, "hatchery-agent: %s\n", off.error().message.c_str());
    });
  });
}

}  // namespace hatchery::agent::guest
