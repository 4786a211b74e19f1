#include "cache/rpc/server.h"

#include <fcntl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <mutex>

#include "base/fd.h"
#include "base/log.h"
#include "base/offload.h"
#include "cache/rpc/cache_service.h"

namespace hatchery::cache::rpc {

namespace {

constexpr int kBacklog = 1024;
// When no descriptor is left, accepting again at once would only spin.
constexpr auto kAcceptBackoff = std::chrono::milliseconds(50);

using Acceptor = asio::local::stream_protocol::acceptor;

asio::awaitable<void> Accept(Acceptor& acceptor, Peers& peers, grpc::Server& server) {
  for (;;) {
    auto [error, socket] = co_await acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
    if (error == asio::error::operation_aborted || !acceptor.is_open()) co_return;
    if (error) {
      log::Warning({}, "accepting a connection: " + error.message());
      (void)co_await SleepFor(kAcceptBackoff);
      continue;
    }
    auto connection = peers.Admit(UniqueFd(socket.release()));
    if (!connection) {
      log::Warning({}, "accepting a connection: " + ToString(connection.error()));
      (void)co_await SleepFor(kAcceptBackoff);
      continue;
    }
    const int fd = connection->Release();
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    grpc::AddInsecureChannelFromFd(&server, fd);
  }
}

}  // namespace

struct Server::Impl {
  Impl(Executor e, Cache& cache, DaemonInfo info, Access a)
      : executor(e),
        access(std::move(a)),
        gate(access, peers),
        cache_service(e, gate, cache),
        factory_service(e, gate, cache, std::move(info)),
        acceptor(e),
        tasks(e),
        waiter(1) {}
  Executor executor;
  std::filesystem::path socket;
  int tcp_port = 0;
  const Access access;
  Peers peers;
  const Gate gate;
  CacheService cache_service;
  FactoryService factory_service;
  std::unique_ptr<grpc::Server> server;
  Acceptor acceptor;
  TaskScope tasks;
  WorkerPool waiter;  // for the one blocking call there is: the server's shutdown
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<void> Server::CheckUnused(const std::filesystem::path& socket) {
  if (!ConnectUnix(socket)) return {};
  return FailedPrecondition("another daemon serves on " + socket.string() +
                            "; stop it, or choose another endpoint or state directory");
}

Result<std::unique_ptr<Server>> Server::Start(Executor executor, Cache& cache, DaemonInfo info,
                                              Options options) {
  RETURN_IF_ERROR(CheckUnused(options.socket));
  // Process-wide, and before the first server is built.
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
  auto impl = std::make_unique<Impl>(executor, cache, std::move(info), std::move(options.access));
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

  ASSIGN_OR_RETURN(UniqueFd listener, ListenUnix(options.socket, options.mode, kBacklog));
  impl->socket = options.socket;
  boost::system::error_code error;
  impl->acceptor.assign(asio::local::stream_protocol(), listener.get(), error);
  if (error) return Internal("listening on " + options.socket.string() + ": " + error.message());
  (void)listener.Release();
  impl->tasks.Spawn("accept", Accept(impl->acceptor, impl->peers, *impl->server));
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

int Server::tcp_port() const { return impl_->tcp_port; }

void Server::StopAccepting() {
  if (auto* health = impl_->server->GetHealthCheckService()) health->SetServingStatus(false);
  impl_->tasks.Cancel();
  if (!impl_->acceptor.is_open()) return;
  // While we still listen: once we do not, another daemon may put its own socket there.
  std::error_code ignored;
  std::filesystem::remove(impl_->socket, ignored);
  boost::system::error_code ignored_too;
  impl_->acceptor.close(ignored_too);
}

asio::awaitable<void> Server::Stop(Deadline deadline) {
  StopAccepting();
  const auto left = deadline - std::chrono::steady_clock::now();
  const auto at = std::chrono::system_clock::now() +
                  std::chrono::duration_cast<std::chrono::system_clock::duration>(left);
  // Blocks until the last call has ended, and calls end on the loop: so not here.
  (void)co_await impl_->waiter.Run([server = impl_->server.get(), at]() -> Result<bool> {
    server->Shutdown(at);
    server->Wait();
    return true;
  });
  co_await impl_->tasks.Join();
}

}  // namespace hatchery::cache::rpc
