#include "cache/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <mutex>

#include "cache/rpc/cache_service.h"
#include "cache/rpc/unix_listener.h"

namespace hatchery::cache::rpc {

struct Server::Impl {
  Impl(Executor e, Cache& cache, DaemonInfo info, kata::Configuration* kata, Access a)
      : access(std::move(a)),
        listener(e),
        gate(access, listener.peers()),
        cache_service(e, gate, cache),
        factory_service(e, gate, cache, std::move(info), kata) {}
  int tcp_port = 0;
  const Access access;
  UnixListener listener;
  const Gate gate;
  CacheService cache_service;
  FactoryService factory_service;
  std::unique_ptr<grpc::Server> server;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Start(Executor executor, Cache& cache, DaemonInfo info,
                                              Options options) {
  // Before anything is built: that it is in use is said before that its TCP port is, too.
  RETURN_IF_ERROR(UnixListener::CheckUnused(options.socket));
  // Process-wide, and before the first server is built.
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
  auto impl = std::make_unique<Impl>(executor, cache, std::move(info), options.kata,
                                     std::move(options.access));
  grpc::ServerBuilder builder;
  builder.RegisterService(&impl->cache_service);
  builder.RegisterService(&impl->factory_service);
  if (options.tls) {
    ASSIGN_OR_RETURN(auto credentials, MakeServerCredentials(*options.tls));
    // Two daemons on one port would share its clients.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddListeningPort(options.tls->listen, std::move(credentials), &impl->tcp_port);
  }
  impl->server = builder.BuildAndStart();
  if (!impl->server && options.tls) {
    return FailedPrecondition("tls.listen: cannot listen on " + options.tls->listen +
                              ": it is in use, or no address of this host");
  }
  if (!impl->server) return Internal("the gRPC server could not be started");

  RETURN_IF_ERROR(impl->listener.Open(options.socket, options.mode, *impl->server));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::tcp_port() const { return impl_->tcp_port; }

void Server::StopAccepting() {
  if (auto* health = impl_->server->GetHealthCheckService()) health->SetServingStatus(false);
  impl_->listener.Close();
}

asio::awaitable<void> Server::Stop(Deadline deadline) {
  StopAccepting();
  co_await impl_->listener.Stop(deadline);
}

}  // namespace hatchery::cache::rpc
