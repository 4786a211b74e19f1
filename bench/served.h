// What a client of the daemon does and sees: acquire, commands, release, refill. Each call is timed
// from before it is sent until its reply is here, over the unix socket. Blocking; one thread; every
// wait is bounded and ends at an interrupt.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/task.h"
#include "bench/measure.h"
#include "cmd/hatchery/client.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::bench {

// Sizes of a VM.
struct Sizes {
  std::uint32_t vcpus = 1;
  Bytes memory;
};

inline double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() / 1e9;
}

class Served {
 public:
  Served(asio::io_context& io, cli::Interrupt& interrupt, cli::Client& client);

  // The template "default", without a pool.
  Result<v1::Template> MakeTemplate(Sizes sizes);

  // Makes the pool of this shape, or changes its size; returns when it has `target` warm VMs and
  // nothing of it is being made. 0 takes the pool away, without waiting for its VMs' end.
  Result<void> FillPool(Sizes sizes, std::uint32_t target);
  // Ends the pool and the `target` VMs that it keeps; waits until their processes are gone.
  Result<void> RemovePool(Sizes sizes, std::uint32_t target);
  // The warm VMs of this shape.
  Result<std::vector<v1::Vm>> Warm(Sizes sizes);

  struct Acquired {
    double seconds = 0;
    v1::AcquireResponse reply;
    const std::string& id() const { return reply.vm().vm_id(); }
  };
  // kFailedPrecondition, and no VM, if it did not come from where it should.
  Result<Acquired> Acquire(Sizes sizes,
                           v1::AcquireResponse::Source from = v1::AcquireResponse::POOL);

  struct InBackground {  // seconds, from before the acquire
    double replied = 0;  // the VM is unique, what it gets in addition plugged in
    double ready = 0;    // and online
    v1::Vm vm;           // to be released
  };
  // An acquire from the pool that need not wait for its guest to bring up what is added, and then
  // the same again, waiting.
  Result<InBackground> AcquireInBackground(Sizes sizes);

  // Runs a command that must succeed, by default /bin/true: what it took.
  Result<double> Exec(const std::string& vm_id);
  // What a command printed.
  Result<std::string> Ask(const std::string& vm_id, std::vector<std::string> argv);

  // Gives VMs back and waits until their processes are gone.
  Result<void> Release(const std::vector<v1::Vm>& vms);

  struct Burst {
    struct Call {  // seconds from when the burst was let go
      Result<double> acquired;
      Result<double> first_exec;
    };
    std::vector<Call> calls;
    std::vector<v1::Vm> vms;  // to be released
    SteadyClock::time_point start;
  };
  // `count` acquires at once, each a call of its own with its own deadline, let go together by one
  // thread; with `exec`, each followed by a first command as soon as its reply is here.
  Burst AcquireAtOnce(Sizes sizes, std::uint32_t count, bool exec);

 private:
  // Calls `end`, which ends them, and waits until their processes are gone.
  Result<void> EndAndAwait(const std::vector<v1::Vm>& vms,
                           const std::function<Result<void>()>& end);

  asio::io_context& io_;
  cli::Interrupt& interrupt_;
  cli::Client& client_;
};

}  // namespace hatchery::bench
