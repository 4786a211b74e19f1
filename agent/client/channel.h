// One ttrpc connection, from the calling side: many unary calls in flight over one stream socket.
//
// Loop thread only. The channel reads from the moment it is made until it fails: the peer closes,
// or sends what is no ttrpc. From then on every call, those in flight included, fails with
// kUnavailable and the reason. A reply that nobody waits for is dropped: its call has expired or
// was cancelled, or it was left in the guest's port by an earlier connection. Closing the channel,
// which destroying it does, ends calls in flight with kCancelled.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/task.h"

namespace hatchery::agent {

// What may wait for a guest that does not read before further calls are refused.
inline constexpr std::size_t kMaxUnsentBytes = 16u << 20;

class Channel {
 public:
  // A call whose answer nobody waits for.
  struct Message {
    std::string_view service, method;  // as Call()'s
    std::string payload;
  };

  // Takes over `socket`, connected and non-blocking. `peer` names it in error messages.
  Channel(Executor executor, UniqueFd socket, std::string peer);
  ~Channel();  // as Close()
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Calls `service`.`method` with a serialized message and returns the serialized answer. The
  // request is on its way, if the socket has room, before the awaiting coroutine is suspended.
  // `service` and `method` must live as long as the task (they are literals). Errors have the
  // method's name before them; those that the peer returned keep their code.
  //
  // `farewell`, if any, is sent if we stop waiting for the answer, at the deadline or cancelled, so
  // that the peer does not go on with what nobody wants.
  Task<std::string> Call(std::string_view service, std::string_view method, std::string payload,
                         Deadline deadline, std::optional<Message> farewell = {});

  // Every call, those in flight included, ends with kCancelled from here on.
  void Close();

  bool usable() const;

 private:
  struct State;
  static asio::awaitable<void> Read(std::shared_ptr<State> state);
  static asio::awaitable<void> Write(std::shared_ptr<State> state);
  static Task<std::string> CallOn(std::shared_ptr<State> state, std::string_view service,
                                  std::string_view method, std::string payload, Deadline deadline,
                                  std::optional<Message> farewell);
  // Sends a request, or queues it; its stream id.
  static Result<std::uint32_t> Post(const std::shared_ptr<State>& state, const Message& message,
                                    std::chrono::nanoseconds timeout);

  // Shared with the reader, the writer and the calls, which may outlive this object by one turn of
  // the loop.
  std::shared_ptr<State> state_;
};

}  // namespace hatchery::agent
