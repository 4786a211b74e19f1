// Load on a server, and what is counted of it; knows no protocol.
//
// Closed loop: clients that each make their next call when the last one was answered. Open loop:
// calls that are due on a schedule, whatever became of those before; a call's latency counts from
// when it was due, so that a server (or this process) that stalls shows in all calls that were due
// meanwhile, and not in one.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace hatchery::bench {

using SteadyTime = std::chrono::steady_clock::time_point;

// Why a call failed; empty if it did not.
using Failure = std::string;

// What came of some calls.
struct Load {
  std::vector<double> samples;                    // seconds; of those that succeeded
  std::map<std::string, std::uint64_t> failures;  // by reason
  double seconds = 0;                             // from the first call's start to the last's end

  // Calls that succeeded, per second.
  double Rate() const { return seconds > 0 ? static_cast<double>(samples.size()) / seconds : 0; }
  void Add(const Load& other);
  // Makes one call and counts it.
  void Time(const std::function<Failure()>& call);
};

// `calls` calls, shared evenly by `clients` threads that begin together. `call` makes one, for the
// client of that number (0 to clients - 1), and blocks. No further call begins once `stopped`. With
// `before`, each client does that before each of its calls, and it is not counted.
Load RunClosedLoop(int clients, int calls, const std::function<Failure(int client)>& call,
                   const std::function<bool()>& stopped,
                   const std::function<void(int client)>& before = nullptr);

// The sender's clock; a fake one in tests.
struct SendClock {
  std::function<SteadyTime()> now;
  std::function<void(SteadyTime)> wait_until;
};
// The real one. Its waits are exact to some microseconds.
SendClock MakeSendClock();

// `calls` calls at `rate` per second. `start` begins one and returns at once; `done` may be called
// on any thread, and must be called once. A call that is due while kMaxInFlight are under way is
// not made, which is its failure. Returns when all are done, so each must be bounded.
inline constexpr std::size_t kMaxInFlight = 4096;
using Done = std::function<void(Failure)>;
Load RunOpenLoop(const SendClock& clock, double rate, std::size_t calls,
                 const std::function<void(std::size_t index, Done done)>& start,
                 const std::function<bool()>& stopped);

}  // namespace hatchery::bench
