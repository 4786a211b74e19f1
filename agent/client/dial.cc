#include "agent/client/dial.h"

#include <sys/socket.h>
// After sys/socket.h, which it needs.
#include <linux/vm_sockets.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>

namespace hatchery::agent {

namespace {

using Descriptor = asio::posix::stream_descriptor;

// "OK 1073741824\n" is what VMMs say.
constexpr std::size_t kMaxGreetingBytes = 64;

// Waits until `socket`, which stays its owner's, is ready.
Task<void> WaitUntilReady(int socket, Descriptor::wait_type what, Deadline deadline) {
  const auto executor = co_await asio::this_coro::executor;
  // A copy, because a descriptor object closes its own. Shared with the timer, whose handler may
  // run after we have returned.
  ASSIGN_OR_CO_RETURN(UniqueFd copy, Duplicate(socket));
  const auto descriptor = std::make_shared<Descriptor>(executor, copy.Release());
  asio::steady_timer timer(executor, deadline);
  timer.async_wait([descriptor](boost::system::error_code cancelled) {
    boost::system::error_code ignored;
    if (!cancelled) descriptor->cancel(ignored);
  });
  auto [error] = co_await descriptor->async_wait(what, asio::as_tuple(asio::use_awaitable));
  if (!error) co_return Result<void>();
  if (co_await IsCancelled()) co_return Cancelled("cancelled while connecting");
  co_return DeadlineExceeded("no answer in time");
}

Result<UniqueFd> ConnectToPath(const std::filesystem::path& path) {
  auto socket = ConnectUnix(path);
  // No file, or a full backlog: either way nobody accepts there now.
  if (!socket && socket.error().code != Code::kInvalidArgument &&
      socket.error().code != Code::kPermissionDenied) {
    return Unavailable(socket.error().message);
  }
  return socket;
}

// Reads up to the end of the line and not a byte further: what follows is the agent's.
Task<std::string> ReadLine(int socket, Deadline deadline) {
  std::string line;
  while (line.size() < kMaxGreetingBytes) {
    char c = 0;
    const ssize_t n = ::recv(socket, &c, 1, MSG_DONTWAIT);
    if (n == 1 && c == '\n') co_return line;
    if (n == 1) {
      line += c;
    } else if (n == 0) {
      co_return Unavailable("the VMM closed the connection: nothing listens on that port");
    } else if (errno == EAGAIN) {
      CO_RETURN_IF_ERROR(co_await WaitUntilReady(socket, Descriptor::wait_read, deadline));
    } else if (errno != EINTR) {
      co_return Unavailable(ErrnoError(errno, "reading the VMM's answer").error().message);
    }
  }
  co_return Unavailable("the VMM's answer to CONNECT is no line of at most " +
                        std::to_string(kMaxGreetingBytes) + " bytes");
}

Task<UniqueFd> DialHybridVsock(HybridVsockEndpoint endpoint, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(UniqueFd socket, ConnectToPath(endpoint.path));
  const std::string request = "CONNECT " + std::to_string(endpoint.port) + "\n";
  // A fresh socket's buffer takes a dozen bytes whole.
  const ssize_t n = ::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL);
  if (n != static_cast<ssize_t>(request.size())) {
    co_return Unavailable("the VMM does not take CONNECT");
  }
  ASSIGN_OR_CO_RETURN(const std::string line, co_await ReadLine(socket.get(), deadline));
  if (line != "OK" && !line.starts_with("OK ")) {
    co_return Unavailable("the VMM answered CONNECT with '" + line + "'");
  }
  co_return socket;
}

Task<UniqueFd> DialVsock(VsockEndpoint endpoint, Deadline deadline) {
  UniqueFd socket(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    co_return Unavailable(
        ErrnoError(errno, "creating a vsock socket (is the vsock module loaded?)").error().message);
  }
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = endpoint.cid;
  address.svm_port = endpoint.port;
  int error = 0;
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    error = errno;
  }
  if (error == EINPROGRESS) {
    CO_RETURN_IF_ERROR(co_await WaitUntilReady(socket.get(), Descriptor::wait_write, deadline));
    socklen_t size = sizeof(error);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) co_return Unavailable(ErrnoError(error, "connecting").error().message);
  co_return socket;
}

Task<UniqueFd> DialAny(const Endpoint& endpoint, Deadline deadline) {
  if (const auto* path = std::get_if<UnixEndpoint>(&endpoint)) {
    co_return ConnectToPath(path->path);
  }
  if (const auto* hybrid = std::get_if<HybridVsockEndpoint>(&endpoint)) {
    co_return co_await DialHybridVsock(*hybrid, deadline);
  }
  co_return co_await DialVsock(std::get<VsockEndpoint>(endpoint), deadline);
}

}  // namespace

Task<UniqueFd> Dial(Endpoint endpoint, Deadline deadline) {
  auto socket = co_await DialAny(endpoint, deadline);
  if (!socket) co_return Annotate(socket.error(), "agent at " + ToString(endpoint));
  co_return socket;
}

}  // namespace hatchery::agent
