#include "agent/client/channel.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <unordered_map>
#include <utility>

#include "agent/ttrpc/envelope.h"
#include "agent/ttrpc/frame.h"
#include "base/ids.h"

namespace hatchery::agent {

namespace {

using Descriptor = asio::posix::stream_descriptor;

// One call in flight; lives in the frame of its coroutine. The timer is both its deadline and what
// wakes it.
struct Waiter {
  asio::steady_timer timer;
  std::optional<Result<std::string>> answer = {};

  void Answer(Result<std::string> result) {
    if (answer) return;
    answer.emplace(std::move(result));
    timer.cancel();
  }
};

// A connection to a clone may still carry an answer to the template's last call. Starting at a
// random place keeps it from being taken for ours; ids stay odd and grow, as the protocol wants.
std::uint32_t FirstStreamId() {
  std::uint32_t id = 0;
  std::memcpy(&id, RandomBytes(sizeof(id)).data(), sizeof(id));
  return (id & 0x3fffffff) | 1;
}

// What is left of the deadline, for the peer; 0, which means none, when that is years.
std::chrono::nanoseconds TimeoutFor(Deadline deadline, Deadline now) {
  return deadline - now > std::chrono::hours(24 * 365) ? std::chrono::nanoseconds(0)
                                                       : deadline - now;
}

}  // namespace

struct Channel::State {
  State(Executor e, UniqueFd socket, std::string p)
      : executor(e), descriptor(e, socket.Release()), peer(std::move(p)) {}

  Executor executor;
  Descriptor descriptor;
  std::string peer;
  ttrpc::FrameDecoder decoder;
  std::unordered_map<std::uint32_t, Waiter*> waiters;
  std::uint32_t next_stream_id = FirstStreamId();
  std::string unsent;  // what the socket had no room for
  std::optional<Error> failure;

  // The first reason stays; every call ends with it.
  void Fail(Error reason) {
    if (failure) return;
    failure = std::move(reason);
    unsent.clear();
    boost::system::error_code ignored;
    descriptor.close(ignored);
    for (auto& [id, waiter] : std::exchange(waiters, {})) {
      waiter->Answer(std::unexpected(*failure));
    }
  }
  void FailUnavailable(std::string_view what) {
    Fail({Code::kUnavailable, "the agent at " + peer + " " + std::string(what)});
  }

  // Writes as much of `bytes` as the socket takes; how much that was.
  std::size_t Send(std::string_view bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = ::send(descriptor.native_handle(), bytes.data() + sent, bytes.size() - sent,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n >= 0) {
        sent += static_cast<std::size_t>(n);
      } else if (errno == EAGAIN) {
        break;
      } else if (errno != EINTR) {
        FailUnavailable(std::string("is gone: ") + std::strerror(errno));
        break;
      }
    }
    return sent;
  }

