#include "cache/rpc/watch.h"

#include "cache/rpc/convert.h"

namespace hatchery::cache::rpc {

namespace {

// Each is woken by every event, on the loop that serves acquires.
constexpr std::size_t kMaxWatchers = 100;
// Events that are looked at before others have their turn of the loop.
constexpr int kPerTurn = 128;
constexpr std::chrono::milliseconds kRetry = std::chrono::seconds(5);

bool IsFor(const record::EventRecord& event, const Caller& caller,
           const api::WatchRequest& request) {
  return caller.MaySee(event.tenant()) &&
         (request.vm_id().empty() || request.vm_id() == event.vm_id());
}

// Whether there can be anything to tell of the VM that is asked for.
Result<void> CheckVm(cache::Cache& cache, const Caller& caller, const api::WatchRequest& request,
                     std::uint64_t after) {
  if (request.vm_id().empty()) return {};
  RETURN_IF_ERROR(ValidateName("vm_id", request.vm_id()));
  const auto vm = cache.vms().Find(VmId(request.vm_id()));
  if (vm && caller.MaySee(vm->tenant())) return {};
  while (const auto* event = cache.events().After(after)) {
    if (IsFor(*event, caller, request)) return {};
    after = event->revision();
  }
  return NotFound("no VM '" + request.vm_id() + "'");
}

}  // namespace

Task<void> Watch(cache::Cache& cache, Caller caller, api::WatchRequest request, SendEvent send) {
  auto watching = cache.events().BeginWatching();
  if (cache.events().watchers() > kMaxWatchers) {
    co_return ResourceExhausted(std::to_string(kMaxWatchers) + " clients watch already", kRetry);
  }
  std::uint64_t at =
      request.after_revision() == 0 ? cache.events().last() : request.after_revision();
  CO_RETURN_IF_ERROR(cache.events().CheckKnown(at));
  CO_RETURN_IF_ERROR(CheckVm(cache, caller, request, at));
  for (int looked_at = 0;; ++looked_at) {
    if (looked_at % kPerTurn == kPerTurn - 1) {
      CO_RETURN_IF_ERROR(co_await SleepFor(std::chrono::nanoseconds(0)));
    }
    // While we waited, what comes next may have been deleted.
    CO_RETURN_IF_ERROR(cache.events().CheckKnown(at));
    const auto* event = cache.events().After(at);
    if (event == nullptr) {
      CO_RETURN_IF_ERROR(co_await cache.events().WaitForNext(Deadline::max()));
      continue;
    }
    at = event->revision();
    if (IsFor(*event, caller, request)) CO_RETURN_IF_ERROR(co_await send(ToApi(*event)));
  }
}

}  // namespace hatchery::cache::rpc
