#include "cmd/hatchery/json_output.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

namespace hatchery::cli {

namespace {

using google::protobuf::util::TimeUtil;

Json Time(bool present, const google::protobuf::Timestamp& time) {
  if (!present) return nullptr;
  return TimeUtil::ToString(time);
}

std::int64_t Microseconds(const google::protobuf::Duration& duration) {
  return TimeUtil::DurationToMicroseconds(duration);
}

std::string Lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

template <class Map>
Json SortedMap(const Map& map) {
  const std::map<std::string, std::string> sorted(map.begin(), map.end());
  Json json = Json::object();
  for (const auto& [key, value] : sorted) json[key] = value;
  return json;
}

constexpr std::string_view kStatePrefix = "VM_STATE_";

}  // namespace

std::string Name(v1::VmState state) {
  std::string name = v1::VmState_Name(state);
  if (!name.starts_with(kStatePrefix)) return "unspecified";
  return Lower(name.substr(kStatePrefix.size()));
}

Result<v1::VmState> ParseVmState(std::string_view text) {
  std::string known;
  for (int value = v1::VmState_MIN; value <= v1::VmState_MAX; ++value) {
    if (value == v1::VM_STATE_UNSPECIFIED || !v1::VmState_IsValid(value)) continue;
    const auto state = static_cast<v1::VmState>(value);
    if (Name(state) == text) return state;
    known += (known.empty() ? "" : ", ") + Name(state);
  }
  return InvalidArgument("--state", "'" + std::string(text) + "' is none of " + known);
}

std::string Name(v1::AcquireResponse::Source source) {
  const std::string name = v1::AcquireResponse::Source_Name(source);
  return name.empty() || source == v1::AcquireResponse::SOURCE_UNSPECIFIED ? "unspecified"
                                                                           : Lower(name);
}

std::string Name(v1::LeaseTerm term) {
  constexpr std::string_view kPrefix = "LEASE_TERM_";
  const std::string name = v1::LeaseTerm_Name(term);
  if (term == v1::LEASE_TERM_UNSPECIFIED || !name.starts_with(kPrefix)) return "";
  return Lower(name.substr(kPrefix.size()));
}

Json ToJson(const v1::Vm& vm) {
  return Json{{"vm_id", vm.vm_id()},
              {"state", Name(vm.state())},
              {"template_name", vm.template_name()},
              {"template_digest", vm.template_digest()},
              {"vcpus", vm.vcpus()},
              {"memory_bytes", vm.memory_bytes()},
              {"pending_vcpus", vm.pending_vcpus()},
              {"pending_memory_bytes", vm.pending_memory_bytes()},
              {"pending_problem", vm.pending_problem()},
              {"problem", vm.problem()},
              {"pid", vm.pid()},
              {"agent_endpoint", vm.agent_endpoint()},
              {"vsock_cid", vm.vsock_cid()},
              {"control_socket", vm.control_socket()},
              {"console_log", vm.console_log()},
              {"created", Time(vm.has_created(), vm.created())},
              {"lease_id", vm.lease_id()},
              {"sandbox_id", vm.sandbox_id()},
              {"request_id", vm.request_id()},
              {"acquired", Time(vm.has_acquired(), vm.acquired())},
              {"lease_term", Name(vm.lease_term())},
              {"lease_ttl_us", Microseconds(vm.lease_ttl())},
              {"lease_expires", Time(vm.has_lease_expires(), vm.lease_expires())},
              {"ends", Time(vm.has_ends(), vm.ends())},
              {"holder_pid", vm.holder_pid()},
              {"tenant", vm.tenant()},
              {"handed_over", vm.handed_over()},
              {"hostname", vm.hostname()},
              {"machine_id", vm.machine_id()},
              {"boot_id", vm.boot_id()},
              {"not_renewed",
               Json(std::vector<std::string>(vm.not_renewed().begin(), vm.not_renewed().end()))}};
}

Json ToJson(const v1::VmStats& stats) {
  return Json{{"assigned_bytes", stats.assigned_bytes()},
              {"resident_bytes", stats.resident_bytes()},
              {"private_bytes", stats.private_bytes()},
              {"proportional_bytes", stats.proportional_bytes()},
              {"cpu_time_us", Microseconds(stats.cpu_time())}};
}

Json ToJson(const v1::Template& tmpl) {
  return Json{{"name", tmpl.name()},
              {"digest", tmpl.digest()},
              {"created", Time(tmpl.has_created(), tmpl.created())},
              {"vcpus", tmpl.vcpus()},
              {"max_vcpus", tmpl.max_vcpus()},
              {"memory_bytes", tmpl.memory_bytes()},
              {"max_memory_bytes", tmpl.max_memory_bytes()},
              {"accelerator", tmpl.accelerator()},
              {"inputs", SortedMap(tmpl.inputs())},
              {"fingerprint", SortedMap(tmpl.fingerprint())},
              {"disk_bytes", tmpl.disk_bytes()},
              {"clones", tmpl.clones()},
              {"agent_version", tmpl.agent_version()},
              {"problem", tmpl.problem()},
              {"quarantined_until", Time(tmpl.has_quarantined_until(), tmpl.quarantined_until())}};
}

Json ToJson(const v1::Pool& pool) {
  return Json{{"template_name", pool.template_name()},
              {"vcpus", pool.vcpus()},
              {"memory_bytes", pool.memory_bytes()},
              {"target", pool.target()},
              {"learned", pool.learned()},
              {"warm", pool.warm()},
              {"filling", pool.filling()},
              {"leased", pool.leased()},
              {"hits", pool.hits()},
              {"misses", pool.misses()},
              {"last_error", pool.last_error()}};
}

Json ToJson(const v1::AcquireResponse& response) {
  Json json = ToJson(response.vm());
  json["source"] = Name(response.source());
  json["total_us"] = Microseconds(response.total());
  json["resize_us"] = Microseconds(response.resize());
  json["personalize_us"] = Microseconds(response.personalize());
  return json;
}

Json ToJson(const v1::GetVmResponse& response) {
  Json json = ToJson(response.vm());
  json["stats"] = ToJson(response.stats());
  json["console_tail"] = response.console_tail();
  return json;
}

Json ToJson(const v1::MemoryAccount& memory) {
  return Json{{"total_bytes", memory.total_bytes()},
              {"available_bytes", memory.available_bytes()},
              {"reserve_bytes", memory.reserve_bytes()},
              {"private_bytes", memory.private_bytes()},
              {"growth_bytes", memory.growth_bytes()}};
}

Json ToJson(const v1::Tenant& tenant) {
  return Json{{"name", tenant.name()},
              {"leases", tenant.leases()},
              {"vcpus", tenant.vcpus()},
              {"memory_bytes", tenant.memory_bytes()},
              {"max_leases", tenant.max_leases()},
              {"max_vcpus", tenant.max_vcpus()},
              {"max_memory_bytes", tenant.max_memory_bytes()}};
}

Json ToJson(const v1::WatchResponse& event) {
  const bool gone = event.state() == v1::VM_STATE_UNSPECIFIED;
  return Json{{"revision", event.revision()},
              {"time", Time(event.has_time(), event.time())},
              {"vm_id", event.vm_id()},
              {"state", gone ? Json() : Json(Name(event.state()))},
              {"template_name", event.template_name()},
              {"lease_id", event.lease_id()},
              {"sandbox_id", event.sandbox_id()},
              {"request_id", event.request_id()},
              {"reason", event.reason()},
              {"console_tail", event.console_tail()},
              {"health_changed", event.health_changed()},
              {"problem", event.problem()}};
}

Json ToJson(const v1::StatusResponse& response) {
  Json json{{"version", response.version()},
            {"state_dir", response.state_dir()},
            {"driver", response.driver()},
            {"isolation", response.isolation()},
            {"pid", response.pid()},
            {"vms", response.vms()},
            {"leased", response.leased()},
            {"waiting_acquires", response.waiting_acquires()},
            {"uptime_us", Microseconds(response.uptime())}};
  json.update(ToJsonList("templates", response.templates()));
  json.update(ToJsonList("pools", response.pools()));
  json["memory"] = response.has_memory() ? ToJson(response.memory()) : Json(nullptr);
  json.update(ToJsonList("tenants", response.tenants()));
  return json;
}

Json ToJson(const v1::InitResult& result) {
  return Json{{"template", ToJson(result.template_info())},
              {"pool", ToJson(result.pool())},
              {"template_reused", result.template_reused()},
              {"boot_time_us", Microseconds(result.boot_time())},
              {"save_time_us", Microseconds(result.save_time())},
              {"fill_time_us", Microseconds(result.fill_time())}};
}

Json ToJson(const v1::CreateTemplateResult& result) {
  Json json = ToJson(result.template_info());
  json["reused"] = result.reused();
  json["boot_time_us"] = Microseconds(result.boot_time());
  json["save_time_us"] = Microseconds(result.save_time());
  return json;
}

}  // namespace hatchery::cli
