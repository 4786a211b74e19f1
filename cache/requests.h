// Request ids: what was asked before, so that a retry gets what the first call got, and only that.
//
//   unknown --Begin--> pending --Serve--> served --OnVmGone--> ended --an hour--> unknown
//                      pending --Forget-> unknown    (the acquire failed: a retry is served anew)
//                                         served --Forget--> unknown     (its answer got lost)
//
// Ids are a tenant's own. They are on record from the moment that a VM is leased for them, and are
// remembered for an hour after the lease has ended, by the clock that nobody sets; a restart makes
// it longer rather than shorter. Loop thread only.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cache/records.h"
#include "cache/vms.h"

namespace hatchery::cache {

class Requests {
 public:
  // Late retries come within this time of the lease's end.
  static constexpr std::chrono::nanoseconds kRememberEnded = std::chrono::hours(1);

  struct Request {
    record::RequestRecord record;
    bool pending = true;  // its first call still runs
    // How many calls were answered with its VM, less those whose answer got lost.
    std::size_t holders = 0;
  };

  Requests(KvStore& store, const Vms& vms, const Clock& clock);

  // Requests that an earlier daemon served; their VMs must be in Vms already if they live.
  void Restore(const std::vector<record::RequestRecord>& requests);

  // By RequestKey(); null if it is unknown. Valid until the next call that is not Find().
  Request* Find(const std::string& key);

  // A new request, with the hash of what it asks for.
  void Begin(const std::string& key, const std::string& hash);
  // The VM that it gets, as the record says that was written with the lease.
  void Choose(const std::string& key, record::RequestRecord record);
  // Its first call is answered.
  void Serve(const std::string& key);
  // It was not served after all: its id is free again.
  void Forget(const std::string& key);

  // Its lease has ended with its VM, whatever the cause.
  void OnVmGone(const VmEntry& vm);

 private:
  void ForgetOld(RecordBatch& batch);

  KvStore& store_;
  const Vms& vms_;
  const Clock& clock_;
  std::map<std::string, Request> requests_;
  std::deque<std::string> ended_;  // keys, oldest first
};

}  // namespace hatchery::cache
