// What happened to VMs, in order: every change of a phase, and of what is wrong with a VM that
// lives. Each event has a revision, which grows by one with each, also across daemons.
//
// An event is written in the same batch as the change that it tells of, so that one exists exactly
// if the other does. The newest are kept, on record and in memory; who watches reads from here at
// its own pace, by revision, and nothing is queued for it. Loop thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/notifier.h"
#include "cache/kv_store.h"
#include "cache/records.h"
#include "cache/right_of_way.h"
#include "cache/settings.h"

namespace hatchery::cache {

class Events {
 public:
  // The revision before the first event. Not 0, which asks Watch for what is still to come.
  static constexpr std::uint64_t kBeginning = 1;
  // A host that went down may have lost the newest records, and somebody may have seen their
  // revisions: after a reboot that many are left out. At 1,000 events per second, a quarter of an
  // hour; the kernel writes everything to disk within half a minute.
  static constexpr std::uint64_t kRebootGap = 1'000'000;
  // How many old ones are deleted at once: a write of well under 0.1 ms, so that an acquire which
  // comes meanwhile does not notice.
  static constexpr std::size_t kDropBatch = 64;

  Events(Executor executor, KvStore& store, RightOfWay& right_of_way, const Settings& settings,
         const Clock& clock, const std::string& host_boot_id);

  // The log of earlier daemons, oldest first. Before anything is committed.
  void Restore(std::vector<record::EventRecord> events);

  // That `vm` entered the phase which its record says; `lease`: that it is or was under. Why, in a
  // sentence; and for one that failed, the end of its console.
  static record::EventRecord Entered(const record::VmRecord& vm,
                                     const std::optional<record::LeaseRecord>& lease,
                                     std::string_view reason = "",
                                     std::string_view console_tail = "");
  // That nothing of `vm` is left. Who had it is taken from the log where `lease` is absent.
  record::EventRecord Gone(const record::VmRecord& vm,
                           const std::optional<record::LeaseRecord>& lease,
                           std::string_view reason = "") const;
  // That it lives on, with this problem, or with none any more.
  static record::EventRecord HealthChanged(const record::VmRecord& vm,
                                           const std::optional<record::LeaseRecord>& lease,
                                           std::string_view problem);

  // Commits `batch` with the event in it, and wakes who watches. On failure neither is on record
  // and the revision is the next event's.
  Result<void> Commit(const RecordBatch& batch, record::EventRecord event);
  // For a change that took place although it could not be written down: it goes before the next
  // commit, in the same write, which is tried every now and then until it succeeds.
  void Owe(const RecordBatch& batch, std::optional<record::EventRecord> event = {});

  // Of the newest event.
  std::uint64_t last() const { return last_; }
  // kOutOfRange unless every event after `revision` is known.
  Result<void> CheckKnown(std::uint64_t revision) const;
  // The first event after `revision`; null if there is none yet. Valid until the caller waits.
  const record::EventRecord* After(std::uint64_t revision) const;
  // Returns at the next event, or at once with kUnavailable after Close().
  Task<void> WaitForNext(Deadline deadline);

  // Counts who watches, for as long as it lives.
  std::shared_ptr<void> BeginWatching() { return watchers_; }
  std::size_t watchers() const { return static_cast<std::size_t>(watchers_.use_count()) - 1; }

  // Why a VM ended, if that is known still.
  std::optional<std::string> EndOf(const VmId& id) const;
  // What is wrong with a VM, as last told; empty: nothing.
  std::string ProblemOf(const VmId& id) const;

  // Who waits is sent away: the service stops.
  void Close();
  // Ends the deletion of old events, with which the next daemon goes on, and the tries to write
  // what is owed.
  asio::awaitable<void> Stop();

  // How many are kept now.
  std::size_t size() const { return log_.size(); }

 private:
  // What is owed, then `batch`, and `told`, which begins with the events that are owed.
  Result<void> Write(const RecordBatch& batch, std::vector<record::EventRecord> told);
  asio::awaitable<void> WriteOwed();
  void Append(record::EventRecord event);
  void DropOld();
  asio::awaitable<void> Drop();

  KvStore& store_;
  RightOfWay& right_of_way_;
  const Settings& settings_;
  const Clock& clock_;
  const std::uint64_t host_boot_;
  std::uint64_t last_ = kBeginning;
  std::deque<record::EventRecord> log_;                      // oldest first
  std::optional<RecordBatch> owed_;                          // changes that were refused
  std::vector<record::EventRecord> owed_events_;             // that tell of them
  std::map<std::string, std::string> problems_;              // by VM
  std::shared_ptr<int> watchers_ = std::make_shared<int>();  // one reference for each
  bool paying_ = false;                                      // WriteOwed() runs
  bool dropping_ = false;
  bool closed_ = false;
  Notifier changed_;
  TaskScope tasks_;
};

}  // namespace hatchery::cache
