// One byte stream that carries calls: a socket, which ends when its peer does, or the virtio-serial
// port, which outlives its peers.
//
// The port's rules (drivers/char/virtio_console.c, read for Linux 6.1): poll says EPOLLHUP while no
// host is connected, read then gives 0, and the wait queue is woken when the host comes, goes or
// sends. Watched edge-triggered, that is all there is to wait for: no polling, and a VM that was
// saved and loaded elsewhere goes on with its next wake-up.
//
//   state     | event                    | then
//   ----------+--------------------------+-----------------------------------------------------
//   serving   | frame                    | the call starts
//   serving   | garbage                  | calls cancelled, answers dropped -> deaf
//   serving   | HUP                      | calls cancelled, answers and half frames dropped
//             |                          |  -> away
//   deaf      | data                     | discarded
//   deaf      | HUP                      | -> away
//   away      | frame                    | the call starts, its answer waits for the next host:
//             |                          | what that one sends can be read before it is seen to
//             |                          | have come
//   away      | read gives 0             | half frames dropped
//   away      | an event without HUP     | -> serving
//   any       | device or peer gone      | -> ended: `on_end`
//
// An answer can thus reach a host that did not ask: hosts start their stream ids at random.
//
// Loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "agent/guest/dispatcher.h"
#include "agent/guest/event_loop.h"
#include "agent/ttrpc/envelope.h"
#include "base/fd.h"

namespace hatchery::agent::guest {

class Connection {
 public:
  enum class Kind { kSocket, kPort };

  // `fd` is non-blocking. `on_end` is called at most once, from the loop, and may destroy this.
  static Result<std::unique_ptr<Connection>> Create(EventLoop& loop, const Dispatcher& dispatcher,
                                                    UniqueFd fd, Kind kind,
                                                    std::function<void()> on_end);
  // Cancels the calls in flight.
  ~Connection();

 private:
  struct Outgoing {
    std::string bytes;
    std::size_t written = 0;
    Call::Flushed flushed;
  };

  Connection(EventLoop& loop, const Dispatcher& dispatcher, UniqueFd fd, Kind kind,
             std::function<void()> on_end);
  void OnEvents(std::uint32_t events);
  // These two give false when the stream has ended.
  bool ReadAll();
  bool WriteAll();
  // Frames that are complete; false on garbage.
  bool Decode();
  void OnFrame(ttrpc::Frame frame);
  void Send(std::string bytes, Call::Flushed flushed);
  bool IsCongested() const;
  void Forget();
  void End();

  EventLoop& loop_;
  const Dispatcher& dispatcher_;
  UniqueFd fd_;
  const Kind kind_;
  std::function<void()> on_end_;
  EventLoop::WatchId watch_ = 0;
  ttrpc::FrameDecoder decoder_;
  std::map<std::uint32_t, std::shared_ptr<Call>> calls_;  // by stream id
  std::uint32_t last_stream_id_ = 0;
  std::deque<Outgoing> outgoing_;
  std::size_t outgoing_bytes_ = 0;
  bool deaf_ = false;
  bool away_ = false;
};

}  // namespace hatchery::agent::guest
