// The gRPC server on its unix socket.
#pragma once

#include <filesystem>
#include <memory>

#include "base/task.h"
#include "cache/cache.h"
#include "cache/rpc/factory_service.h"

namespace hatchery::cache::rpc {

// Serves hatchery.v1.Cache and hatchery.v1.Factory, grpc.health.v1.Health and server reflection.
//
// Connections are accepted by us and handed to gRPC one by one, so that the socket has the mode we
// want from its first moment, and so that a peer's credentials can be looked at before gRPC sees
// it. Loop thread only; gRPC's own threads call the services, which post to the loop.
class Server {
 public:
  struct Options {
    std::filesystem::path socket;  // its folder must exist
    unsigned mode = 0660;
  };

  // kFailedPrecondition if somebody listens on `socket`.
  static Result<void> CheckUnused(const std::filesystem::path& socket);

  // Binds and begins to serve. A stale socket file is replaced; kFailedPrecondition if somebody
  // listens on it. `cache` must outlive the server.
  static Result<std::unique_ptr<Server>> Start(Executor executor, Cache& cache, DaemonInfo info,
                                               Options options);
  ~Server();

  // Says NOT_SERVING to health checks, takes no more connections and removes the socket.
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
