#include "cache/rpc/cache_service.h"

#include "base/json.h"
#include "cache/rpc/bridge.h"
#include "cache/rpc/from_api.h"
#include "cache/rpc/watch.h"

namespace hatchery::cache::rpc {

namespace {

constexpr auto kDefaultTimeout = std::chrono::seconds(60);
constexpr auto kConsoleTail = Bytes::KiB(4);

using Undelivered = UnaryCall<api::AcquireResponse>::Undelivered;

api::AcquireResponse::Source ToApi(Source source) {
  switch (source) {
    case Source::kPool: return api::AcquireResponse::POOL;
    case Source::kClone: return api::AcquireResponse::CLONE;
    case Source::kRepeat: return api::AcquireResponse::REPEAT;
  }
  return api::AcquireResponse::SOURCE_UNSPECIFIED;
}

Task<api::AcquireResponse> HandleAcquire(cache::Cache& cache, Caller caller,
                                         Result<AcquireParams> params, Deadline deadline,
                                         std::shared_ptr<Undelivered> undelivered) {
  if (!params) co_return std::unexpected(params.error());
  params->caller = std::move(caller);
  ASSIGN_OR_CO_RETURN(const auto acquired,
                      co_await cache.leases().Acquire(*std::move(params), deadline));
  *undelivered = [&cache, vm = std::weak_ptr(acquired.vm)] { cache.leases().Undelivered(vm); };
  api::AcquireResponse reply;
  *reply.mutable_vm() = rpc::ToApi(*acquired.vm, cache);
  reply.set_source(ToApi(acquired.source));
  *reply.mutable_total() = rpc::ToApi(acquired.total);
  *reply.mutable_resize() = rpc::ToApi(acquired.resize);
  *reply.mutable_personalize() = rpc::ToApi(acquired.personalize);
  co_return reply;
}

Task<api::GetVmResponse> HandleGetVm(cache::Cache& cache, Caller caller, std::string id,
                                     Deadline deadline) {
  CO_RETURN_IF_ERROR(ValidateName("vm_id", id));
  const auto vm = cache.vms().Find(VmId(id));
  // The same whether it is another's or nobody's: that it exists is not for everybody to know.
  if (!vm || !MaySee(caller, *vm)) co_return NotFound("no VM '" + id + "'");
  api::GetVmResponse reply;
  *reply.mutable_vm() = rpc::ToApi(*vm, cache);
  const auto machine = vm->machine;
  if (!machine) co_return reply;  // still being cloned: there is nothing to measure
  ASSIGN_OR_CO_RETURN(const auto stats, co_await machine->vm->Stats(deadline));
  *reply.mutable_stats() = rpc::ToApi(stats);
  reply.set_console_tail(ValidUtf8(machine->vm->ConsoleTail(kConsoleTail)));
  co_return reply;
}

Task<api::ExecResponse> HandleExec(cache::Cache& cache, Caller caller, api::ExecRequest request,
                                   Deadline deadline) {
  ASSIGN_OR_CO_RETURN(auto exec, FromApi(request));
  ASSIGN_OR_CO_RETURN(auto result,
                      co_await cache.leases().Exec(std::move(caller), VmId(request.vm_id()),
                                                   std::move(exec), deadline));
  api::ExecResponse reply;
  if (result.exit_code) reply.set_exit_code(*result.exit_code);
  if (result.signal) reply.set_signal(*result.signal);
  reply.set_timed_out(result.timed_out);
  reply.set_out(std::move(result.out));
  reply.set_err(std::move(result.err));
  reply.set_out_truncated(result.out_truncated);
  reply.set_err_truncated(result.err_truncated);
  co_return reply;
}

}  // namespace

grpc::ServerUnaryReactor* CacheService::Acquire(grpc::CallbackServerContext* context,
                                                const api::AcquireRequest* request,
                                                api::AcquireResponse* reply) {
  const auto deadline = DeadlineOf(*context, cache_.settings().acquire_timeout);
  auto undelivered = std::make_shared<Undelivered>();
  return UnaryCall<api::AcquireResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.Acquire"), context, reply,
      [this, params = FromApi(*request), deadline, undelivered](Caller caller) {
        return HandleAcquire(cache_, std::move(caller), params, deadline, undelivered);
      },
      undelivered);
}

