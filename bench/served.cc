#include "bench/served.h"

#include <sys/stat.h>

#include <chrono>
#include <set>
#include <thread>

#include "base/bytes.h"
#include "base/files.h"

namespace hatchery::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kTemplateTimeout = std::chrono::minutes(3);
constexpr auto kFillTimeout = std::chrono::minutes(3);
constexpr auto kCallTimeout = std::chrono::seconds(30);

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() / 1e9;
}

// Returns when the pool is full.
Result<void> Fill(cli::Client& client, std::uint32_t size) {
  v1::SetPoolRequest request;
  request.set_target(size);
  request.set_wait(true);
  return client.Stream(client.factory(), &v1::Factory::Stub::SetPool, request,
                       [](const v1::SetPoolResponse&) {}, {.timeout = kFillTimeout});
}

Result<v1::ListVmsResponse> List(cli::Client& client, v1::VmState state) {
  v1::ListVmsRequest request;
  request.set_state(state);
  return client.Call(client.cache(), &v1::Cache::Stub::ListVms, request, {.timeout = kCallTimeout});
}

// A released VM is ended behind the reply. There is no event for that in the API: ask until it is.
Result<void> AwaitEnds(cli::Client& client) {
  const auto deadline = Clock::now() + kCallTimeout;
  for (;;) {
    ASSIGN_OR_RETURN(const auto ending, List(client, v1::VM_STATE_RELEASED));
    if (ending.vms().empty()) return {};
    if (Clock::now() > deadline) return DeadlineExceeded("a released VM does not end");
    std::this_thread::yield();
  }
}

Result<void> Release(cli::Client& client, const std::string& vm_id) {
  v1::ReleaseRequest request;
  request.set_vm_id(vm_id);
  auto released =
      client.Call(client.cache(), &v1::Cache::Stub::Release, request, {.timeout = kCallTimeout});
  if (!released) return std::unexpected(released.error());
  return AwaitEnds(client);
}

Result<double> TimeFirstExec(cli::Client& client, const std::string& vm_id) {
  v1::ExecRequest request;
  request.set_vm_id(vm_id);
  request.add_argv("/bin/true");
  const auto start = Clock::now();
  auto ran =
      client.Call(client.cache(), &v1::Cache::Stub::Exec, request, {.timeout = kCallTimeout});
  const double took = SecondsSince(start);
  if (!ran) return std::unexpected(ran.error());
  if (!ran->has_exit_code() || ran->exit_code() != 0) return Internal("/bin/true failed in the VM");
  return took;
}

Result<void> TimeOne(cli::Client& client, const v1::AcquireRequest& request, std::uint32_t pool,
                     AcquireTimes& times) {
  const auto start = Clock::now();
  auto acquired =
      client.Call(client.cache(), &v1::Cache::Stub::Acquire, request, {.timeout = kCallTimeout});
  const auto end = Clock::now();
  if (!acquired) return std::unexpected(acquired.error());
  if (acquired->source() != v1::AcquireResponse::POOL) {
    return Internal("an acquire was not served by the pool, although it was full");
  }
  times.acquire.push_back(std::chrono::duration<double>(end - start).count());
  times.inside.push_back(Seconds(acquired->total()));
  times.personalize.push_back(Seconds(acquired->personalize()));
  times.resize.push_back(Seconds(acquired->resize()));
  RETURN_IF_ERROR(Fill(client, pool));
  times.refill.push_back(SecondsSince(end));
  ASSIGN_OR_RETURN(const double exec, TimeFirstExec(client, acquired->vm().vm_id()));
  times.first_exec.push_back(exec);
  return Release(client, acquired->vm().vm_id());
}

}  // namespace

Result<v1::Template> MakeTemplate(cli::Client& client) {
  v1::InitRequest request;
  request.mutable_template_spec()->set_vcpus(1);
  request.mutable_template_spec()->set_memory_bytes(Bytes::MiB(256).count());
  request.set_pool_target(0);
  v1::Template made;
  RETURN_IF_ERROR(client.Stream(client.factory(), &v1::Factory::Stub::Init, request,
                                [&](const v1::InitResponse& response) {
                                  if (response.has_result())
                                    made = response.result().template_info();
                                },
                                {.timeout = kTemplateTimeout}));
  return made;
}

Result<PoolCost> FillPool(cli::Client& client, std::uint32_t size) {
  PoolCost cost;
  const auto start = Clock::now();
  RETURN_IF_ERROR(Fill(client, size));
  cost.fill_seconds = SecondsSince(start);
  ASSIGN_OR_RETURN(const auto warm, List(client, v1::VM_STATE_WARM));
  for (const auto& vm : warm.vms()) {
    v1::GetVmRequest request;
    request.set_vm_id(vm.vm_id());
    ASSIGN_OR_RETURN(const auto got, client.Call(client.cache(), &v1::Cache::Stub::GetVm, request,
                                                 {.timeout = kCallTimeout}));
    cost.private_bytes.push_back(static_cast<double>(got.stats().private_bytes()));
  }
  if (cost.private_bytes.size() != size) return Internal("the pool is not as full as it said");
  return cost;
}

Result<AcquireTimes> TimeAcquires(cli::Client& client, const v1::AcquireRequest& request,
                                  std::uint32_t pool, int warm_ups, int samples) {
  AcquireTimes ignored, times;
  for (int i = 0; i < warm_ups; ++i) RETURN_IF_ERROR(TimeOne(client, request, pool, ignored));
  for (int i = 0; i < samples; ++i) RETURN_IF_ERROR(TimeOne(client, request, pool, times));
  return times;
}

std::optional<double> MemfdBytes(pid_t pid) {
  const fs::path folder = fs::path("/proc") / std::to_string(pid) / "fd";
  std::set<ino_t> seen;
  double bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code gone;
    if (!fs::read_symlink(entry.path(), gone).string().starts_with("/memfd:")) continue;
    struct stat info{};
    if (::stat(entry.path().c_str(), &info) != 0 || !seen.insert(info.st_ino).second) continue;
    bytes += static_cast<double>(info.st_blocks) * 512;
  }
  if (error || seen.empty()) return std::nullopt;
  return bytes;
}

}  // namespace hatchery::bench
