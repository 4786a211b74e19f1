#include "cache/rpc/factory_service.h"

#include <unistd.h>

#include "base/json.h"
#include "cache/rpc/bridge.h"
#include "cache/rpc/from_api.h"

namespace hatchery::cache::rpc {

namespace {

// For operations whose caller set no deadline: long, but not for ever.
constexpr auto kLongOperation = std::chrono::minutes(30);

// A function for the cache's progress that feeds a stream.
template <class Response, class Sink>
Say Teller(Sink sink) {
  return [sink](StepProgress progress) mutable {
    Response message;
    *message.mutable_progress() = ToApi(progress);
    sink.Offer(std::move(message));
  };
}

using InitCall = StreamCall<api::InitResponse>;
using CreateCall = StreamCall<api::CreateTemplateResponse>;
using VerifyCall = StreamCall<api::VerifyTemplateResponse>;
using DeleteCall = StreamCall<api::DeleteTemplateResponse>;
using DestroyCall = StreamCall<api::DestroyResponse>;
using SetPoolCall = StreamCall<api::SetPoolResponse>;

Task<void> HandleInit(cache::Cache& cache, api::InitRequest request, Deadline deadline,
                      InitCall::Sink sink) {
  ASSIGN_OR_CO_RETURN(auto params, FromApi(request));
  ASSIGN_OR_CO_RETURN(
      auto done, co_await cache.Init(std::move(params), Teller<api::InitResponse>(sink), deadline));
  api::InitResponse last;
  auto* result = last.mutable_result();
  *result->mutable_template_info() = ToApi(done.created.info);
  *result->mutable_pool() = ToApi(done.pool);
  result->set_template_reused(done.created.reused);
  *result->mutable_boot_time() = ToApi(done.created.boot_time);
  *result->mutable_save_time() = ToApi(done.created.save_time);
  *result->mutable_fill_time() = ToApi(done.fill_time);
  sink.Send(std::move(last));
  co_return Result<void>();
}

Task<void> HandleCreate(cache::Cache& cache, api::CreateTemplateRequest request, Deadline deadline,
                        CreateCall::Sink sink) {
  ASSIGN_OR_CO_RETURN(auto spec, FromApi(request.template_spec()));
  const Say tell = Teller<api::CreateTemplateResponse>(sink);
  ASSIGN_OR_CO_RETURN(auto created,
                      co_await cache.catalog().Create(
                          std::move(spec), request.force(),
                          [&](std::string step) { tell({std::move(step)}); }, deadline));
  api::CreateTemplateResponse last;
  auto* result = last.mutable_result();
  *result->mutable_template_info() = ToApi(created.info);
  result->set_reused(created.reused);
  *result->mutable_boot_time() = ToApi(created.boot_time);
  *result->mutable_save_time() = ToApi(created.save_time);
  sink.Send(std::move(last));
  co_return Result<void>();
}

Task<void> HandleSetPool(cache::Cache& cache, api::SetPoolRequest request, Deadline deadline,
                         SetPoolCall::Sink sink) {
  ASSIGN_OR_CO_RETURN(const std::string name, TemplateNameOrDefault(request.template_name()));
  std::optional<std::uint32_t> vcpus;
  std::optional<Bytes> memory;
  if (request.has_vcpus()) vcpus = request.vcpus();
  if (request.has_memory_bytes()) memory = Bytes(request.memory_bytes());
  ASSIGN_OR_CO_RETURN(const auto key,
                      co_await cache.pools().Set(name, vcpus, memory, request.target(), deadline));
  if (request.wait() && request.target() > 0) {
    const Say tell = Teller<api::SetPoolResponse>(sink);
    CO_RETURN_IF_ERROR(co_await cache.pools().WaitFilled(
        key,
        [&](const PoolInfo& pool) { tell({"filling the pool", pool.warm, pool.target, "vms"}); },
        deadline));
  }
  api::SetPoolResponse last;
  last.mutable_pool()->set_template_name(name);  // what is left to say of one that was removed
  for (const auto& pool : cache.pools().List()) {
    if (pool.key == key) *last.mutable_pool() = ToApi(pool);
  }
  sink.Send(std::move(last));
  co_return Result<void>();
}

}  // namespace

FactoryService::Stream<api::InitResponse> FactoryService::Init(Context* context,
                                                               const api::InitRequest* request) {
  const auto deadline = DeadlineOf(*context, kLongOperation);
  return InitCall::Start(executor_, gate_.Admit(*context, "hatchery.v1.Factory.Init"),
                         [this, copy = *request, deadline](const Caller&, InitCall::Sink sink) {
                           return HandleInit(cache_, copy, deadline, sink);
                         });
}

grpc::ServerUnaryReactor* FactoryService::Status(Context* context, const api::StatusRequest*,
                                                 api::StatusResponse* reply) {
  auto handle = [this](Caller caller) -> Task<api::StatusResponse> {
    api::StatusResponse status;
    status.set_version(info_.version);
    status.set_state_dir(info_.state_dir);
    status.set_driver(info_.driver);
    status.set_pid(::getpid());
    status.set_isolation(info_.isolation);
    for (const auto& info : cache_.catalog().List()) *status.add_templates() = ToApi(info);
    for (const auto& pool : cache_.pools().List()) *status.add_pools() = ToApi(pool);
    for (const auto& vm : cache_.vms().List()) {
      if (!MaySee(caller, *vm)) continue;
      status.set_vms(status.vms() + 1);
      if (vm->phase() == record::VM_PHASE_ASSIGNED) status.set_leased(status.leased() + 1);
    }
    // The host's numbers say what others do.
    const auto memory = cache_.admission().memory();
    if (memory && caller.administers) *status.mutable_memory() = ToApi(*memory);
    const auto& limits = cache_.settings().limits;
    for (const auto& [name, held] : cache_.admission().tenants()) {
      if (caller.MaySee(name)) *status.add_tenants() = ToApi(name, held, limits);
    }
    if (caller.administers)
      status.set_waiting_acquires(static_cast<std::uint32_t>(cache_.admission().waiting()));
    *status.mutable_uptime() = ToApi(std::chrono::steady_clock::now() - info_.started);
    co_return status;
  };
  return UnaryCall<api::StatusResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Factory.Status"), context, reply, handle);
}

FactoryService::Stream<api::DestroyResponse> FactoryService::Destroy(Context* context,
                                                                     const api::DestroyRequest*) {
  const auto deadline = DeadlineOf(*context, kLongOperation);
  return DestroyCall::Start(executor_, gate_.Admit(*context, "hatchery.v1.Factory.Destroy"),
                            [this, deadline](const Caller&, DestroyCall::Sink sink) {
                              return cache_.DestroyAll(Teller<api::DestroyResponse>(sink),
                                                       deadline);
                            });
}

FactoryService::Stream<api::CreateTemplateResponse> FactoryService::CreateTemplate(
    Context* context, const api::CreateTemplateRequest* request) {
  const auto deadline = DeadlineOf(*context, kLongOperation);
  return CreateCall::Start(executor_, gate_.Admit(*context, "hatchery.v1.Factory.CreateTemplate"),
                           [this, copy = *request, deadline](const Caller&, CreateCall::Sink sink) {
                             return HandleCreate(cache_, copy, deadline, sink);
                           });
}

grpc::ServerUnaryReactor* FactoryService::ListTemplates(Context* context,
                                                        const api::ListTemplatesRequest*,
                                                        api::ListTemplatesResponse* reply) {
  auto handle = [this](const Caller&) -> Task<api::ListTemplatesResponse> {
    api::ListTemplatesResponse all;
    for (const auto& info : cache_.catalog().List()) *all.add_templates() = ToApi(info);
    co_return all;
  };
  return UnaryCall<api::ListTemplatesResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Factory.ListTemplates"), context, reply,
      handle);
}

