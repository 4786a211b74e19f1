#include "cache/rpc/unix_listener.h"

#include <fcntl.h>
#include <grpcpp/server_posix.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/fd.h"
#include "base/log.h"

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

UnixListener::UnixListener(Executor executor) : acceptor_(executor), tasks_(executor), waiter_(1) {}

Result<void> UnixListener::CheckUnused(const std::filesystem::path& socket) {
  if (!ConnectUnix(socket)) return {};
  return FailedPrecondition("another daemon serves on " + socket.string() +
                            "; stop it, or choose another endpoint or state directory");
}

Result<void> UnixListener::Open(const std::filesystem::path& socket, unsigned mode,
                                grpc::Server& server) {
  RETURN_IF_ERROR(CheckUnused(socket));
  ASSIGN_OR_RETURN(UniqueFd listener, ListenUnix(socket, mode, kBacklog));
  boost::system::error_code error;
  acceptor_.assign(asio::local::stream_protocol(), listener.get(), error);
  if (error) return Internal("listening on " + socket.string() + ": " + error.message());
  (void)listener.Release();
  socket_ = socket;
  server_ = &server;
  tasks_.Spawn("accept on " + socket.string(), Accept(acceptor_, peers_, server));
  return {};
}

void UnixListener::Close() {
  tasks_.Cancel();
  if (!acceptor_.is_open()) return;
  // While we still listen: once we do not, another daemon may put its own socket there.
  std::error_code ignored;
  std::filesystem::remove(socket_, ignored);
  boost::system::error_code ignored_too;
  acceptor_.close(ignored_too);
}

asio::awaitable<void> UnixListener::Stop(Deadline deadline) {
  Close();
  const auto left = deadline - std::chrono::steady_clock::now();
  const auto at = std::chrono::system_clock::now() +
                  std::chrono::duration_cast<std::chrono::system_clock::duration>(left);
  // Blocks until the last call has ended, and calls end on the loop: so not here.
  (void)co_await waiter_.Run([server = server_, at]() -> Result<bool> {
    server->Shutdown(at);
    server->Wait();
    return true;
  });
  co_await tasks_.Join();
}

}  // namespace hatchery::cache::rpc
