// A unix socket whose connections are accepted by us and handed to a gRPC server one by one: so
// that the socket has the mode we want from its first moment, and so that we know who is at the
// other end before gRPC sees it (peers.h).
#pragma once

#include <grpcpp/server.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <filesystem>

#include "base/offload.h"
#include "base/task.h"
#include "cache/rpc/peers.h"

namespace hatchery::cache::rpc {

// Loop thread only.
class UnixListener {
 public:
  explicit UnixListener(Executor executor);

  // kFailedPrecondition if somebody listens on `socket`.
  static Result<void> CheckUnused(const std::filesystem::path& socket);

  // Binds and begins to accept for `server`; once. The socket's folder must exist; a stale socket
  // file is replaced; kFailedPrecondition if somebody listens there. Both outlive the listener.
  Result<void> Open(const std::filesystem::path& socket, unsigned mode, Peers& peers,
                    grpc::Server& server);

  // Removes the socket and takes no more connections; those that there are go on.
  void Close();

  // Returns when nothing of it runs any more; after Close().
  asio::awaitable<void> Join();

 private:
  asio::local::stream_protocol::acceptor acceptor_;
  std::filesystem::path socket_;
  TaskScope tasks_;
};

// Lets running calls of `server` finish until `deadline`, cancels those that are left and waits for
// them, on `waiter`: calls end on the loop.
asio::awaitable<void> ShutDown(grpc::Server& server, WorkerPool& waiter, Deadline deadline);

}  // namespace hatchery::cache::rpc