grpc::ServerUnaryReactor* FactoryService::GetTemplate(Context* context,
                                                      const api::GetTemplateRequest* request,
                                                      api::GetTemplateResponse* reply) {
  auto handle = [this, name = request->name()](const Caller&) -> Task<api::GetTemplateResponse> {
    CO_RETURN_IF_ERROR(ValidateTemplateReference(name));
    ASSIGN_OR_CO_RETURN(const auto info, cache_.catalog().Get(name));
    api::GetTemplateResponse found;
    *found.mutable_template_info() = ToApi(info);
    co_return found;
  };
  return UnaryCall<api::GetTemplateResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Factory.GetTemplate"), context, reply, handle);
}

FactoryService::Stream<api::VerifyTemplateResponse> FactoryService::VerifyTemplate(
    Context* context, const api::VerifyTemplateRequest* request) {
  auto handle = [this, name = request->name()](const Caller&, VerifyCall::Sink sink) -> Task<void> {
    CO_RETURN_IF_ERROR(ValidateTemplateReference(name));
    const Say tell = Teller<api::VerifyTemplateResponse>(sink);
    co_return co_await cache_.catalog().Verify(name, [tell](Bytes done, Bytes total) {
      tell({"verifying", done.count(), total.count(), "bytes"});
    });
  };
  return VerifyCall::Start(executor_, gate_.Admit(*context, "hatchery.v1.Factory.VerifyTemplate"),
                           handle);
}

