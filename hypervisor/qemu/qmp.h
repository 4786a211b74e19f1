// A connection to one QEMU's QMP socket.
//
// Commands may overlap; each has its own deadline. When the connection ends, for whatever reason,
// every command in flight and every later one fails with kUnavailable (QEMU closed it, or we did)
// or kDataLoss (it sent something that is not QMP). Loop thread only. The client may be destroyed
// at any time, also from one of its own handlers and while commands wait.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/json.h"
#include "base/task.h"
#include "hypervisor/qemu/qmp_message.h"

namespace hatchery::hypervisor::qemu {

class QmpClient {
 public:
  struct Handlers {
    std::function<void(const QmpEvent&)> on_event;
    std::function<void()> on_close;  // once
  };

  // `socket` is connected; QEMU need not have accepted yet.
  QmpClient(Executor executor, UniqueFd socket, Handlers handlers);
  ~QmpClient();
  QmpClient(const QmpClient&) = delete;
  QmpClient& operator=(const QmpClient&) = delete;

  // Waits for QEMU's greeting and agrees on no optional capabilities. Needed once, before the first
  // command.
  Task<void> Handshake(Deadline deadline);

  // Runs one command and returns its "return". Fails with QEMU's words: kNotFound for its
  // DeviceNotFound, kUnimplemented for CommandNotFound, kInternal for the rest. A descriptor in
  // `fd` travels along (for `getfd`); it stays the caller's.
  Task<Json> Execute(std::string command, Json arguments, Deadline deadline, int fd = -1);

  bool open() const;
  // Returns when the connection has ended and everything that came before has been handled.
  Task<void> WaitClosed(Deadline deadline);
  // Ends it without calling on_close.
  void Close();

 private:
  struct Channel;
  static Task<Json> Run(std::shared_ptr<Channel> channel, std::string command, Json arguments,
                        Deadline deadline, int fd);
  std::shared_ptr<Channel> channel_;
};

}  // namespace hatchery::hypervisor::qemu
