// The host's side of the guest agent: one connection, typed calls. Interfaces only; the real ones
// are made by agent/client/ttrpc_client.h, the fake ones by agent/fake/.
//
// Loop thread only. Many calls may be in flight. Every call takes a deadline; one that expires
// fails alone (kDeadlineExceeded) and leaves the channel usable. A channel that closes or carries
// garbage fails every call, now and later, with kUnavailable and the reason.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/task.h"

namespace hatchery::agent {

struct Versions {
  std::string protocol;  // "hatchery.agent.v1" or what a foreign agent says
  std::string agent;
};

// What makes a clone different from its siblings.
struct Identity {
  std::string seed;        // at least 32 random bytes; never reused
  WallTime time;           // the host's clock, read just before the call
  std::string hostname;    // empty: unchanged
  std::string machine_id;  // 32 hexadecimal digits; empty: unchanged
  bool renew_boot_id = true;
  std::uint32_t vcpus = 0;  // wait until this many CPUs are online; 0: do not wait for any
  Bytes memory;             // likewise for memory
};

// What the agent confirms, part by part. Personalize() succeeds only if every part that was asked
// for was done; a part that failed is an error that names it.
struct PersonalizeReport {
  bool reseeded = false;
  bool clock_set = false;
  bool hostname_set = false;
  bool machine_id_set = false;
  std::string boot_id;  // as the guest has it now
  std::uint32_t online_vcpus = 0;
  Bytes online_memory;
};

// What a guest has online.
struct OnlineReport {
  std::uint32_t vcpus = 0;
  Bytes memory;
  std::string problem;  // what is missing, and why if the guest knows; empty: nothing
};

struct ExecRequest {
  std::vector<std::string> argv;           // argv[0] is looked up in the guest's PATH
  std::map<std::string, std::string> env;  // beside the agent's default PATH and HOME
  std::string cwd;                         // empty: "/"
  std::string stdin_data;
  std::chrono::milliseconds timeout{};  // 0: none but the call's deadline
  Bytes output_limit = Bytes::MiB(1);   // for stdout and stderr each
};

struct ExecResult {
  // Exactly one of the two.
  std::optional<int> exit_code;
  std::optional<int> signal;
  bool timed_out = false;  // killed at `timeout`; `signal` is then SIGKILL
  std::string out, err;
  bool out_truncated = false, err_truncated = false;
};

struct GuestDetails {
  std::string agent_version, kernel_release, hostname, boot_id, machine_id;
  std::uint32_t online_vcpus = 0;
  Bytes online_memory;
  Bytes memory_block;
  WallTime time;
};

class Client {
 public:
  // Closes the connection; calls in flight end with kCancelled.
  virtual ~Client() = default;

  // Succeeds if the agent serves.
  virtual Task<void> Check(Deadline deadline) = 0;
  virtual Task<Versions> Version(Deadline deadline) = 0;

  virtual Task<PersonalizeReport> Personalize(const Identity& identity, Deadline deadline) = 0;
  // Returns when the guest has at least so many CPUs and so much memory online, or shortly before
  // `deadline` with what it has then: `problem` tells the two apart.
  virtual Task<OnlineReport> AwaitOnline(std::uint32_t vcpus, Bytes memory, Deadline deadline) = 0;
  // kNotFound: no such program; kInvalidArgument: empty argv, or request over 3 MiB. A command
  // whose caller stops waiting, cancelled or at the deadline, is killed (by agents that know Kill).
  virtual Task<ExecResult> Exec(const ExecRequest& request, Deadline deadline) = 0;
  virtual Task<GuestDetails> Details(Deadline deadline) = 0;

  // Makes the guest ready to be saved as a template: sync, drop caches, compact memory.
  virtual Task<void> PrepareSave(Deadline deadline) = 0;
  // Asks the guest to power off; the reply comes before it does.
  virtual Task<void> PowerOff(Deadline deadline) = 0;

  // Kata's own calls (grpc.AgentService), for guests that carry Kata's agent.
  virtual Task<void> OnlineCpuMem(std::uint32_t vcpus, bool wait, bool cpu_only,
                                  Deadline deadline) = 0;
  virtual Task<void> ReseedRandomDev(std::string seed, Deadline deadline) = 0;
  virtual Task<void> SetGuestDateTime(WallTime time, Deadline deadline) = 0;

  // False once the channel has closed or was garbled.
  virtual bool usable() const = 0;
};

class Connector {
 public:
  virtual ~Connector() = default;
  // A connection to the agent at `endpoint`. It succeeds as soon as the host's side is connected:
  // whether the agent answers is seen by Check(). kUnavailable when nobody listens.
  virtual Task<std::unique_ptr<Client>> Connect(const Endpoint& endpoint, Deadline deadline) = 0;
};

}  // namespace hatchery::agent
