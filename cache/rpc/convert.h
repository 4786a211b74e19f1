// Between gRPC's types and the cache's.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "base/status.h"
#include "base/task.h"
#include "cache/cache.h"
#include "hatchery/v1/cache.pb.h"
#include "hatchery/v1/types.pb.h"

namespace hatchery::cache::rpc {

namespace api = hatchery::v1;

// With a google.rpc.BadRequest in its details when the error names a field, and a
// google.rpc.RetryInfo when it says when to try again.
grpc::Status ToGrpcStatus(const Error& error);

// The call's deadline, or `otherwise` from now if its client set none.
Deadline DeadlineOf(const grpc::CallbackServerContext& context, std::chrono::nanoseconds otherwise);

// `settings` and `clock` tell when its lease ends, in wall time.
api::Vm ToApi(const VmEntry& vm, const Settings& settings, const Clock& clock);
inline api::Vm ToApi(const VmEntry& vm, const cache::Cache& cache) {
  return ToApi(vm, cache.settings(), cache.clock());
}
api::WatchResponse ToApi(const record::EventRecord& event);
api::VmStats ToApi(const hypervisor::VmStats& stats);
api::Template ToApi(const TemplateInfo& info);
api::Pool ToApi(const PoolInfo& info);
api::MemoryAccount ToApi(const Admission::Memory& memory);
api::Tenant ToApi(const std::string& name, const Quotas::Held& held, const Limits& limits);
api::Progress ToApi(const StepProgress& progress);
google::protobuf::Duration ToApi(std::chrono::nanoseconds duration);
google::protobuf::Timestamp TimestampOf(std::int64_t unix_nanos);

// kInvalidArgument names `field` when it is negative or beyond a year.
Result<std::chrono::nanoseconds> FromApi(const google::protobuf::Duration& duration,
                                         std::string_view field);

}  // namespace hatchery::cache::rpc
