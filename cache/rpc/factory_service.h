// hatchery.v1.Factory over a Cache: converts, delegates, converts back.
#pragma once

#include <chrono>
#include <string>

#include "cache/cache.h"
#include "cache/kata/config.h"
#include "cache/rpc/gate.h"
#include "hatchery/v1/factory.grpc.pb.h"

namespace hatchery::cache::rpc {

// What Status tells of the daemon itself.
struct DaemonInfo {
  std::string version;
  std::string state_dir;
  std::string driver;
  std::chrono::steady_clock::time_point started;
  std::string isolation = {};  // see hypervisor::Driver::DescribeIsolation()
};

class FactoryService final : public hatchery::v1::Factory::CallbackService {
 public:
  // `gate` and `cache` outlive the server that this is registered with.
  // As does `kata`; null: kUnimplemented.
  FactoryService(Executor executor, const Gate& gate, cache::Cache& cache, DaemonInfo info,
                 kata::Configuration* kata)
      : executor_(std::move(executor)),
        gate_(gate),
        cache_(cache),
        info_(std::move(info)),
        kata_(kata) {}

  template <class Reply>
  using Stream = grpc::ServerWriteReactor<Reply>*;
  using Context = grpc::CallbackServerContext;

  Stream<hatchery::v1::InitResponse> Init(Context*, const hatchery::v1::InitRequest*) override;
  grpc::ServerUnaryReactor* Status(Context*, const hatchery::v1::StatusRequest*,
                                   hatchery::v1::StatusResponse*) override;
  Stream<hatchery::v1::DestroyResponse> Destroy(Context*,
                                                const hatchery::v1::DestroyRequest*) override;
  Stream<hatchery::v1::CreateTemplateResponse> CreateTemplate(
      Context*, const hatchery::v1::CreateTemplateRequest*) override;
  grpc::ServerUnaryReactor* ListTemplates(Context*, const hatchery::v1::ListTemplatesRequest*,
                                          hatchery::v1::ListTemplatesResponse*) override;
  grpc::ServerUnaryReactor* GetTemplate(Context*, const hatchery::v1::GetTemplateRequest*,
                                        hatchery::v1::GetTemplateResponse*) override;
  Stream<hatchery::v1::VerifyTemplateResponse> VerifyTemplate(
      Context*, const hatchery::v1::VerifyTemplateRequest*) override;
  Stream<hatchery::v1::DeleteTemplateResponse> DeleteTemplate(
      Context*, const hatchery::v1::DeleteTemplateRequest*) override;
  Stream<hatchery::v1::SetPoolResponse> SetPool(Context*,
                                                const hatchery::v1::SetPoolRequest*) override;
  grpc::ServerUnaryReactor* ListPools(Context*, const hatchery::v1::ListPoolsRequest*,
                                      hatchery::v1::ListPoolsResponse*) override;
  grpc::ServerUnaryReactor* GetKataConfig(Context*, const hatchery::v1::GetKataConfigRequest*,
                                          hatchery::v1::GetKataConfigResponse*) override;

 private:
  Executor executor_;
  const Gate& gate_;
  cache::Cache& cache_;
  DaemonInfo info_;
  kata::Configuration* const kata_;
};

}  // namespace hatchery::cache::rpc
