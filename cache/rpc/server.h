// The gRPC server: on its unix socket, and over TCP with mutual TLS where that is wanted.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "base/task.h"
#include "cache/access.h"
#include "cache/cache.h"
#include "cache/rpc/factory_service.h"
#include "cache/rpc/tls.h"

namespace hatchery::cache::rpc {

// Serves hatchery.v1.Cache and hatchery.v1.Factory, grpc.health.v1.Health and server reflection.
//
// Connections of the unix socket are accepted by us (unix_listener.h). TCP is gRPC's own to accept;
// who calls is in the certificate it has verified. Loop thread only; gRPC's own threads call the
// services, which post to the loop.
class Server {
 public:
  struct Options {
    std::filesystem::path socket;  // its folder must exist
    unsigned mode = 0660;
    Access access;
    std::optional<TlsOptions> tls;
    // What clients of Kata's protocol are told; outlives the server. Null: kUnimplemented.
    kata::Configuration* kata = nullptr;
  };

  // Binds and begins to serve. A stale socket file is replaced; kFailedPrecondition if somebody
  // listens on it. Errors of `tls` name the setting. `cache` must outlive the server.
  static Result<std::unique_ptr<Server>> Start(Executor executor, Cache& cache, DaemonInfo info,
                                               Options options);
  ~Server();

  // That TCP clients connect to; 0 without TCP.
  int tcp_port() const;

  // Says NOT_SERVING to health checks, takes no more connections on the socket and removes it. TCP
  // clients may still connect until Stop().
  void StopAccepting();

  // StopAccepting(); lets running calls finish until `deadline`, cancels those that are left and
  // waits for them.
  asio::awaitable<void> Stop(Deadline deadline);

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hatchery::cache::rpc
