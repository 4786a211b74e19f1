#include "bench/served.h"

#include <condition_variable>
#include <memory>
#include <mutex>

#include "base/ids.h"
#include "base/process.h"
#include "cmd/hatchery/local.h"

namespace hatchery::bench {

namespace {

constexpr auto kTemplateTimeout = std::chrono::minutes(3);
constexpr auto kFillTimeout = std::chrono::minutes(3);
constexpr auto kCallTimeout = std::chrono::seconds(30);

v1::AcquireRequest RequestOf(Sizes sizes) {
  v1::AcquireRequest request;
  request.set_vcpus(sizes.vcpus);
  request.set_memory_bytes(sizes.memory.count());
  return request;
}

v1::ExecRequest TrueIn(const std::string& vm_id) {
  v1::ExecRequest request;
  request.set_vm_id(vm_id);
  request.add_argv("/bin/true");
  return request;
}

Result<void> CheckRan(const v1::ExecResponse& ran) {
  if (ran.has_exit_code() && ran.exit_code() == 0) return {};
  return Internal("a command failed in the VM: " + ran.err());
}

Result<void> CheckSource(const v1::AcquireResponse& reply, v1::AcquireResponse::Source wanted) {
  if (reply.source() == wanted) return {};
  return FailedPrecondition("an acquire was served by " +
                            v1::AcquireResponse::Source_Name(reply.source()) + ", not by " +
                            v1::AcquireResponse::Source_Name(wanted));
}

Error ToError(const grpc::Status& status) {
  return {static_cast<Code>(status.error_code()), status.error_message()};
}

// One VM of a burst: its acquire, then its command.
struct Flight {
  grpc::ClientContext acquire_context, exec_context;
  v1::AcquireRequest acquire;
  v1::AcquireResponse acquired;
  v1::ExecRequest exec;
  v1::ExecResponse ran;
  Served::Burst::Call call = {Unavailable("not sent"), Unavailable("not sent")};
};

// The flights of a burst. Replies come on gRPC's threads.
class Flock {
 public:
  Flock(v1::Cache::Stub& stub, std::uint32_t count, bool exec)
      : stub_(stub), exec_(exec), left_(count) {
    for (std::uint32_t i = 0; i < count; ++i) flights_.push_back(std::make_unique<Flight>());
  }

  const std::vector<std::unique_ptr<Flight>>& flights() const { return flights_; }
  SteadyClock::time_point start() const { return start_; }

