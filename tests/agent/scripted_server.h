// The other end of a ttrpc channel, under a test's control, on the test's own loop.
#pragma once

#include <sys/socket.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <utility>

#include "agent/ttrpc/envelope.h"
#include "base/fd.h"
#include "base/task.h"

namespace hatchery::agent {

// Two connected, non-blocking stream sockets.
inline std::pair<UniqueFd, UniqueFd> SocketPair() {
  int fds[2] = {-1, -1};
  (void)::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

struct ReceivedCall {
  std::uint32_t id = 0;
  ttrpc::Request request;
};

class ScriptedServer {
 public:
  ScriptedServer(Executor executor, UniqueFd socket)
      : stream_(std::move(executor), socket.Release()) {}

  // The next request; kUnavailable when the client has closed.
  Task<ReceivedCall> Receive() {
    for (;;) {
      ASSIGN_OR_CO_RETURN(auto frame, decoder_.Next());
      if (frame) {
        ASSIGN_OR_CO_RETURN(auto request, ttrpc::ParseRequest(*frame));
        co_return ReceivedCall{frame->stream_id, std::move(request)};
      }
      std::array<char, 4096> buffer;
      auto [error, n] = co_await stream_.async_read_some(asio::buffer(buffer),
                                                         asio::as_tuple(asio::use_awaitable));
      if (error) co_return Unavailable(error.message());
      decoder_.Append({buffer.data(), n});
    }
  }

  Task<void> Send(std::string bytes) {
    auto [error, n] = co_await asio::async_write(stream_, asio::buffer(bytes),
                                                 asio::as_tuple(asio::use_awaitable));
    if (error) co_return Unavailable(error.message());
    co_return Result<void>();
  }
  Task<void> Answer(std::uint32_t id, std::string payload) {
    ASSIGN_OR_CO_RETURN(std::string bytes, ttrpc::EncodeResponse(id, payload));
    co_return co_await Send(std::move(bytes));
  }

  void Close() { stream_.close(); }

 private:
  asio::posix::stream_descriptor stream_;
  ttrpc::FrameDecoder decoder_;
};

}  // namespace hatchery::agent
