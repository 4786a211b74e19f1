// hatchery.v1.Cache over a Cache: converts, delegates, converts back.
#pragma once

#include "cache/cache.h"
#include "cache/rpc/gate.h"
#include "hatchery/v1/cache.grpc.pb.h"

namespace hatchery::cache::rpc {

class CacheService final : public hatchery::v1::Cache::CallbackService {
 public:
  // All outlive the server that this is registered with.
  CacheService(Executor executor, const Gate& gate, cache::Cache& cache)
      : executor_(std::move(executor)), gate_(gate), cache_(cache) {}

  grpc::ServerUnaryReactor* Acquire(grpc::CallbackServerContext* context,
                                    const hatchery::v1::AcquireRequest* request,
                                    hatchery::v1::AcquireResponse* reply) override;
  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context,
                                  const hatchery::v1::RenewRequest* request,
                                  hatchery::v1::RenewResponse* reply) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context,
                                    const hatchery::v1::ReleaseRequest* request,
                                    hatchery::v1::ReleaseResponse* reply) override;
  grpc::ServerUnaryReactor* GetVm(grpc::CallbackServerContext* context,
                                  const hatchery::v1::GetVmRequest* request,
                                  hatchery::v1::GetVmResponse* reply) override;
  grpc::ServerUnaryReactor* ListVms(grpc::CallbackServerContext* context,
                                    const hatchery::v1::ListVmsRequest* request,
                                    hatchery::v1::ListVmsResponse* reply) override;
  grpc::ServerWriteReactor<hatchery::v1::WatchResponse>* Watch(
      grpc::CallbackServerContext* context, const hatchery::v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* Exec(grpc::CallbackServerContext* context,
                                 const hatchery::v1::ExecRequest* request,
                                 hatchery::v1::ExecResponse* reply) override;

 private:
  Executor executor_;
  const Gate& gate_;
  cache::Cache& cache_;
};

}  // namespace hatchery::cache::rpc
