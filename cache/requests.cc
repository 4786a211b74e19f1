#include "cache/requests.h"

#include <algorithm>

#include "base/log.h"

namespace hatchery::cache {

namespace {

// How long ago a request's lease ended. Either clock may tell too much: the wall clock when
// somebody set it, the other when the host was rebooted in between.
std::chrono::nanoseconds SinceEnd(const record::RequestRecord& r, const Clock& clock) {
  const auto by_wall = UnixNanos(clock.Now()) - r.ended_unix_ns();
  const auto by_boot = clock.SinceBoot().count() - r.ended_boottime_ns();
  const bool same_boot = r.ended_boottime_ns() > 0 && by_boot >= 0;
  const auto least = same_boot ? std::min<std::int64_t>(by_wall, by_boot) : by_wall;
  return std::chrono::nanoseconds(std::max<std::int64_t>(0, least));
}

}  // namespace

Requests::Requests(KvStore& store, const Vms& vms, const Clock& clock)
    : store_(store), vms_(vms), clock_(clock) {}

void Requests::Restore(const std::vector<record::RequestRecord>& requests) {
  RecordBatch batch(WritePoint::kRequestsRestored);
  for (auto r : requests) {
    const std::string key = RequestKey(r);
    const auto vm = vms_.Find(VmId(r.vm_id()));
    const bool ended_before = r.ended_unix_ns() != 0;
    if (ended_before || !vm || !vm->lease) {
      const auto ago = ended_before ? SinceEnd(r, clock_) : std::chrono::nanoseconds(0);
      // By both clocks as they are now.
      r.set_ended_unix_ns(UnixNanos(clock_.Now()) - ago.count());
      r.set_ended_boottime_ns((clock_.SinceBoot() - ago).count());
      batch.Put(r);
      ended_.push_back(key);
    }
    requests_[key] = {std::move(r), false, 1};
  }
  std::ranges::sort(ended_, {}, [&](const std::string& key) {
    return requests_[key].record.ended_boottime_ns();
  });
  ForgetOld(batch);
  if (auto written = batch.Commit(store_); !written) {
    log::Error({}, "updating request records: " + ToString(written.error()));
  }
}

Requests::Request* Requests::Find(const std::string& key) {
  const auto found = requests_.find(key);
  return found == requests_.end() ? nullptr : &found->second;
}

void Requests::Begin(const std::string& key, const std::string& hash) {
  Request& request = requests_[key];
  request = {};
  request.record.set_request_sha256(hash);
}

void Requests::Choose(const std::string& key, record::RequestRecord record) {
  requests_[key].record = std::move(record);
}

void Requests::Serve(const std::string& key) {
  Request& request = requests_[key];
  request.pending = false;
  request.holders = 1;
}

void Requests::Forget(const std::string& key) {
  requests_.erase(key);
  RecordBatch batch(WritePoint::kRequestForgotten);
  batch.DeleteRequest(key);
  if (auto written = batch.Commit(store_); !written) {
    log::Error({.request = key}, "forgetting a request: " + ToString(written.error()));
  }
}

void Requests::OnVmGone(const VmEntry& vm) {
  const std::string key = RequestKey(vm.tenant(), vm.request);
  Request* const request = Find(key);
  if (!request || request->pending || request->record.vm_id() != vm.record.id()) return;
  request->record.set_ended_unix_ns(UnixNanos(clock_.Now()));
  request->record.set_ended_boottime_ns(clock_.SinceBoot().count());
  RecordBatch batch(WritePoint::kRequestClosed);
  batch.Put(request->record);
  ended_.push_back(key);
  ForgetOld(batch);
  if (auto written = batch.Commit(store_); !written) {
    log::Error({.request = vm.request.str()}, "closing a request: " + ToString(written.error()));
  }
}

void Requests::ForgetOld(RecordBatch& batch) {
  const auto now = clock_.SinceBoot().count();
  while (!ended_.empty()) {
    const std::string key = ended_.front();
    Request* const request = Find(key);
    // It may have been forgotten, and asked anew, since.
    const bool ended = request && request->record.ended_unix_ns() != 0;
    if (ended && now - request->record.ended_boottime_ns() <= kRememberEnded.count()) return;
    if (ended) {
      batch.DeleteRequest(key);
      requests_.erase(key);
    }
    ended_.pop_front();
  }
}

}  // namespace hatchery::cache
