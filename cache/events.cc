#include "cache/events.h"

#include <algorithm>
#include <ranges>
#include <utility>

#include "base/json.h"
#include "base/log.h"

namespace hatchery::cache {

namespace {

// A VMM's last words are at most 1 KiB, and an agent's not longer.
constexpr std::size_t kLongestReason = 2048;

// Between tries to write what is owed, doubling from the first to the last.
constexpr std::chrono::nanoseconds kFirstOwedPause = std::chrono::milliseconds(100);
constexpr std::chrono::nanoseconds kLastOwedPause = std::chrono::seconds(10);

std::int64_t UnixNanosOf(WallTime time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

bool IsGone(const record::EventRecord& event) {
  return event.phase() == record::VM_PHASE_UNSPECIFIED;
}

std::string Clean(std::string_view text) {
  return text.empty() ? std::string() : ValidUtf8(std::string(text.substr(0, kLongestReason)));
}

record::EventRecord About(const record::VmRecord& vm,
                          const std::optional<record::LeaseRecord>& lease) {
  record::EventRecord event;
  event.set_vm_id(vm.id());
  event.set_phase(vm.phase());
  event.set_template_name(vm.template_name());
  if (!lease) return event;
  event.set_lease_id(lease->id());
  event.set_sandbox_id(lease->sandbox_id());
  event.set_request_id(lease->request_id());
  event.set_tenant(lease->tenant());
  return event;
}

}  // namespace

Events::Events(Executor executor, KvStore& store, RightOfWay& right_of_way,
               const Settings& settings, const Clock& clock, const std::string& host_boot_id)
    : store_(store),
      right_of_way_(right_of_way),
      settings_(settings),
      clock_(clock),
      host_boot_(std::hash<std::string>()(host_boot_id)),
      changed_(executor),
      tasks_(executor) {}

void Events::Restore(std::vector<record::EventRecord> events) {
  for (auto& event : events) Append(std::move(event));
  if (!log_.empty() && log_.back().host_boot() != host_boot_) last_ += kRebootGap;
  DropOld();
}

record::EventRecord Events::Entered(const record::VmRecord& vm,
                                    const std::optional<record::LeaseRecord>& lease,
                                    std::string_view reason, std::string_view console_tail) {
  auto event = About(vm, lease);
  event.set_reason(Clean(reason));
  event.set_console_tail(Clean(console_tail));
  return event;
}

record::EventRecord Events::Gone(const record::VmRecord& vm,
                                 const std::optional<record::LeaseRecord>& lease,
                                 std::string_view reason) const {
  auto event = About(vm, lease);
  event.set_phase(record::VM_PHASE_UNSPECIFIED);
  event.set_reason(Clean(reason));
  if (lease || vm.lease_id().empty()) return event;
  event.set_lease_id(vm.lease_id());
  for (const auto& earlier : log_ | std::views::reverse) {
    if (earlier.lease_id() != vm.lease_id()) continue;
    event.set_sandbox_id(earlier.sandbox_id());
    event.set_request_id(earlier.request_id());
    event.set_tenant(earlier.tenant());
    break;
  }
  return event;
}

record::EventRecord Events::HealthChanged(const record::VmRecord& vm,
                                          const std::optional<record::LeaseRecord>& lease,
                                          std::string_view problem) {
  auto event = About(vm, lease);
  event.set_health_changed(true);
  event.set_problem(Clean(problem));
  return event;
}

Result<void> Events::Commit(const RecordBatch& batch, record::EventRecord event) {
  event.set_unix_ns(UnixNanosOf(clock_.Now()));
  std::vector<record::EventRecord> told = owed_events_;
  told.push_back(std::move(event));
  return Write(batch, std::move(told));
}

Result<void> Events::Write(const RecordBatch& batch, std::vector<record::EventRecord> told) {
  RecordBatch whole(batch.point());
  if (owed_) whole.Append(*owed_);
  whole.Append(batch);
  std::uint64_t revision = last_;
  for (auto& each : told) {
    each.set_revision(++revision);
    each.set_host_boot(host_boot_);
    whole.Put(each);
  }
  RETURN_IF_ERROR(whole.Commit(store_));
  owed_.reset();
  owed_events_.clear();
  for (auto& each : told) Append(std::move(each));
  changed_.NotifyAll();
  DropOld();
  return {};
}

void Events::Owe(const RecordBatch& batch, std::optional<record::EventRecord> event) {
  // While nothing can be written no VM is made: at most two changes for each that there is.
  if (!owed_) owed_.emplace(batch.point());
  owed_->Append(batch);
  if (event) {
    event->set_unix_ns(UnixNanosOf(clock_.Now()));
    owed_events_.push_back(*std::move(event));
  }
  if (!std::exchange(paying_, true)) tasks_.Spawn("write what is owed", WriteOwed());
}

asio::awaitable<void> Events::WriteOwed() {
  for (auto pause = kFirstOwedPause; co_await SleepFor(pause);
       pause = std::min(pause * 2, kLastOwedPause)) {
    // The next commit takes it along, too.
    if (!owed_ || Write(RecordBatch(owed_->point()), owed_events_)) break;
  }
  paying_ = false;
}

void Events::Append(record::EventRecord event) {
  last_ = std::max(last_, event.revision());
  if (event.health_changed() && !event.problem().empty()) {
    problems_[event.vm_id()] = event.problem();
  } else if (event.health_changed() || IsGone(event)) {
    problems_.erase(event.vm_id());
  }
  log_.push_back(std::move(event));
}

Result<void> Events::CheckKnown(std::uint64_t revision) const {
  if (revision > last_) {
    return OutOfRange("revision " + std::to_string(revision) + " is not of this state directory: " +
                      "its newest is " + std::to_string(last_) + "; list the VMs again");
  }
  const std::uint64_t oldest = log_.empty() ? last_ : log_.front().revision() - 1;
  if (revision >= oldest) return {};
  return OutOfRange("what happened after revision " + std::to_string(revision) +
                    " is not known any more, only what did after " + std::to_string(oldest) +
                    "; list the VMs again");
}

const record::EventRecord* Events::After(std::uint64_t revision) const {
  const auto next = std::ranges::upper_bound(
      log_, revision, {}, [](const record::EventRecord& event) { return event.revision(); });
  return next == log_.end() ? nullptr : &*next;
}

Task<void> Events::WaitForNext(Deadline deadline) {
  if (!closed_) CO_RETURN_IF_ERROR(co_await changed_.Wait(deadline));
  if (closed_) {
    co_return Unavailable("the service is stopping; watch the next one from the last revision");
  }
  co_return Result<void>();
}

std::optional<std::string> Events::EndOf(const VmId& id) const {
  for (const auto& event : log_ | std::views::reverse) {
    if (event.vm_id() != id.str() || event.reason().empty()) continue;
    return event.reason();
  }
  return std::nullopt;
}

std::string Events::ProblemOf(const VmId& id) const {
  const auto found = problems_.find(id.str());
  return found == problems_.end() ? std::string() : found->second;
}

void Events::DropOld() {
  if (dropping_ || log_.size() <= settings_.health.events + kDropBatch) return;
  dropping_ = true;
  tasks_.Spawn("drop old events", Drop());
}

asio::awaitable<void> Events::Drop() {
  while (log_.size() > settings_.health.events) {
    co_await right_of_way_.WaitUntilFree(settings_.put_off.quiet,
                                         hatchery::After(settings_.put_off.refill));
    if (co_await IsCancelled()) break;
    const auto count = std::min<std::size_t>(kDropBatch, log_.size() - settings_.health.events);
    RecordBatch batch(WritePoint::kEventsDropped);
    for (std::size_t i = 0; i < count; ++i) batch.DeleteEvent(log_[i].revision());
    if (auto dropped = batch.Commit(store_); !dropped) {
      log::Warning({}, "deleting old events: " + ToString(dropped.error()));
      break;  // tried again at the next event
    }
    log_.erase(log_.begin(), log_.begin() + static_cast<std::ptrdiff_t>(count));
  }
  dropping_ = false;
}

void Events::Close() {
  closed_ = true;
  changed_.NotifyAll();
}

asio::awaitable<void> Events::Stop() {
  Close();
  tasks_.Cancel();
  co_await tasks_.Join();
}

}  // namespace hatchery::cache
