// The agent as a whole: the loop, what it answers, and where it is reached. Built and destroyed by
// one thread; Run() may be another's.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "agent/guest/connection.h"
#include "agent/guest/dispatcher.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/onliner.h"
#include "agent/guest/services.h"
#include "agent/guest/system.h"
#include "agent/guest/uevents.h"
#include "agent/guest/worker.h"
#include "base/fd.h"

namespace hatchery::agent::guest {

inline constexpr std::string_view kPortName = "org.hatchery.agent.0";
inline constexpr unsigned kVsockPort = 1024;

class Server {
 public:
  // `listen_to_kernel`: react to the kernel's uevents where they can be had (tests say no). Makes
  // the process ignore SIGPIPE. `system` outlives the server.
  static Result<std::unique_ptr<Server>> Create(GuestSystem& system, bool listen_to_kernel,
                                                Offer offer = Offer::kAll);
  ~Server();

  // Before Run(), or from the loop's thread.

  // Serves one stream until its peer closes it. `fd` is a connected socket, or a port.
  Result<void> Serve(UniqueFd fd, Connection::Kind kind);
  // Serves every connection that `fd` accepts.
  Result<void> Listen(UniqueFd fd);
  // Serves the virtio-serial port of the given name, now or when it appears, and again after it was
  // removed. False: it is not there yet.
  bool ServePort(std::string name);
  // Listens on the vsock port; not an error where the guest has no vsock.
  void ListenVsock();

  void Run() { loop_->Run(); }
  void Stop() { loop_->Stop(); }
  // From any thread.
  void Post(std::function<void()> action) { loop_->Post(std::move(action)); }
  // For tests: what a uevent would cause. From any thread.
  void InjectUevent(Uevent event);

 private:
  Server(std::unique_ptr<EventLoop> loop, GuestSystem& system)
      : loop_(std::move(loop)), system_(system) {}
  void OnUevent(const Uevent& event);
  bool LookForPort();

  std::unique_ptr<EventLoop> loop_;
  GuestSystem& system_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<Onliner> onliner_;
  std::unique_ptr<Services> services_;
  Dispatcher dispatcher_;
  std::unique_ptr<UeventSource> uevents_;
  std::list<UniqueFd> listeners_;
  std::list<std::unique_ptr<Connection>> connections_;
  std::string port_name_;
  bool port_open_ = false;
};

// The device of the virtio-serial port called `name` ("/dev/vport0p1"), by sysfs. kNotFound.
Result<std::string> FindPort(const GuestSystem& system, std::string_view name);

}  // namespace hatchery::agent::guest
