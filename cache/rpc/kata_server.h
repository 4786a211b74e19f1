// Kata Containers' VM cache protocol on a socket of its own: a client that speaks it gets a paused
// VM to take over (docs/kata.md).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "base/task.h"
#include "cache/access.h"
#include "cache/cache.h"
#include "cache/kata/config.h"

namespace hatchery::cache::rpc {

// Serves cache.CacheService (proto/kata/cache.proto). Who may call what is said by `access`, as for
// the service's own protocol. Loop thread only; gRPC's own threads call the service, which posts to
// the loop.
class KataServer {
 public:
  struct Options {
    std::filesystem::path socket;  // its folder is made if it is missing
    Access access;
    // Told of a call of Quit, when the socket is closed already.
    std::function<void()> on_quit;
  };

  // Binds, with mode 0600, and begins to serve; a stale socket file is replaced.
  // kFailedPrecondition if somebody listens there. `cache` and `configuration` outlive the server.
  static Result<std::unique_ptr<KataServer>> Start(Executor executor, Cache& cache,
                                                   kata::Configuration& configuration,
                                                   Options options);
  ~KataServer();

  // Takes no more connections, and removes the socket; refuses further calls.
  void StopAccepting();

  // StopAccepting(); lets running calls finish until `deadline`, cancels those that are left and
  // waits for them.
  asio::awaitable<void> Stop(Deadline deadline);

 private:
  struct Impl;
  explicit KataServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hatchery::cache::rpc