FactoryService::Stream<api::DeleteTemplateResponse> FactoryService::DeleteTemplate(
    Context* context, const api::DeleteTemplateRequest* request) {
  const auto deadline = DeadlineOf(*context, kLongOperation);
  auto handle = [this, copy = *request, deadline](const Caller&,
                                                  DeleteCall::Sink sink) -> Task<void> {
    CO_RETURN_IF_ERROR(ValidateName("name", copy.name()));
    co_return co_await cache_.DeleteTemplate(copy.name(), copy.drain(),
                                             Teller<api::DeleteTemplateResponse>(sink), deadline);
  };
  return DeleteCall::Start(executor_, gate_.Admit(*context, "hatchery.v1.Factory.DeleteTemplate"),
                           handle);
}

FactoryService::Stream<api::SetPoolResponse> FactoryService::SetPool(
    Context* context, const api::SetPoolRequest* request) {
  const auto deadline = DeadlineOf(*context, kLongOperation);
  return SetPoolCall::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Factory.SetPool"),
      [this, copy = *request, deadline](const Caller&, SetPoolCall::Sink sink) {
        return HandleSetPool(cache_, copy, deadline, sink);
      });
}

grpc::ServerUnaryReactor* FactoryService::ListPools(Context* context, const api::ListPoolsRequest*,
                                                    api::ListPoolsResponse* reply) {
  auto handle = [this](const Caller&) -> Task<api::ListPoolsResponse> {
    api::ListPoolsResponse all;
    for (const auto& pool : cache_.pools().List()) *all.add_pools() = ToApi(pool);
    co_return all;
  };
  return UnaryCall<api::ListPoolsResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Factory.ListPools"), context, reply, handle);
}

grpc::ServerUnaryReactor* FactoryService::GetKataConfig(Context* context,
                                                        const api::GetKataConfigRequest*,
                                                        api::GetKataConfigResponse* reply) {
  auto handle = [this](const Caller&) -> Task<api::GetKataConfigResponse> {
    if (kata_ == nullptr) co_return Unimplemented("this service does not speak Kata's protocol");
    ASSIGN_OR_CO_RETURN(auto answer, co_await kata_->Get());
    ASSIGN_OR_CO_RETURN(auto contradictions, co_await kata_->Check(answer));
    api::GetKataConfigResponse config;
    config.set_vm_config(std::move(answer.vm_config));
    config.set_agent_config(std::move(answer.agent_config));
    for (auto& each : contradictions) config.add_contradictions(ValidUtf8(each));
    co_return config;
  };
  return UnaryCall<api::GetKataConfigResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Factory.GetKataConfig"), context, reply,
      handle);
}

}  // namespace hatchery::cache::rpc
