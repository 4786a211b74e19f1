#include "cmd/hatchery/text_output.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/bytes.h"
#include "base/duration.h"
#include "cmd/hatchery/json_output.h"
#include "cmd/hatchery/table.h"

namespace hatchery::cli {

namespace {

using google::protobuf::util::TimeUtil;
using std::chrono::nanoseconds;
using Fields = std::vector<std::pair<std::string, std::string>>;

std::string Size(std::uint64_t bytes) { return ToString(Bytes(bytes)); }

std::string Human(const google::protobuf::Duration& duration) {
  return ToHuman(nanoseconds(TimeUtil::DurationToNanoseconds(duration)));
}

std::string Age(bool present, const google::protobuf::Timestamp& since, WallTime now) {
  if (!present) return "";
  const nanoseconds age =
      now.time_since_epoch() - nanoseconds(TimeUtil::TimestampToNanoseconds(since));
  // Clocks may disagree by a little; whole seconds are all a listing needs.
  const auto seconds =
      std::max(std::chrono::seconds(0), std::chrono::duration_cast<std::chrono::seconds>(age));
  return seconds < std::chrono::minutes(1) ? std::to_string(seconds.count()) + "s"
                                           : ToHuman(seconds);
}

std::string ShortDigest(const std::string& digest) { return digest.substr(0, 12); }

template <class T>
std::string Range(const T& from, const T& to) {
  return from == to ? from : from + " - " + to;
}

// "1", or "1+2" while two more are pending.
std::string Vcpus(const v1::Vm& vm) {
  return std::to_string(vm.vcpus()) +
         (vm.pending_vcpus() > 0 ? "+" + std::to_string(vm.pending_vcpus()) : "");
}

std::string Memory(const v1::Vm& vm) {
  return Size(vm.memory_bytes()) +
         (vm.pending_memory_bytes() > 0 ? "+" + Size(vm.pending_memory_bytes()) : "");
}

std::string State(const v1::Vm& vm) { return vm.handed_over() ? "handed over" : Name(vm.state()); }

std::string Pending(const v1::Vm& vm) {
  if (!vm.pending_problem().empty()) return vm.pending_problem();
  const bool pending = vm.pending_vcpus() > 0 || vm.pending_memory_bytes() > 0;
  return pending ? "the guest brings up what stands after the +" : "";
}

std::string Left(const google::protobuf::Timestamp& until, WallTime now) {
  const nanoseconds left =
      nanoseconds(TimeUtil::TimestampToNanoseconds(until)) - now.time_since_epoch();
  const auto seconds =
      std::max(std::chrono::seconds(0), std::chrono::ceil<std::chrono::seconds>(left));
  return seconds < std::chrono::minutes(1) ? std::to_string(seconds.count()) + "s"
                                           : ToHuman(seconds);
}

std::string Holder(const v1::Vm& vm) {
  if (vm.holder_pid() == 0) return vm.tenant();
  return (vm.tenant().empty() ? "" : vm.tenant() + " ") + "pid " + std::to_string(vm.holder_pid());
}

// When the lease ends by itself.
std::string Until(const v1::Vm& vm, WallTime now) {
  if (vm.has_ends()) return "lapsed, ends in " + Left(vm.ends(), now);
  switch (vm.lease_term()) {
    case v1::LEASE_TERM_HELD: return "released";
    case v1::LEASE_TERM_TTL: return Left(vm.lease_expires(), now);
    case v1::LEASE_TERM_CALLER: return "its holder ends";
    case v1::LEASE_TERM_UNSPECIFIED:
    case v1::LeaseTerm_INT_MIN_SENTINEL_DO_NOT_USE_:
    case v1::LeaseTerm_INT_MAX_SENTINEL_DO_NOT_USE_: return "";
  }
  return "";
}

// Why it cannot be used, and for how long no clones are made of it.
std::string Problem(const v1::Template& tmpl, WallTime now) {
  if (!tmpl.has_quarantined_until()) return tmpl.problem();
  const nanoseconds left = nanoseconds(TimeUtil::TimestampToNanoseconds(tmpl.quarantined_until())) -
                           now.time_since_epoch();
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(left);
  return (seconds.count() > 0 ? "no clones for " + ToHuman(seconds) : "one clone is tried") + ": " +
         tmpl.problem();
}

// What the guest has in common with every clone of its template.
std::string NotRenewed(const v1::Vm& vm) {
  std::string names;
  for (const std::string& name : vm.not_renewed()) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "" : names + " (the guest's agent is not Hatchery's)";
}

std::string LastLine(std::string text) {
  text.resize(text.find_last_not_of("\r\n ") + 1);
  return text.substr(text.find_last_of("\r\n") + 1);
}

void Append(Fields& fields, const v1::Vm& vm, WallTime now) {
  const Fields own = {
      {"vm", vm.vm_id()},
      {"state", State(vm)},
      {"template",
       vm.template_name() +
           (vm.template_digest().empty() ? "" : " (" + ShortDigest(vm.template_digest()) + ")")},
      {"vcpus", Vcpus(vm)},
      {"memory", Memory(vm)},
      {"pending", Pending(vm)},
      {"problem", vm.problem()},
      {"pid", vm.pid() > 0 ? std::to_string(vm.pid()) : ""},
      {"agent", vm.agent_endpoint()},
      {"vsock cid", vm.vsock_cid() > 0 ? std::to_string(vm.vsock_cid()) : ""},
      {"control", vm.control_socket()},
      {"console", vm.console_log()},
      {"age", Age(vm.has_created(), vm.created(), now)},
      {"lease", vm.lease_id()},
      {"sandbox", vm.sandbox_id()},
      {"request", vm.request_id()},
      {"holder", Holder(vm)},
      {"leased for", Age(vm.has_acquired(), vm.acquired(), now)},
      {"leased until", Until(vm, now)},
      {"hostname", vm.hostname()},
      {"machine id", vm.machine_id()},
      {"boot id", vm.boot_id()},
      {"not renewed", NotRenewed(vm)}};
  fields.insert(fields.end(), own.begin(), own.end());
}

template <class Map>
void AppendMap(Fields& fields, const std::string& prefix, const Map& map) {
  const std::map<std::string, std::string> sorted(map.begin(), map.end());
  for (const auto& [key, value] : sorted) fields.emplace_back(prefix + key, value);
}

}  // namespace

std::string VmTable(const v1::ListVmsResponse& response, WallTime now) {
  Table table({{"VM"},
               {"STATE"},
               {"TEMPLATE"},
               {"VCPUS", Align::kRight},
               {"MEMORY", Align::kRight},
               {"PID", Align::kRight},
               {"AGE", Align::kRight},
               {"SANDBOX"},
               {"HOLDER"},
               {"SINCE", Align::kRight},
               {"UNTIL"},
               {"PROBLEM"}});
  for (const v1::Vm& vm : response.vms()) {
    table.Add({vm.vm_id(), State(vm), vm.template_name(), Vcpus(vm), Memory(vm),
               vm.pid() > 0 ? std::to_string(vm.pid()) : "",
               Age(vm.has_created(), vm.created(), now), vm.sandbox_id(), Holder(vm),
               Age(vm.has_acquired(), vm.acquired(), now), Until(vm, now), vm.problem()});
  }
  return table.Render();
}

std::string TemplateTable(const google::protobuf::RepeatedPtrField<v1::Template>& templates,
                          WallTime now) {
  Table table({{"NAME"},
               {"DIGEST"},
               {"VCPUS", Align::kRight},
               {"MEMORY", Align::kRight},
               {"ACCEL"},
               {"DISK", Align::kRight},
               {"VMS", Align::kRight},
               {"AGE", Align::kRight},
               {"PROBLEM"}});
  for (const v1::Template& tmpl : templates) {
    table.Add({tmpl.name().empty() ? "(old version)" : tmpl.name(), ShortDigest(tmpl.digest()),
               Range(std::to_string(tmpl.vcpus()), std::to_string(tmpl.max_vcpus())),
               Range(Size(tmpl.memory_bytes()), Size(tmpl.max_memory_bytes())), tmpl.accelerator(),
               Size(tmpl.disk_bytes()), std::to_string(tmpl.clones()),
               Age(tmpl.has_created(), tmpl.created(), now), Problem(tmpl, now)});
  }
  return table.Render();
}

std::string PoolTable(const google::protobuf::RepeatedPtrField<v1::Pool>& pools) {
  Table table({{"TEMPLATE"},
               {"VCPUS", Align::kRight},
               {"MEMORY", Align::kRight},
               {"TARGET", Align::kRight},
               {"WARM", Align::kRight},
               {"FILLING", Align::kRight},
               {"LEASED", Align::kRight},
               {"HITS", Align::kRight},
               {"MISSES", Align::kRight},
               {"MADE BY"},
               {"LAST ERROR"}});
  for (const v1::Pool& pool : pools) {
    table.Add({pool.template_name(), std::to_string(pool.vcpus()), Size(pool.memory_bytes()),
               std::to_string(pool.target()), std::to_string(pool.warm()),
               std::to_string(pool.filling()), std::to_string(pool.leased()),
               std::to_string(pool.hits()), std::to_string(pool.misses()),
               pool.learned() ? "demand" : "operator", pool.last_error()});
  }
  return table.Render();
}

std::string ToText(const v1::AcquireResponse& response, WallTime now) {
  Fields fields;
  Append(fields, response.vm(), now);
  fields.emplace_back("source", Name(response.source()));
  fields.emplace_back("took", Human(response.total()) + " (resize " + Human(response.resize()) +
                                  ", personalize " + Human(response.personalize()) + ")");
  return RenderFields(fields);
}

std::string ToText(const v1::RenewResponse& response, WallTime now) {
  return "VM " + response.vm().vm_id() + " is leased for " +
         Left(response.vm().lease_expires(), now) + " from now, unless it is renewed again\n";
}

std::string ToText(const v1::GetVmResponse& response, WallTime now) {
  Fields fields;
  Append(fields, response.vm(), now);
  if (response.has_stats()) {
    const v1::VmStats& stats = response.stats();
    fields.emplace_back("private memory", Size(stats.private_bytes()));
    fields.emplace_back("proportional memory", Size(stats.proportional_bytes()));
    fields.emplace_back("resident memory", Size(stats.resident_bytes()));
    fields.emplace_back("cpu time", Human(stats.cpu_time()));
  }
  std::string text = RenderFields(fields);
  if (!response.console_tail().empty()) {
    // The guest's line ends are CR LF.
    std::string console = response.console_tail();
    std::erase(console, '\r');
    text += "\nend of its console:\n" + Printable(console);
    if (!text.ends_with('\n')) text += '\n';
  }
  return text;
}

std::string ToText(const v1::WatchResponse& event) {
  const bool gone = event.state() == v1::VM_STATE_UNSPECIFIED;
  std::string line = TimeUtil::ToString(event.time()) + " " + std::to_string(event.revision()) +
                     " " + event.vm_id() + " " + (gone ? "gone" : Name(event.state()));
  if (!event.sandbox_id().empty()) line += " sandbox=" + event.sandbox_id();
  if (!event.request_id().empty()) line += " request=" + event.request_id();
  if (!event.lease_id().empty()) line += " lease=" + event.lease_id();
  if (event.health_changed())
    line += event.problem().empty() ? ": well again" : ": " + event.problem();
  if (!event.reason().empty()) line += ": " + event.reason();
  if (const auto last = LastLine(event.console_tail()); !last.empty()) line += "; console: " + last;
  line = Printable(line);
  std::ranges::replace(line, '\n', ' ');
  return line + "\n";
}

std::string ToText(const v1::Template& tmpl, WallTime now) {
  Fields fields = {{"name", tmpl.name().empty() ? "(old version)" : tmpl.name()},
                   {"digest", tmpl.digest()},
                   {"problem", Problem(tmpl, now)},
                   {"age", Age(tmpl.has_created(), tmpl.created(), now)},
                   {"vcpus", Range(std::to_string(tmpl.vcpus()), std::to_string(tmpl.max_vcpus()))},
                   {"memory", Range(Size(tmpl.memory_bytes()), Size(tmpl.max_memory_bytes()))},
                   {"accelerator", tmpl.accelerator()},
                   {"agent", tmpl.agent_version()},
                   {"disk", Size(tmpl.disk_bytes())},
                   {"vms", std::to_string(tmpl.clones())}};
  AppendMap(fields, "input ", tmpl.inputs());
  AppendMap(fields, "", tmpl.fingerprint());
  return RenderFields(fields);
}

namespace {

std::string Memory(const v1::MemoryAccount& memory) {
  return Size(memory.available_bytes()) + " of " + Size(memory.total_bytes()) + " available, " +
         Size(memory.reserve_bytes()) + " kept for the host; VMs and templates take " +
         Size(memory.private_bytes()) + ", leased VMs may grow by " + Size(memory.growth_bytes());
}

// "3", or "3 of 10" where there is a limit.
template <class Amount, class Show>
std::string OfMost(Amount held, Amount most, Show show) {
  return show(held) + (most > 0 ? " of " + show(most) : "");
}

std::string TenantTable(const google::protobuf::RepeatedPtrField<v1::Tenant>& tenants) {
  const auto count = [](std::uint32_t n) { return std::to_string(n); };
  Table table(
      {{"TENANT"}, {"LEASES", Align::kRight}, {"VCPUS", Align::kRight}, {"MEMORY", Align::kRight}});
  for (const v1::Tenant& tenant : tenants) {
    table.Add({tenant.name(), OfMost(tenant.leases(), tenant.max_leases(), count),
               OfMost(tenant.vcpus(), tenant.max_vcpus(), count),
               OfMost(tenant.memory_bytes(), tenant.max_memory_bytes(), Size)});
  }
  return table.Render();
}

}  // namespace

std::string ToText(const v1::StatusResponse& response, WallTime now) {
  std::string text = RenderFields(
      {{"daemon", "hatcheryd " + response.version() + ", pid " + std::to_string(response.pid()) +
                      ", up " + Human(response.uptime())},
       {"state", response.state_dir()},
       {"driver", response.driver()},
       {"isolation", response.isolation()},
       {"vms",
        std::to_string(response.vms()) + ", " + std::to_string(response.leased()) + " leased"},
       {"memory", response.has_memory() ? Memory(response.memory()) : ""},
       {"acquires waiting",
        response.waiting_acquires() > 0 ? std::to_string(response.waiting_acquires()) : ""}});
  if (response.templates().empty()) {
    return text + "\nno templates; make one and fill its pool with `hatchery factory init`\n";
  }
  text += "\n" + TemplateTable(response.templates(), now);
  if (!response.pools().empty()) text += "\n" + PoolTable(response.pools());
  if (!response.tenants().empty()) text += "\n" + TenantTable(response.tenants());
  return text;
}

std::string ToText(const v1::InitResult& result) {
  const v1::Template& tmpl = result.template_info();
  std::string text = "template " + tmpl.name() + " (" + ShortDigest(tmpl.digest()) + ") ";
  text += result.template_reused() ? "is there already"
                                   : "made: booted in " + Human(result.boot_time()) +
                                         ", saved in " + Human(result.save_time());
  text += "\npool of " + std::to_string(result.pool().target()) + ": " +
          std::to_string(result.pool().warm()) + " warm";
  if (result.has_fill_time()) text += ", filled in " + Human(result.fill_time());
  return Printable(text) + "\n";
}

std::string ToText(const v1::CreateTemplateResult& result) {
  const v1::Template& tmpl = result.template_info();
  const std::string what = "template " + tmpl.name() + " (" + ShortDigest(tmpl.digest()) + ") ";
  return Printable(what + (result.reused()
                               ? "is there already and nothing it is made from has changed"
                               : "made: booted in " + Human(result.boot_time()) + ", saved in " +
                                     Human(result.save_time()))) +
         "\n";
}

std::string ToText(const v1::Pool& pool) {
  std::string text = "pool of " + pool.template_name() + " (" + std::to_string(pool.vcpus()) +
                     " vcpus, " + Size(pool.memory_bytes()) + "): target " +
                     std::to_string(pool.target()) + ", " + std::to_string(pool.warm()) + " warm";
  if (pool.filling() > 0) text += ", " + std::to_string(pool.filling()) + " filling";
  if (!pool.last_error().empty()) text += "; last error: " + pool.last_error();
  return Printable(text) + "\n";
}

}  // namespace hatchery::cli
