// Agents without guests: an in-memory Connector for tests, and for running the daemon with the fake
// hypervisor. Each endpoint has a guest that remembers what it was told. Faults are set from
// outside, per method. Loop thread only.
//
// Like the real client, a call always suspends at least once, honours its deadline, and ends with
// kCancelled when its client is destroyed.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/client/client.h"

namespace hatchery::agent {

// In the order of Client's methods.
enum class Method {
  kConnect,
  kCheck,
  kVersion,
  kPersonalize,
  kAwaitOnline,
  kExec,
  kDetails,
  kPrepareSave,
  kPowerOff,
  kOnlineCpuMem,
  kReseedRandomDev,
  kSetGuestDateTime,
};

// What a guest knows about itself. Change it to set the scene, read it to see what was done.
struct FakeGuest {
  bool alive = true;
  std::vector<std::string> seeds;  // every one it got, in order
  WallTime time;
  std::string hostname = "template";
  std::string machine_id;
  std::string boot_id = "00000000-0000-4000-8000-000000000000";
  std::uint32_t online_vcpus = 1;
  Bytes online_memory = Bytes::MiB(256);
  Bytes memory_block = Bytes::MiB(128);
  // CPUs and memory that can be brought online, which Personalize and AwaitOnline do at once as far
  // as they are asked to (SetDelay and HangNext make a slow guest). Asking Personalize for more
  // fails; AwaitOnline says at once what a guest would say at the end of its time.
  std::uint32_t present_vcpus = 64;
  Bytes present_memory = Bytes::GiB(64);
  bool prepared_for_save = false;
  // Commands that run; of those that there are, only "sleep" lasts. It ends when its caller stops
  // waiting, but in a guest whose agent is too old to know Kill.
  std::size_t running_commands = 0;
  bool knows_kill = true;
};

struct FakeCall {
  Endpoint endpoint;
  Method method = Method::kConnect;
  bool operator==(const FakeCall&) const = default;
};

class FakeAgents final : public Connector {
 public:
  explicit FakeAgents(Executor executor);
  ~FakeAgents() override;

  // Succeeds unless the guest is dead or a fault says otherwise.
  Task<std::unique_ptr<Client>> Connect(const Endpoint& endpoint, Deadline deadline) override;

  // Every later call of `method` takes this long; 0 undoes it.
  void SetDelay(Method method, std::chrono::nanoseconds delay);

  // Faults of the next `times` calls of `method`, on whatever endpoint; several queue up. PassNext:
  // none, for the calls before the one that is meant.
  void PassNext(Method method, std::size_t times);
  void FailNext(Method method, Error error, std::size_t times = 1);
  // No answer until the deadline, a cancellation or the guest's death.
  void HangNext(Method method, std::size_t times = 1);
  // The answer is garbage: the connection is lost.
  void GarbleNext(Method method, std::size_t times = 1);
  // From now on every guest carries a foreign agent (see Client), or again ours. What it is asked
  // arrives as Kata's calls, and calls that it does not know as themselves; unlike with the real
  // client, nobody has to try ours first.
  void SetForeign(bool foreign);

  // Personalize only: everything is answered well, but the reseed is not confirmed.
  void SkipReseedNext(std::size_t times = 1);
  void ClearFaults();

  // The guest of an endpoint, made when first named. The reference stays valid.
  FakeGuest& guest(const Endpoint& endpoint);

  // The guest dies: its connections are lost, and new ones are refused until revived.
  void KillGuest(const Endpoint& endpoint);
  // A new guest answers at the endpoint.
  void ReviveGuest(const Endpoint& endpoint);

  // Every call that arrived at a guest, in order.
  const std::vector<FakeCall>& calls() const;
  std::size_t CountCalls(Method method) const;

 private:
  friend class FakeClient;
  struct World;
  std::shared_ptr<World> world_;
};

}  // namespace hatchery::agent
