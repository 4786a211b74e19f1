#include "cache/quotas.h"

namespace hatchery::cache {

namespace {

// A lease may end at any time, or not for days; a caller that asks once per second costs nothing.
constexpr auto kRetry = std::chrono::seconds(1);

std::string Who(const std::string& tenant) {
  return tenant.empty() ? "callers without a tenant" : "tenant '" + tenant + "'";
}

// `asked` more of `what` when `held` are, of at most `limit` (0: any number).
template <class Amount, class Show>
Result<void> Check(const std::string& tenant, const char* what, Amount held, Amount asked,
                   Amount limit, Show show) {
  if (limit == Amount() || held + asked <= limit) return {};
  const std::string most = ", and may hold " + show(limit) + " at most ([limits] tenant_" + what;
  if (asked > limit) {
    return ResourceExhausted(Who(tenant) + " asked for " + show(asked) + " " + what + most +
                             "): ask for less");
  }
  return ResourceExhausted(Who(tenant) + " held " + show(held) + " " + what + ", asked for " +
                               show(asked) + most + "): release some first",
                           kRetry);
}

}  // namespace

Result<void> Quotas::Take(const std::string& tenant, std::uint32_t vcpus, Bytes memory) {
  const auto found = held_.find(tenant);
  const Held held = found == held_.end() ? Held{} : found->second;
  const auto count = [](std::uint64_t n) { return std::to_string(n); };
  RETURN_IF_ERROR(
      Check<std::uint64_t>(tenant, "leases", held.leases, 1, limits_.tenant_leases, count));
  RETURN_IF_ERROR(
      Check<std::uint64_t>(tenant, "vcpus", held.vcpus, vcpus, limits_.tenant_vcpus, count));
  RETURN_IF_ERROR(Check<Bytes>(tenant, "memory", held.memory, memory, limits_.tenant_memory,
                               [](Bytes bytes) { return ToString(bytes); }));
  Restore(tenant, vcpus, memory);
  return {};
}

void Quotas::Restore(const std::string& tenant, std::uint32_t vcpus, Bytes memory) {
  Held& held = held_[tenant];
  ++held.leases;
  held.vcpus += vcpus;
  held.memory += memory;
}

void Quotas::GiveBack(const std::string& tenant, std::uint32_t vcpus, Bytes memory) {
  const auto found = held_.find(tenant);
  if (found == held_.end()) return;
  Held& held = found->second;
  held.vcpus -= vcpus;
  held.memory = held.memory - memory;
  if (--held.leases == 0) held_.erase(found);
}

}  // namespace hatchery::cache