  void LetGo() {
    start_ = SteadyClock::now();
    for (const auto& flight : flights_) {
      Flight& f = *flight;
      Bound(f.acquire_context);
      stub_.async()->Acquire(&f.acquire_context, &f.acquire, &f.acquired,
                             [this, &f](const grpc::Status& status) { OnAcquired(f, status); });
    }
  }
  void Cancel() {
    for (const auto& flight : flights_) {
      flight->acquire_context.TryCancel();
      flight->exec_context.TryCancel();
    }
  }
  void AwaitAll() {
    std::unique_lock lock(mutex_);
    landed_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  static void Bound(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  }

  void OnAcquired(Flight& f, const grpc::Status& status) {
    if (!status.ok()) {
      f.call.acquired = std::unexpected(ToError(status));
      f.call.first_exec = f.call.acquired;
      return Land();
    }
    f.call.acquired = SecondsSince(start_);
    if (!exec_) return Land();
    Bound(f.exec_context);
    f.exec = TrueIn(f.acquired.vm().vm_id());
    stub_.async()->Exec(&f.exec_context, &f.exec, &f.ran,
                        [this, &f](const grpc::Status& ended) { OnExec(f, ended); });
  }
  void OnExec(Flight& f, const grpc::Status& status) {
    f.call.first_exec = SecondsSince(start_);
    if (!status.ok()) {
      f.call.first_exec = std::unexpected(ToError(status));
    } else if (auto ran = CheckRan(f.ran); !ran) {
      f.call.first_exec = std::unexpected(ran.error());
    }
    Land();
  }
  void Land() {
    const std::lock_guard lock(mutex_);
    --left_;
    landed_.notify_all();
  }

  v1::Cache::Stub& stub_;
  const bool exec_;
  std::vector<std::unique_ptr<Flight>> flights_;
  SteadyClock::time_point start_;
  std::mutex mutex_;
  std::condition_variable landed_;
  std::uint32_t left_;  // under mutex_
};

}  // namespace

Served::Served(asio::io_context& io, cli::Interrupt& interrupt, cli::Client& client)
    : io_(io), interrupt_(interrupt), client_(client) {}

Result<v1::Template> Served::MakeTemplate(Sizes sizes) {
  v1::InitRequest request;
  request.mutable_template_spec()->set_vcpus(sizes.vcpus);
  request.mutable_template_spec()->set_memory_bytes(sizes.memory.count());
  request.set_pool_target(0);
  v1::Template made;
  RETURN_IF_ERROR(client_.Stream(client_.factory(), &v1::Factory::Stub::Init, request,
                                 [&](const v1::InitResponse& response) {
                                   if (response.has_result())
                                     made = response.result().template_info();
                                 },
                                 {.timeout = kTemplateTimeout}));
  return made;
}

Result<void> Served::FillPool(Sizes sizes, std::uint32_t target) {
  v1::SetPoolRequest request;
  request.set_vcpus(sizes.vcpus);
  request.set_memory_bytes(sizes.memory.count());
  request.set_target(target);
  request.set_wait(target > 0);
  return client_.Stream(client_.factory(), &v1::Factory::Stub::SetPool, request,
                        [](const v1::SetPoolResponse&) {}, {.timeout = kFillTimeout});
}

Result<void> Served::RemovePool(Sizes sizes, std::uint32_t target) {
  // Whole, so that every VM of it is known.
  RETURN_IF_ERROR(FillPool(sizes, target));
  ASSIGN_OR_RETURN(const auto warm, Warm(sizes));
  return EndAndAwait(warm, [&] { return FillPool(sizes, 0); });
}

Result<std::vector<v1::Vm>> Served::Warm(Sizes sizes) {
  v1::ListVmsRequest request;
  request.set_state(v1::VM_STATE_WARM);
  ASSIGN_OR_RETURN(const auto listed, client_.Call(client_.cache(), &v1::Cache::Stub::ListVms,
                                                   request, {.timeout = kCallTimeout}));
  std::vector<v1::Vm> warm;
  for (const auto& vm : listed.vms()) {
    if (vm.vcpus() == sizes.vcpus && vm.memory_bytes() == sizes.memory.count()) warm.push_back(vm);
  }
  return warm;
}

Result<Served::Acquired> Served::Acquire(Sizes sizes, v1::AcquireResponse::Source from) {
  const auto request = RequestOf(sizes);
  const auto start = SteadyClock::now();
  auto reply =
      client_.Call(client_.cache(), &v1::Cache::Stub::Acquire, request, {.timeout = kCallTimeout});
  const double took = SecondsSince(start);
  if (!reply) return std::unexpected(reply.error());
  if (auto right = CheckSource(*reply, from); !right) {
    RETURN_IF_ERROR(Release({reply->vm()}));
    return std::unexpected(right.error());
  }
  return Acquired{took, *std::move(reply)};
}

Result<Served::InBackground> Served::AcquireInBackground(Sizes sizes) {
  auto request = RequestOf(sizes);
  request.set_request_id(NewId("bench"));
  request.set_resize_in_background(true);
  InBackground times;
  const auto start = SteadyClock::now();
  auto reply =
      client_.Call(client_.cache(), &v1::Cache::Stub::Acquire, request, {.timeout = kCallTimeout});
  times.replied = SecondsSince(start);
  if (!reply) return std::unexpected(reply.error());
  times.vm = reply->vm();
  auto right = CheckSource(*reply, v1::AcquireResponse::POOL);
  if (right) {
    request.set_resize_in_background(false);
    const auto again = client_.Call(client_.cache(), &v1::Cache::Stub::Acquire, request,
                                    {.timeout = kCallTimeout});
    times.ready = SecondsSince(start);
    if (!again) right = std::unexpected(again.error());
    if (again) right = CheckSource(*again, v1::AcquireResponse::REPEAT);
  }
  if (right) return times;
  RETURN_IF_ERROR(Release({times.vm}));
  return std::unexpected(right.error());
}

Result<double> Served::Exec(const std::string& vm_id) {
  const auto request = TrueIn(vm_id);
  const auto start = SteadyClock::now();
  auto ran =
      client_.Call(client_.cache(), &v1::Cache::Stub::Exec, request, {.timeout = kCallTimeout});
  const double took = SecondsSince(start);
  if (!ran) return std::unexpected(ran.error());
  RETURN_IF_ERROR(CheckRan(*ran));
  return took;
}

Result<std::string> Served::Ask(const std::string& vm_id, std::vector<std::string> argv) {
  v1::ExecRequest request;
  request.set_vm_id(vm_id);
  request.mutable_argv()->Assign(argv.begin(), argv.end());
  ASSIGN_OR_RETURN(auto ran, client_.Call(client_.cache(), &v1::Cache::Stub::Exec, request,
                                          {.timeout = kCallTimeout}));
  RETURN_IF_ERROR(CheckRan(ran));
  return std::move(*ran.mutable_out());
}

Result<void> Served::EndAndAwait(const std::vector<v1::Vm>& vms,
                                 const std::function<Result<void>()>& end) {
  std::vector<std::unique_ptr<Process>> ending;
  for (const auto& vm : vms) {
    // One that is gone by now needs no waiting for.
    const auto identity = IdentifyProcess(static_cast<pid_t>(vm.pid()));
    if (!identity) continue;
    auto process = Process::Adopt(io_.get_executor(), *identity);
    if (process) ending.push_back(*std::move(process));
  }
  auto ended = end();
  for (const auto& process : ending) {
    auto gone = cli::RunHere(io_, interrupt_, process->Wait(After(kCallTimeout)));
    if (!gone && ended) ended = std::unexpected(gone.error());
  }
  return ended;
}

Result<void> Served::Release(const std::vector<v1::Vm>& vms) {
  return EndAndAwait(vms, [&] {
    Result<void> released;
    for (const auto& vm : vms) {
      v1::ReleaseRequest request;
      request.set_vm_id(vm.vm_id());
      auto done = client_.Call(client_.cache(), &v1::Cache::Stub::Release, request,
                               {.timeout = kCallTimeout});
      if (!done && released) released = std::unexpected(done.error());
    }
    return released;
  });
}

Served::Burst Served::AcquireAtOnce(Sizes sizes, std::uint32_t count, bool exec) {
  Flock flock(client_.cache(), count, exec);
  for (const auto& flight : flock.flights()) flight->acquire = RequestOf(sizes);
  {
    const cli::Interrupt::Scope scope(interrupt_, [&] { flock.Cancel(); });
    flock.LetGo();
    flock.AwaitAll();
  }
  Burst burst;
  burst.start = flock.start();
  for (const auto& flight : flock.flights()) {
    auto& call = flight->call;
    if (call.acquired) {
      burst.vms.push_back(flight->acquired.vm());
      if (auto right = CheckSource(flight->acquired, v1::AcquireResponse::POOL); !right) {
        call.acquired = std::unexpected(right.error());
      }
    }
    burst.calls.push_back(std::move(call));
  }
  return burst;
}

}  // namespace hatchery::bench