  // Takes in what the socket has. False at the end, with `failure` set.
  bool Receive() {
    std::array<char, 64u << 10> buffer;
    for (;;) {
      const ssize_t n =
          ::recv(descriptor.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return true;
      if (n < 0) FailUnavailable(std::string("is gone: ") + std::strerror(errno));
      if (n == 0) FailUnavailable("closed the connection");
      if (n <= 0) return false;
      decoder.Append({buffer.data(), static_cast<std::size_t>(n)});
      if (!DispatchFrames()) return false;
      // A full buffer may mean more; anything less was all, and the next wait re-checks.
      if (static_cast<std::size_t>(n) < buffer.size()) return true;
    }
  }

  bool DispatchFrames() {
    for (;;) {
      auto frame = decoder.Next();
      if (!frame) {
        FailUnavailable("sent garbage: " + frame.error().message);
        return false;
      }
      if (!*frame) return true;
      const std::uint32_t id = (**frame).stream_id;
      auto response = ttrpc::ParseResponse(**frame);
      if (!response) {
        FailUnavailable("sent garbage: " + response.error().message);
        return false;
      }
      const auto waiter = waiters.find(id);
      if (waiter == waiters.end()) continue;
      if (response->error) {
        waiter->second->Answer(std::unexpected(*std::move(response->error)));
      } else {
        waiter->second->Answer(std::move(response->payload));
      }
    }
  }
};

Channel::Channel(Executor executor, UniqueFd socket, std::string peer)
    : state_(std::make_shared<State>(executor, std::move(socket), std::move(peer))) {
  asio::co_spawn(executor, Read(state_), [state = state_](std::exception_ptr bug) {
    if (bug) state->Fail({Code::kInternal, "reading from the agent ended with an exception"});
  });
}

Channel::~Channel() { Close(); }

void Channel::Close() {
  state_->Fail({Code::kCancelled,
                "the connection to the agent at " + state_->peer + " was closed on this side"});
}

bool Channel::usable() const { return !state_->failure; }

asio::awaitable<void> Channel::Read(std::shared_ptr<State> state) {
  while (!state->failure) {
    auto [error] = co_await state->descriptor.async_wait(Descriptor::wait_read,
                                                         asio::as_tuple(asio::use_awaitable));
    // Closed meanwhile: whoever did it has set the failure.
    if (error || state->failure || !state->Receive()) co_return;
  }
}

asio::awaitable<void> Channel::Write(std::shared_ptr<State> state) {
  while (!state->unsent.empty()) {
    auto [error] = co_await state->descriptor.async_wait(Descriptor::wait_write,
                                                         asio::as_tuple(asio::use_awaitable));
    if (error || state->failure) co_return;
    const std::size_t sent = state->Send(state->unsent);
    if (!state->failure) state->unsent.erase(0, sent);
  }
}

Task<std::string> Channel::Call(std::string_view service, std::string_view method,
                                std::string payload, Deadline deadline,
                                std::optional<Message> farewell) {
  return CallOn(state_, service, method, std::move(payload), deadline, std::move(farewell));
}

Result<std::uint32_t> Channel::Post(const std::shared_ptr<State>& state, const Message& message,
                                    std::chrono::nanoseconds timeout) {
  const std::uint32_t id = state->next_stream_id;
  ASSIGN_OR_RETURN(
      const std::string bytes,
      ttrpc::EncodeRequest(id, message.service, message.method, message.payload, timeout));
  if (state->unsent.size() + bytes.size() > kMaxUnsentBytes) {
    return ResourceExhausted("the agent at " + state->peer + " does not read what it is sent");
  }
  state->next_stream_id += 2;
  if (!state->unsent.empty()) {
    state->unsent += bytes;
    return id;
  }
  const std::size_t sent = state->Send(bytes);
  if (state->failure) return std::unexpected(*state->failure);
  if (sent < bytes.size()) {
    state->unsent = bytes.substr(sent);
    asio::co_spawn(state->executor, Write(state), [state](std::exception_ptr bug) {
      if (bug) state->Fail({Code::kInternal, "writing to the agent ended with an exception"});
    });
  }
  return id;
}

Task<std::string> Channel::CallOn(std::shared_ptr<State> state, std::string_view service,
                                  std::string_view method, std::string payload, Deadline deadline,
                                  std::optional<Message> farewell) {
  const auto cancellation = co_await asio::this_coro::cancellation_state;
  if (cancellation.cancelled() != asio::cancellation_type::none) {
    co_return Cancelled(std::string(method) + ": cancelled before it was sent");
  }
  if (state->failure) co_return Annotate(*state->failure, method);
  const auto now = std::chrono::steady_clock::now();
  if (deadline <= now) co_return DeadlineExceeded(std::string(method) + ": no time left to call");
  const auto id = Post(state, {service, method, std::move(payload)}, TimeoutFor(deadline, now));
  if (!id) co_return Annotate(id.error(), method);

  Waiter waiter{asio::steady_timer(state->executor, deadline)};
  struct Registration {
    State& state;
    std::uint32_t id;
    ~Registration() { state.waiters.erase(id); }
  };
  state->waiters.emplace(*id, &waiter);
  const Registration registration{*state, *id};
  auto [error] = co_await waiter.timer.async_wait(asio::as_tuple(asio::use_awaitable));
  if (waiter.answer) {
    if (!*waiter.answer) co_return Annotate(std::move(*waiter.answer).error(), method);
    co_return *std::move(waiter.answer);
  }
  // If it cannot be sent, the peer does not read, or is gone.
  if (farewell) (void)Post(state, *farewell, {});
  if (!error) {
    co_return DeadlineExceeded(std::string(method) + ": the agent at " + state->peer +
                               " did not answer in time");
  }
  co_return Cancelled(std::string(method) + ": cancelled while waiting for the agent");
}

}  // namespace hatchery::agent
