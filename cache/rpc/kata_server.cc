#include "cache/rpc/kata_server.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "cache/rpc/bridge.h"
#include "cache/rpc/from_api.h"
#include "cache/rpc/gate.h"
#include "cache/rpc/unix_listener.h"
#include "kata/cache.grpc.pb.h"

namespace hatchery::cache::rpc {

namespace {

namespace wire = ::cache;
using google::protobuf::Empty;
using Undelivered = UnaryCall<wire::GrpcVM>::Undelivered;

constexpr unsigned kMode = 0600;
constexpr unsigned kFolderMode = 0755;

// Of a GrpcVM or a GrpcVMStatus.
template <class Message>
void SetSizes(Message& message, const record::VmRecord& vm) {
  message.set_cpu(vm.vcpus());
  message.set_memory(static_cast<std::uint32_t>(Bytes(vm.memory_bytes()).mib()));
}

AcquireParams ParamsOf(const kata::Options& options, Caller caller) {
  AcquireParams params;
  params.template_name = options.template_name;
  params.vcpus = options.vcpus;
  params.memory = options.memory;
  // Clients know nothing of leases: they keep a VM for as long as they live.
  params.term.kind = LeaseTerm::Kind::kCaller;
  params.hand_over = true;
  params.caller = std::move(caller);
  return params;
}

Task<wire::GrpcVM> HandleGetBaseVm(cache::Cache& cache, AcquireParams params, Deadline deadline,
                                   std::shared_ptr<Undelivered> undelivered) {
  ASSIGN_OR_CO_RETURN(const auto acquired,
                      co_await cache.leases().Acquire(std::move(params), deadline));
  const VmPtr vm = acquired.vm;
  *undelivered = [&cache, weak = std::weak_ptr(vm)] { cache.leases().Undelivered(weak); };
  const auto endpoints = vm->machine->vm->endpoints();
  wire::GrpcVM reply;
  reply.set_id(vm->record.id());
  reply.set_hypervisor(
      kata::HypervisorJson(vm->id(), endpoints.control, acquired.handover.value()));
  // A virtio-serial port's socket carries one connection; vsock as many as there are.
  reply.set_proxyurl(
      ToString(endpoints.agent_vsock ? Endpoint(*endpoints.agent_vsock) : endpoints.agent));
  SetSizes(reply, vm->record);
  reply.set_cpudelta(acquired.offline_vcpus);
  co_return reply;
}

class KataService final : public wire::CacheService::CallbackService {
 public:
  using Context = grpc::CallbackServerContext;

  KataService(Executor executor, const Gate& gate, cache::Cache& cache,
              kata::Configuration& configuration, std::function<void()> on_quit)
      : executor_(std::move(executor)),
        gate_(gate),
        cache_(cache),
        configuration_(configuration),
        on_quit_(std::move(on_quit)) {}

  // Every call from here on is refused.
  void Refuse() { refusing_ = true; }

  grpc::ServerUnaryReactor* Config(Context* context, const Empty*,
                                   wire::GrpcVMConfig* reply) override {
    auto handle = [this](const Caller&) -> Task<wire::GrpcVMConfig> {
      CO_RETURN_IF_ERROR(CheckServing());
      ASSIGN_OR_CO_RETURN(auto answer, co_await configuration_.Get());
      wire::GrpcVMConfig config;
      config.set_data(std::move(answer.vm_config));
      config.set_agentconfig(std::move(answer.agent_config));
      co_return config;
    };
    return UnaryCall<wire::GrpcVMConfig>::Start(
        executor_, gate_.Admit(*context, "cache.CacheService.Config"), context, reply, handle);
  }

  grpc::ServerUnaryReactor* GetBaseVM(Context* context, const Empty*,
                                      wire::GrpcVM* reply) override {
    const auto deadline = DeadlineOf(*context, cache_.settings().acquire_timeout);
    auto undelivered = std::make_shared<Undelivered>();
    auto handle = [this, deadline, undelivered](Caller caller) -> Task<wire::GrpcVM> {
      CO_RETURN_IF_ERROR(CheckServing());
      co_return co_await HandleGetBaseVm(
          cache_, ParamsOf(configuration_.options(), std::move(caller)), deadline, undelivered);
    };
    return UnaryCall<wire::GrpcVM>::Start(executor_,
                                          gate_.Admit(*context, "cache.CacheService.GetBaseVM"),
                                          context, reply, handle, undelivered);
  }

