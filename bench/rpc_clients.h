// The clients of the service's benchmark: the empty call, acquire and release, over connections of
// their own to one daemon. Every call has a deadline, as a real client's would.
//
// Thread-safe, except that a client's blocking calls are one thread's at a time.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bench/load.h"

namespace hatchery::bench {

class RpcClients {
 public:
  // `connections` clients, each with a connection of its own; asynchronous calls take them in turn.
  RpcClients(const std::filesystem::path& socket, int connections);
  ~RpcClients();

  // gRPC's health check, which does nothing and answers with two bytes.
  Failure Empty(int client);
  // An acquire that the pool did not serve is a failure; its VM is kept all the same.
  Failure Acquire(int client) { return Acquire(client, false); }
  // One that is served by a clone of its own will do as well.
  Failure AcquireOrClone(int client) { return Acquire(client, true); }
  // Releases one of the VMs that were acquired and not released; a failure if there is none.
  Failure Release(int client);
  std::size_t held() const;

  // As above, without blocking; `done` is called on one of gRPC's threads.
  void StartEmpty(std::size_t index, Done done);
  // Its VM is released once `done` was called; AwaitReleases() returns when those are done, with
  // what became of them (latency from when each was sent).
  void StartAcquire(std::size_t index, Done done);
  Load AwaitReleases();

 private:
  struct Connection;
  Failure Acquire(int client, bool clone_will_do);
  void Keep(std::string vm_id);
  void StartRelease(Connection& connection, std::string vm_id);

  std::vector<std::unique_ptr<Connection>> connections_;
  mutable std::mutex mutex_;
  std::condition_variable released_;
  std::vector<std::string> held_;  // under mutex_, like all below
  std::size_t releasing_ = 0;
  Load releases_;
};

}  // namespace hatchery::bench