grpc::ServerUnaryReactor* CacheService::Renew(grpc::CallbackServerContext* context,
                                              const api::RenewRequest* request,
                                              api::RenewResponse* reply) {
  auto handle = [this, copy = *request](const Caller& caller) -> Task<api::RenewResponse> {
    std::optional<std::chrono::nanoseconds> ttl;
    if (copy.has_ttl()) {
      ASSIGN_OR_CO_RETURN(ttl, rpc::FromApi(copy.ttl(), "ttl"));
    }
    ASSIGN_OR_CO_RETURN(const auto vm, cache_.leases().Renew(caller, VmId(copy.vm_id()), ttl));
    api::RenewResponse renewed;
    *renewed.mutable_vm() = ToApi(*vm, cache_);
    co_return renewed;
  };
  return UnaryCall<api::RenewResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.Renew"), context, reply, handle);
}

grpc::ServerUnaryReactor* CacheService::Release(grpc::CallbackServerContext* context,
                                                const api::ReleaseRequest* request,
                                                api::ReleaseResponse* reply) {
  const auto deadline = DeadlineOf(*context, kDefaultTimeout);
  auto handle = [this, id = request->vm_id(),
                 deadline](Caller caller) -> Task<api::ReleaseResponse> {
    CO_RETURN_IF_ERROR(co_await cache_.leases().Release(std::move(caller), VmId(id), deadline));
    co_return api::ReleaseResponse();
  };
  return UnaryCall<api::ReleaseResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.Release"), context, reply, handle);
}

grpc::ServerUnaryReactor* CacheService::GetVm(grpc::CallbackServerContext* context,
                                              const api::GetVmRequest* request,
                                              api::GetVmResponse* reply) {
  const auto deadline = DeadlineOf(*context, kDefaultTimeout);
  return UnaryCall<api::GetVmResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.GetVm"), context, reply,
      [this, id = request->vm_id(), deadline](Caller caller) {
        return HandleGetVm(cache_, std::move(caller), id, deadline);
      });
}

grpc::ServerUnaryReactor* CacheService::ListVms(grpc::CallbackServerContext* context,
                                                const api::ListVmsRequest* request,
                                                api::ListVmsResponse* reply) {
  auto handle = [this, filter = *request](Caller caller) -> Task<api::ListVmsResponse> {
    CO_RETURN_IF_ERROR(Validate(filter));
    api::ListVmsResponse all;
    for (const auto& vm : cache_.vms().List()) {
      if (!MaySee(caller, *vm)) continue;
      auto out = ToApi(*vm, cache_);
      if (!filter.template_name().empty() && out.template_name() != filter.template_name())
        continue;
      if (filter.state() != api::VM_STATE_UNSPECIFIED && out.state() != filter.state()) continue;
      *all.add_vms() = std::move(out);
    }
    all.set_revision(cache_.events().last());
    co_return all;
  };
  return UnaryCall<api::ListVmsResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.ListVms"), context, reply, handle);
}

grpc::ServerWriteReactor<api::WatchResponse>* CacheService::Watch(
    grpc::CallbackServerContext* context, const api::WatchRequest* request) {
  return StreamCall<api::WatchResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.Watch"),
      [this, copy = *request](const Caller& caller, StreamCall<api::WatchResponse>::Sink sink) {
        return rpc::Watch(cache_, caller, copy, [sink](api::WatchResponse event) mutable {
          sink.Send(std::move(event));
          return sink.Room();
        });
      });
}

grpc::ServerUnaryReactor* CacheService::Exec(grpc::CallbackServerContext* context,
                                             const api::ExecRequest* request,
                                             api::ExecResponse* reply) {
  // A command may run for as long as its caller waits.
  const auto deadline = DeadlineOf(*context, std::chrono::hours(24));
  return UnaryCall<api::ExecResponse>::Start(
      executor_, gate_.Admit(*context, "hatchery.v1.Cache.Exec"), context, reply,
      [this, copy = *request, deadline](Caller caller) {
        return HandleExec(cache_, std::move(caller), copy, deadline);
      });
}

}  // namespace hatchery::cache::rpc
