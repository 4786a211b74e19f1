// The guest of a pretended QEMU: no machine, only an agent that answers. It takes on the identity
// it is given, remembers who marked it, and can be made to misbehave. While the VM is paused, calls
// wait as they would in a virtio queue. Loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "agent/guest/connection.h"
#include "agent/guest/dispatcher.h"
#include "agent/guest/event_loop.h"
#include "base/fd.h"
#include "hatchery/agent/v1/guest.pb.h"

namespace hatchery::torture {

// What the VMM has plugged in.
struct Board {
  std::uint32_t vcpus = 1;
  std::uint64_t memory_bytes = 0;
};

class FakeGuest {
 public:
  // Serves what connects to `listener`, one client at a time as QEMU's chardevs do. Both outlive
  // the guest.
  FakeGuest(agent::guest::EventLoop& loop, const Board& board, UniqueFd listener);

  void Run();
  void Pause() { running_ = false; }

  // Bytes that are no frame, now.
  void SendGarbage();
  // Answers nothing until told otherwise.
  void FallSilent(bool silent);

 private:
  using CallPtr = std::shared_ptr<agent::guest::Call>;

  void Accept();
  void AddCalls();
  // Does it as soon as the guest runs and speaks.
  void WhenRunning(std::function<void()> action);
  void Drain();
  void Personalize(const agent::v1::PersonalizeRequest& request, const CallPtr& call);
  void Exec(const agent::v1::ExecRequest& request, const CallPtr& call);
  agent::v1::DetailsResponse Details() const;

  agent::guest::EventLoop& loop_;
  const Board& board_;
  UniqueFd listener_;
  agent::guest::EventLoop::WatchId watch_ = 0;
  agent::guest::Dispatcher dispatcher_;
  std::unique_ptr<agent::guest::Connection> connection_;
  UniqueFd raw_;  // of the connection
  bool running_ = false;
  bool silent_ = false;
  std::deque<std::function<void()>> waiting_;

  std::string hostname_ = "template";
  std::string machine_id_ = "template";
  std::string boot_id_ = "template";
  std::string mark_;  // left by the last `sh`
};

}  // namespace hatchery::torture
