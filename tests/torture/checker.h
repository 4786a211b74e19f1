// Reads what clients wrote down, what the test did to the world and what the kernel's tables
// showed, and says what cannot be if nothing was lost and nothing handed out twice. A pure function
// of the journals' lines (journal.h); it knows nothing of the daemon's code or words.
//
//   handed out once     no VM, process, machine id or boot id is granted under two sandboxes; a
//                       repeated request gives the VM that it gave before; no guest carries another
//                       lease's mark
//   alive or reported   a VM that is surely held is in the process table, answers as who it was
//                       granted as, and is never said to be gone; unless the test itself hurt it
//   gone means gone     what was released, or ran out, is neither in the process table nor answers,
//                       some time after
//   the store agrees    when the daemon has died: surely held VMs are on record as leased, and
//   every
//                       VMM is on record (but for those that a recovery was about to end)
//   nothing left over   at the end
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace hatchery::torture {

class Checker {
 public:
  struct Limits {
    // The daemon's [lease] grace.
    std::chrono::nanoseconds grace = std::chrono::seconds(10);
    // How long the service, once it is up, may take to end what has to end.
    std::chrono::nanoseconds to_end = std::chrono::seconds(15);
  };

  explicit Checker(Limits limits) : limits_(limits) {}

  // In the order of time.
  void Read(const Json& line);
  // After the last line: what clients hold still cannot be given back any more.
  void Finish();

  const std::vector<std::string>& violations() const { return violations_; }
  // How often things were seen, by name: "acquire ok", "kill daemon" …
  const std::map<std::string, std::uint64_t>& counts() const { return counts_; }
  // Every VM that was ever granted.
  std::set<std::string> vms() const;

 private:
  using Time = std::int64_t;  // ns since boot
  struct Lease {
    std::string sandbox;
    std::string client;
    std::string request;
    std::string term;
    Time ttl = 0;
    std::map<std::string, Time> calls;  // the last of each kind, without a reply yet
    bool granted = false;
    Time granted_at = 0;
    std::string vm, machine, boot;
    std::pair<std::int64_t, std::uint64_t> process;
    Time sure_until = 0;      // its client may count on it
    Time possible_until = 0;  // it may live
    Time release_asked = 0;
    Time ended = 0;  // released or said to be gone
  };

  void OnCall(const Json& line, Lease& lease, const std::string& call);
  void OnReply(const Json& line, Lease& lease, const std::string& call);
  void OnGranted(const Json& line, Lease& lease, Time asked);
  void OnAnswer(const Json& line, const Lease& lease, Time asked);
  void OnGone(const Json& line, Lease& lease);
  void OnDid(const Json& line, const std::string& did);
  void OnLooked(const Json& line);
  void OnStoreRead(const Json& line);
  // Claims that `what` is `lease`'s alone.
  void Own(const std::string& kind, const std::string& what, const Lease& lease, Time at);
  bool IsSure(const Lease& lease, Time at) const;
  bool IsHurt(const std::string& vm) const { return hurt_.contains(vm); }
  void Violation(Time at, const std::string& text);

  const Limits limits_;
  std::map<std::string, Lease> leases_;                                // by sandbox
  std::map<std::pair<std::string, std::string>, std::string> owners_;  // sandbox by (kind, what)
  std::set<std::string> hurt_;                                         // VMs
  bool recovering_ = false;  // the daemon has been started and is not ready
  Time ready_since_ = 0;     // 0: the daemon is away
  std::set<std::string> told_;
  std::vector<std::string> violations_;
  std::map<std::string, std::uint64_t> counts_;
};

}  // namespace hatchery::torture
