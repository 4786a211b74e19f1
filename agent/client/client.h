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
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/task.h"

namespace hatchery::agent {

// What Hatchery's own agent says its protocol is. Another one, Kata's say, is foreign: it has
// Kata's calls alone, with which it is personalised as far as they go.
inline constexpr std::string_view kProtocol = "hatchery.agent.v1";

struct Versions {
  std::string protocol;  // kProtocol, or what a foreign agent says
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
  // What the guest had online before. A foreign agent cannot be asked how much that is, and most
  // must be told how many CPUs are new: what `vcpus` and `memory` exceed these by. Our own agent
  // does not need to know.
  std::uint32_t had_vcpus = 0;
  Bytes had_memory;
};

// What the agent confirms, part by part. Personalize() succeeds only if every part that was asked
// for was done, but for those that a foreign agent has no call for; a part that failed is an error
// that names it.
struct PersonalizeReport {
  bool reseeded = false;
  bool clock_set = false;
  bool hostname_set = false;
  bool machine_id_set = false;
  std::string boot_id;  // as the guest has it now; empty: not known
  std::uint32_t online_vcpus = 0;
  Bytes online_memory;
  bool foreign = false;  // Kata's agent: hostname, machine-id and boot_id are as they were
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

// Exec(), Details(), PrepareSave() and PowerOff() are Hatchery's own: a foreign agent's answer to
// them is kUnimplemented. The others work with any agent.
class Client {
 public:
  // Closes the connection; calls in flight end with kCancelled.
  virtual ~Client() = default;

  // Succeeds if the agent serves.
  virtual Task<void> Check(Deadline deadline) = 0;
  virtual Task<Versions> Version(Deadline deadline) = 0;

  // Of a foreign agent, what it says to be done is believed: it reports no numbers.
  virtual Task<PersonalizeReport> Personalize(const Identity& identity, Deadline deadline) = 0;
  // Returns when the guest has at least so many CPUs and so much memory online, or shortly before
  // `deadline` with what it has then: `problem` tells the two apart. `had_vcpus`, which were online
  // before, is for foreign agents (see Identity); one that cannot do it answers with an error.
  virtual Task<OnlineReport> AwaitOnline(std::uint32_t vcpus, Bytes memory, std::uint32_t had_vcpus,
                                         Deadline deadline) = 0;
  // kNotFound: no such program; kInvalidArgument: empty argv, or request over 3 MiB. A command
  // whose caller stops waiting, cancelled or at the deadline, is killed (by agents that know Kill).
  virtual Task<ExecResult> Exec(const ExecRequest& request, Deadline deadline) = 0;
  virtual Task<GuestDetails> Details(Deadline deadline) = 0;

  // Makes the guest ready to be saved as a template: sync, drop caches, compact memory.
  virtual Task<void> PrepareSave(Deadline deadline) = 0;
  // Asks the guest to power off; the reply comes before it does.
  virtual Task<void> PowerOff(Deadline deadline) = 0;

  // Kata's own calls (grpc.AgentService), which both kinds of agents answer. `vcpus` are new ones,
  // to be brought online beside those that are, or, for Kata's agent from release 3.2 on, those
  // that shall be; unless `cpu_only`, all memory is brought online, too.
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