  grpc::ServerUnaryReactor* Status(Context* context, const Empty*,
                                   wire::GrpcStatus* reply) override {
    auto handle = [this](const Caller&) -> Task<wire::GrpcStatus> {
      CO_RETURN_IF_ERROR(CheckServing());
      co_return StatusNow();
    };
    return UnaryCall<wire::GrpcStatus>::Start(
        executor_, gate_.Admit(*context, "cache.CacheService.Status"), context, reply, handle);
  }

  grpc::ServerUnaryReactor* Quit(Context* context, const Empty*, Empty* reply) override {
    auto handle = [this](const Caller&) -> Task<Empty> {
      CO_RETURN_IF_ERROR(CheckServing());
      on_quit_();
      co_return Empty();
    };
    return UnaryCall<Empty>::Start(executor_, gate_.Admit(*context, "cache.CacheService.Quit"),
                                   context, reply, handle);
  }

 private:
  Result<void> CheckServing() const {
    if (!refusing_) return {};
    return Unavailable("the service does not answer Kata's protocol any more: it was told to quit");
  }

  // Those that GetBaseVM could hand over now.
  wire::GrpcStatus StatusNow() const {
    const auto& options = configuration_.options();
    const auto name = TemplateNameOrDefault(options.template_name).value_or("");
    wire::GrpcStatus status;
    status.set_pid(::getpid());
    for (const auto& vm : cache_.vms().List()) {
      if (vm->phase() != record::VM_PHASE_WARM || vm->record.template_name() != name) continue;
      auto* const pooled = status.add_vmstatus();
      pooled->set_pid(vm->machine->vm->endpoints().pid);
      SetSizes(*pooled, vm->record);
    }
    return status;
  }

  Executor executor_;
  const Gate& gate_;
  cache::Cache& cache_;
  kata::Configuration& configuration_;
  const std::function<void()> on_quit_;
  bool refusing_ = false;  // loop only
};

}  // namespace

struct KataServer::Impl {
  Impl(Executor e, cache::Cache& cache, kata::Configuration& configuration, Options options)
      : access(std::move(options.access)),
        listener(e),
        gate(access, listener.peers()),
        service(e, gate, cache, configuration, [this, told = std::move(options.on_quit)] {
          log::Info({}, "Kata's protocol: told to quit");
          StopAccepting();
          if (told) told();
        }) {}

  void StopAccepting() {
    service.Refuse();
    listener.Close();
  }

  const Access access;
  UnixListener listener;
  const Gate gate;
  KataService service;
  std::unique_ptr<grpc::Server> server;
};

KataServer::KataServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KataServer::~KataServer() = default;

Result<std::unique_ptr<KataServer>> KataServer::Start(Executor executor, Cache& cache,
                                                      kata::Configuration& configuration,
                                                      Options options) {
  const auto socket = options.socket;
  RETURN_IF_ERROR(MakeDirectories(socket.parent_path(), kFolderMode));
  auto impl = std::make_unique<Impl>(executor, cache, configuration, std::move(options));
  grpc::ServerBuilder builder;
  builder.RegisterService(&impl->service);
  impl->server = builder.BuildAndStart();
  if (!impl->server) return Internal("the gRPC server for Kata's protocol could not be started");
  if (auto open = impl->listener.Open(socket, kMode, *impl->server); !open) {
    return Annotate(open.error(), "kata.endpoint");
  }
  return std::unique_ptr<KataServer>(new KataServer(std::move(impl)));
}

void KataServer::StopAccepting() { impl_->StopAccepting(); }

asio::awaitable<void> KataServer::Stop(Deadline deadline) {
  StopAccepting();
  co_await impl_->listener.Stop(deadline);
}

}  // namespace hatchery::cache::rpc
