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

  // Who is at the other end of each connection. Any thread.
  const Peers& peers() const { return peers_; }

  // Binds and begins to accept for `server`, which outlives Stop(); once. The socket's folder must
  // exist; a stale socket file is replaced; kFailedPrecondition if somebody listens there.
  Result<void> Open(const std::filesystem::path& socket, unsigned mode, grpc::Server& server);

  // Removes the socket and takes no more connections; those that there are go on.
  void Close();

  // Of one that is open: Close(); lets running calls of its server finish until `deadline`, cancels
  // those that are left and waits for them.
  asio::awaitable<void> Stop(Deadline deadline);

 private:
  asio::local::stream_protocol::acceptor acceptor_;
  Peers peers_;
  grpc::Server* server_ = nullptr;
  std::filesystem::path socket_;
  TaskScope tasks_;
  WorkerPool waiter_;  // for the one blocking call there is: the server's shutdown
};

}  // namespace hatchery::cache::rpc
