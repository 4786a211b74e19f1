#include "tests/torture/operator.h"

namespace hatchery::torture {

namespace {

template <class Response, class Reader>
grpc::Status ReadAll(const Reader& reader) {
  for (Response response; reader->Read(&response);) {
  }
  return reader->Finish();
}

}  // namespace

Operator::Operator(const std::string& socket) {
  const auto channel = Connect(socket);
  cache_ = api::Cache::NewStub(channel);
  factory_ = api::Factory::NewStub(channel);
}

grpc::Status Operator::Init(std::uint32_t pool, std::chrono::milliseconds patience) {
  api::InitRequest request;
  request.set_pool_target(pool);
  const auto context = Within(patience);
  return ReadAll<api::InitResponse>(factory_->Init(context.get(), request));
}

grpc::Status Operator::Rebuild(std::uint64_t memory_mib, std::chrono::milliseconds patience) {
  api::CreateTemplateRequest request;
  request.mutable_template_spec()->set_memory_bytes(memory_mib << 20);
  request.set_force(true);
  const auto context = Within(patience);
  return ReadAll<api::CreateTemplateResponse>(factory_->CreateTemplate(context.get(), request));
}

grpc::Status Operator::SetPool(std::uint32_t target, bool wait,
                               std::chrono::milliseconds patience) {
  api::SetPoolRequest request;
  request.set_target(target);
  request.set_wait(wait);
  const auto context = Within(patience);
  return ReadAll<api::SetPoolResponse>(factory_->SetPool(context.get(), request));
}

grpc::Status Operator::DeleteTemplate(std::chrono::milliseconds patience) {
  api::DeleteTemplateRequest request;
  request.set_name("default");
  request.set_drain(true);
  const auto context = Within(patience);
  return ReadAll<api::DeleteTemplateResponse>(factory_->DeleteTemplate(context.get(), request));
}

grpc::Status Operator::Destroy(std::chrono::milliseconds patience) {
  const auto context = Within(patience);
  return ReadAll<api::DestroyResponse>(factory_->Destroy(context.get(), api::DestroyRequest()));
}

std::optional<api::StatusResponse> Operator::Status(std::chrono::milliseconds patience) {
  api::StatusResponse response;
  const auto status = factory_->Status(Within(patience).get(), api::StatusRequest(), &response);
  return status.ok() ? std::optional(response) : std::nullopt;
}

std::optional<api::ListVmsResponse> Operator::ListVms(std::chrono::milliseconds patience) {
  api::ListVmsResponse response;
  const auto status = cache_->ListVms(Within(patience).get(), api::ListVmsRequest(), &response);
  return status.ok() ? std::optional(response) : std::nullopt;
}

}  // namespace hatchery::torture
