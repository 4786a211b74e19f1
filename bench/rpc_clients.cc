#include "bench/rpc_clients.h"

#include <grpc/health/v1/health.grpc.pb.h>
#include <grpcpp/grpcpp.h>
#include <hatchery/v1/cache.grpc.pb.h>

#include <utility>

#include "base/status.h"

namespace hatchery::bench {

namespace {

namespace health = ::grpc::health::v1;

constexpr auto kCallTimeout = std::chrono::seconds(10);

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
}

Failure FailureOf(const grpc::Status& status) {
  if (status.ok()) return {};
  return std::string(CodeName(static_cast<Code>(status.error_code())));
}

Failure FailureOf(const grpc::Status& status, const v1::AcquireResponse& reply) {
  if (status.ok() && reply.source() != v1::AcquireResponse::POOL) return "not served by the pool";
  return FailureOf(status);
}

Failure FailureOf(const grpc::Status& status, const health::HealthCheckResponse& reply) {
  if (status.ok() && reply.status() != health::HealthCheckResponse::SERVING) return "not serving";
  return FailureOf(status);
}

// Lives until its call is done.
template <class Request, class Reply>
struct Call {
  grpc::ClientContext context;
  Request request;
  Reply reply;
};

}  // namespace

struct RpcClients::Connection {
  std::unique_ptr<v1::Cache::Stub> cache;
  std::unique_ptr<health::Health::Stub> health;
};

RpcClients::RpcClients(const std::filesystem::path& socket, int connections) {
  grpc::ChannelArguments arguments;
  // gRPC would share one connection among channels to the same address.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  for (int i = 0; i < connections; ++i) {
    const auto channel = grpc::CreateCustomChannel("unix:" + socket.string(),
                                                   grpc::InsecureChannelCredentials(), arguments);
    auto connection = std::make_unique<Connection>();
    connection->cache = v1::Cache::NewStub(channel);
    connection->health = health::Health::NewStub(channel);
    connections_.push_back(std::move(connection));
  }
}

RpcClients::~RpcClients() { (void)AwaitReleases(); }

Failure RpcClients::Empty(int client) {
  Call<health::HealthCheckRequest, health::HealthCheckResponse> call;
  SetDeadline(call.context);
  const auto status = connections_[static_cast<std::size_t>(client)]->health->Check(
      &call.context, call.request, &call.reply);
  return FailureOf(status, call.reply);
}

Failure RpcClients::Acquire(int client, bool clone_will_do) {
  Call<v1::AcquireRequest, v1::AcquireResponse> call;
  SetDeadline(call.context);
  const auto status = connections_[static_cast<std::size_t>(client)]->cache->Acquire(
      &call.context, call.request, &call.reply);
  if (status.ok()) Keep(std::move(*call.reply.mutable_vm()->mutable_vm_id()));
  return clone_will_do ? FailureOf(status) : FailureOf(status, call.reply);
}

Failure RpcClients::Release(int client) {
  Call<v1::ReleaseRequest, v1::ReleaseResponse> call;
  {
    const std::lock_guard lock(mutex_);
    if (held_.empty()) return "no VM to release";
    call.request.set_vm_id(std::move(held_.back()));
    held_.pop_back();
  }
  SetDeadline(call.context);
  return FailureOf(connections_[static_cast<std::size_t>(client)]->cache->Release(
      &call.context, call.request, &call.reply));
}

void RpcClients::Keep(std::string vm_id) {
  const std::lock_guard lock(mutex_);
  held_.push_back(std::move(vm_id));
}

std::size_t RpcClients::held() const {
  const std::lock_guard lock(mutex_);
  return held_.size();
}

void RpcClients::StartEmpty(std::size_t index, Done done) {
  auto call = std::make_shared<Call<health::HealthCheckRequest, health::HealthCheckResponse>>();
  SetDeadline(call->context);
  connections_[index % connections_.size()]->health->async()->Check(
      &call->context, &call->request, &call->reply,
      [call, done = std::move(done)](const grpc::Status& status) {
        done(FailureOf(status, call->reply));
      });
}

void RpcClients::StartAcquire(std::size_t index, Done done) {
  auto call = std::make_shared<Call<v1::AcquireRequest, v1::AcquireResponse>>();
  SetDeadline(call->context);
  Connection& connection = *connections_[index % connections_.size()];
  {
    // Before `done` is called, so that AwaitReleases() cannot miss it.
    const std::lock_guard lock(mutex_);
    ++releasing_;
  }
  connection.cache->async()->Acquire(
      &call->context, &call->request, &call->reply,
      [this, call, &connection, done = std::move(done)](const grpc::Status& status) {
        done(FailureOf(status, call->reply));
        if (status.ok()) return StartRelease(connection, call->reply.vm().vm_id());
        const std::lock_guard lock(mutex_);
        if (--releasing_ == 0) released_.notify_all();
      });
}

void RpcClients::StartRelease(Connection& connection, std::string vm_id) {
  auto call = std::make_shared<Call<v1::ReleaseRequest, v1::ReleaseResponse>>();
  SetDeadline(call->context);
  call->request.set_vm_id(std::move(vm_id));
  connection.cache->async()->Release(
      &call->context, &call->request, &call->reply,
      [this, call, start = std::chrono::steady_clock::now()](const grpc::Status& status) {
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        const Failure failure = FailureOf(status);
        const std::lock_guard lock(mutex_);
        if (failure.empty()) {
          releases_.samples.push_back(took.count());
        } else {
          ++releases_.failures[failure];
        }
        if (--releasing_ == 0) released_.notify_all();
      });
}

Load RpcClients::AwaitReleases() {
  std::unique_lock lock(mutex_);
  released_.wait(lock, [this] { return releasing_ == 0; });
  return std::exchange(releases_, {});
}

}  // namespace hatchery::bench
