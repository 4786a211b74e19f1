#include "cache/lease_ends.h"

#include "base/duration.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

using std::chrono::nanoseconds;

// Waiting is done by a clock that stands still while the host sleeps; leases go on.
constexpr auto kLongestWait = std::chrono::seconds(5);
// After a holder could not be watched.
constexpr auto kLookAgain = std::chrono::seconds(1);

std::string ReasonOf(const record::LeaseRecord& lease) {
  if (lease.term() == record::LEASE_TERM_CALLER) {
    return "process " + std::to_string(lease.holder_pid()) + ", which held its lease, has ended";
  }
  return "its lease was not renewed within " + ToWholeSeconds(nanoseconds(lease.ttl_ns()));
}

LeaseEnds::HolderKey KeyOf(const record::LeaseRecord& lease) {
  return {static_cast<pid_t>(lease.holder_pid()), lease.holder_start_ticks()};
}

}  // namespace

LeaseEnds::LeaseEnds(Executor executor, KvStore& store, Vms& vms, const Settings& settings,
                     const Clock& clock)
    : executor_(executor),
      store_(store),
      vms_(vms),
      settings_(settings),
      clock_(clock),
      sooner_(executor),
      tasks_(executor) {}

void LeaseEnds::Follow(const VmPtr& vm) {
  Forget(vm->id());
  if (!vm->lease) return;
  const auto& lease = *vm->lease;
  if (lease.lapsed_boottime_ns() > 0) {
    Due(vm->id(), nanoseconds(lease.lapsed_boottime_ns()) + settings_.lease_grace);
    return;
  }
  switch (lease.term()) {
    case record::LEASE_TERM_TTL: return Due(vm->id(), nanoseconds(lease.expires_boottime_ns()));
    case record::LEASE_TERM_CALLER: return FollowHolder(vm);
    case record::LEASE_TERM_HELD:
    case record::LEASE_TERM_UNSPECIFIED:
    case record::LeaseTerm_INT_MIN_SENTINEL_DO_NOT_USE_:
    case record::LeaseTerm_INT_MAX_SENTINEL_DO_NOT_USE_: return;
  }
}

void LeaseEnds::FollowHolder(const VmPtr& vm) {
  const auto key = KeyOf(*vm->lease);
  holder_of_[vm->id()] = key;
  const auto known = holders_.find(key);
  if (known != holders_.end()) {
    known->second.vms.insert(vm->id());
    return;
  }
  const ProcessIdentity identity{key.first, key.second};
  auto process = Process::Adopt(executor_, identity);
  if (!process && process.error().code == Code::kNotFound) return Lapse(vm);
  if (!process) {
    // That we cannot look (no descriptor is left, say) tells nothing of the holder.
    log::Warning({.vm = vm->record.id()}, "watching its holder: " + ToString(process.error()));
    return Due(vm->id(), clock_.SinceBoot() + kLookAgain);
  }
  holders_[key] = {*std::move(process), {vm->id()}};
  tasks_.Spawn("wait for the holder of leases, pid " + std::to_string(identity.pid),
               WaitForEnd(identity));
}

asio::awaitable<void> LeaseEnds::WaitForEnd(ProcessIdentity identity) {
  const HolderKey key(identity.pid, identity.start_ticks);
  const auto ended = co_await holders_.at(key).process->Wait(Deadline::max());
  if (!ended && ended.error().code == Code::kCancelled) co_return;
  const auto node = holders_.extract(key);
  for (const VmId& id : node.mapped().vms) {
    const auto vm = vms_.Find(id);
    if (!vm || !vm->lease) continue;
    if (ended) {
      Lapse(vm);
    } else {
      Due(id, clock_.SinceBoot() + kLookAgain);
    }
  }
}

void LeaseEnds::Forget(const VmId& id) {
  if (const auto due = due_of_.find(id); due != due_of_.end()) {
    due_.erase({due->second, id});
    due_of_.erase(due);
  }
  if (const auto held = holder_of_.find(id); held != holder_of_.end()) {
    if (const auto holder = holders_.find(held->second); holder != holders_.end()) {
      holder->second.vms.erase(id);
    }
    holder_of_.erase(held);
  }
}

void LeaseEnds::Due(const VmId& id, nanoseconds at) {
  Forget(id);
  due_.emplace(at, id);
  due_of_[id] = at;
  if (!checking_) {
    checking_ = true;
    tasks_.Spawn("end leases", KeepChecking());
  } else if (due_.begin()->second == id) {
    sooner_.NotifyAll();
  }
}

void LeaseEnds::Lapse(const VmPtr& vm) {
  auto& lease = *vm->lease;
  lease.set_lapsed_boottime_ns(clock_.SinceBoot().count());
  RecordBatch batch(WritePoint::kLeaseLapsed);
  batch.Put(lease);
  if (auto written = batch.Commit(store_); !written) {
    // A restart would begin the grace period anew: longer, not shorter.
    log::Error({.vm = vm->record.id()}, "recording a lapsed lease: " + ToString(written.error()));
  }
  log::Info({.vm = vm->record.id(), .request = vm->request.str()},
            ReasonOf(lease) + "; the VM ends in " + ToWholeSeconds(settings_.lease_grace));
  Due(vm->id(), nanoseconds(lease.lapsed_boottime_ns()) + settings_.lease_grace);
}

void LeaseEnds::Check() {
  while (!due_.empty() && due_.begin()->first <= clock_.SinceBoot()) {
    const VmId id = due_.begin()->second;
    Forget(id);
    const auto vm = vms_.Find(id);
    if (!vm || !vm->lease) continue;
    if (vm->lease->lapsed_boottime_ns() == 0 && vm->lease->term() == record::LEASE_TERM_CALLER) {
      FollowHolder(vm);  // who could not be looked at the last time
    } else if (vm->lease->lapsed_boottime_ns() == 0) {
      Lapse(vm);
    } else {
      vms_.End(vm, record::VM_PHASE_RELEASED, ReasonOf(*vm->lease));
    }
  }
}

asio::awaitable<void> LeaseEnds::KeepChecking() {
  while (!due_.empty() && !co_await IsCancelled()) {
    Check();
    if (due_.empty()) break;
    const nanoseconds left = due_.begin()->first - clock_.SinceBoot();
    (void)co_await sooner_.Wait(After(std::min<nanoseconds>(left, kLongestWait)));
  }
  checking_ = false;
}

asio::awaitable<void> LeaseEnds::Stop() {
  tasks_.Cancel();
  co_await tasks_.Join();
}

}  // namespace hatchery::cache
