#include "cache/rpc/convert.h"

#include "hatchery/v1/errors.pb.h"

namespace hatchery::cache::rpc {

namespace {

// gRPC sends messages as HTTP/2 headers, which peers limit to 8 KiB; a longer one loses the call.
constexpr std::size_t kMaxMessage = 3000;

api::VmState ToApi(Phase phase) {
  switch (phase) {
    case record::VM_PHASE_SPAWNING: return api::VM_STATE_SPAWNING;
    case record::VM_PHASE_LOADED: return api::VM_STATE_LOADED;
    case record::VM_PHASE_WARMING: return api::VM_STATE_WARMING;
    case record::VM_PHASE_WARM: return api::VM_STATE_WARM;
    case record::VM_PHASE_ASSIGNED: return api::VM_STATE_ASSIGNED;
    case record::VM_PHASE_RELEASED: return api::VM_STATE_RELEASED;
    case record::VM_PHASE_FAILED: return api::VM_STATE_FAILED;
    case record::VM_PHASE_BOOTING: return api::VM_STATE_BOOTING;
    case record::VM_PHASE_UNSPECIFIED:
    case record::VmPhase_INT_MIN_SENTINEL_DO_NOT_USE_:
    case record::VmPhase_INT_MAX_SENTINEL_DO_NOT_USE_: return api::VM_STATE_UNSPECIFIED;
  }
  return api::VM_STATE_UNSPECIFIED;
}

}  // namespace

grpc::Status ToGrpcStatus(const Error& error) {
  std::string message = error.message;
  if (message.size() > kMaxMessage) message = message.substr(0, kMaxMessage) + "…";
  const auto code = static_cast<grpc::StatusCode>(error.code);
  api::ErrorStatus status;
  auto add = [&](const char* type, const google::protobuf::Message& detail) {
    auto* any = status.add_details();
    any->set_type_url(std::string("type.googleapis.com/google.rpc.") + type);
    any->set_value(detail.SerializeAsString());
  };
  if (!error.field.empty()) {
    api::BadRequestDetail detail;
    auto* violation = detail.add_field_violations();
    violation->set_field(error.field);
    violation->set_description(message);
    add("BadRequest", detail);
  }
  if (error.retry_after.count() > 0) {
    api::RetryInfoDetail detail;
    *detail.mutable_retry_delay() = ToApi(std::chrono::nanoseconds(error.retry_after));
    add("RetryInfo", detail);
  }
  if (status.details().empty()) return {code, message};
  status.set_code(static_cast<int>(error.code));
  status.set_message(message);
  return {code, message, status.SerializeAsString()};
}

Deadline DeadlineOf(const grpc::CallbackServerContext& context,
                    std::chrono::nanoseconds otherwise) {
  const auto deadline = context.deadline();
  const auto now = std::chrono::system_clock::now();
  // gRPC's "no deadline" is a point centuries away.
  if (deadline > now + std::chrono::hours(24 * 365)) return After(otherwise);
  return After(deadline - now);
}

google::protobuf::Duration ToApi(std::chrono::nanoseconds duration) {
  google::protobuf::Duration d;
  d.set_seconds(duration.count() / 1'000'000'000);
  d.set_nanos(static_cast<int>(duration.count() % 1'000'000'000));
  return d;
}

google::protobuf::Timestamp TimestampOf(std::int64_t unix_nanos) {
  google::protobuf::Timestamp t;
  t.set_seconds(unix_nanos / 1'000'000'000);
  t.set_nanos(static_cast<int>(unix_nanos % 1'000'000'000));
  return t;
}

Result<std::chrono::nanoseconds> FromApi(const google::protobuf::Duration& duration,
                                         std::string_view field) {
  constexpr std::int64_t kYear = 365 * 24 * 3600;
  const bool sane = duration.seconds() >= 0 && duration.seconds() <= kYear &&
                    duration.nanos() >= 0 && duration.nanos() < 1'000'000'000;
  if (!sane) return InvalidArgument(std::string(field), "must be from 0 to a year");
  return std::chrono::seconds(duration.seconds()) + std::chrono::nanoseconds(duration.nanos());
}

namespace {

api::LeaseTerm ToApi(record::LeaseTerm term) {
  switch (term) {
    case record::LEASE_TERM_TTL: return api::LEASE_TERM_TTL;
    case record::LEASE_TERM_CALLER: return api::LEASE_TERM_CALLER;
    case record::LEASE_TERM_HELD:
    case record::LEASE_TERM_UNSPECIFIED:
    case record::LeaseTerm_INT_MIN_SENTINEL_DO_NOT_USE_:
    case record::LeaseTerm_INT_MAX_SENTINEL_DO_NOT_USE_: return api::LEASE_TERM_HELD;
  }
  return api::LEASE_TERM_HELD;
}

void SetLease(api::Vm& out, const record::LeaseRecord& lease, const Settings& settings,
              const Clock& clock) {
  out.set_lease_id(lease.id());
  out.set_sandbox_id(lease.sandbox_id());
  out.set_request_id(lease.request_id());
  out.set_tenant(lease.tenant());
  *out.mutable_acquired() = TimestampOf(lease.created_unix_ns());
  out.set_lease_term(ToApi(lease.term()));
  out.set_holder_pid(lease.holder_pid());
  const std::int64_t to_wall = UnixNanos(clock.Now()) - clock.SinceBoot().count();
  if (lease.term() == record::LEASE_TERM_TTL) {
    *out.mutable_lease_ttl() = rpc::ToApi(std::chrono::nanoseconds(lease.ttl_ns()));
    *out.mutable_lease_expires() = TimestampOf(lease.expires_boottime_ns() + to_wall);
  }
  if (lease.lapsed_boottime_ns() > 0) {
    *out.mutable_ends() =
        TimestampOf(lease.lapsed_boottime_ns() + settings.lease_grace.count() + to_wall);
  }
}

}  // namespace

api::Vm ToApi(const VmEntry& vm, const Settings& settings, const Clock& clock) {
  const auto& r = vm.record;
  api::Vm out;
  out.set_vm_id(r.id());
  out.set_state(ToApi(vm.phase()));
  out.set_template_name(r.template_name());
  out.set_template_digest(r.template_digest());
  out.set_vcpus(r.vcpus() - r.pending_vcpus());
  out.set_memory_bytes(r.memory_bytes() - r.pending_memory_bytes());
  out.set_pending_vcpus(r.pending_vcpus());
  out.set_pending_memory_bytes(r.pending_memory_bytes());
  out.set_pending_problem(vm.pending_problem);
  out.set_problem(vm.problem);
  out.set_handed_over(vm.handed_over());
  if (vm.machine) {
    const auto endpoints = vm.machine->vm->endpoints();
    out.set_pid(endpoints.pid);
    out.set_agent_endpoint(ToString(endpoints.agent));
    out.set_control_socket(endpoints.control.string());
    out.set_console_log(endpoints.console_log.string());
    if (endpoints.agent_vsock) out.set_vsock_cid(endpoints.agent_vsock->cid);
  }
  *out.mutable_created() = TimestampOf(r.created_unix_ns());
  if (vm.lease) SetLease(out, *vm.lease, settings, clock);
  out.set_hostname(r.hostname());
  out.set_machine_id(r.machine_id());
  out.set_boot_id(r.boot_id());
  if (r.foreign_agent()) {
    for (const char* part : {"hostname", "machine_id", "boot_id"}) out.add_not_renewed(part);
  }
  return out;
}

api::WatchResponse ToApi(const record::EventRecord& event) {
  api::WatchResponse out;
  out.set_revision(event.revision());
  *out.mutable_time() = TimestampOf(event.unix_ns());
  out.set_vm_id(event.vm_id());
  out.set_state(ToApi(event.phase()));
  out.set_lease_id(event.lease_id());
  out.set_sandbox_id(event.sandbox_id());
  out.set_request_id(event.request_id());
  out.set_reason(event.reason());
  out.set_console_tail(event.console_tail());
  out.set_template_name(event.template_name());
  out.set_health_changed(event.health_changed());
  out.set_problem(event.problem());
  return out;
}

api::VmStats ToApi(const hypervisor::VmStats& stats) {
  api::VmStats out;
  out.set_assigned_bytes(stats.assigned.count());
  out.set_resident_bytes(stats.resident.count());
  out.set_private_bytes(stats.private_memory.count());
  out.set_proportional_bytes(stats.proportional.count());
  *out.mutable_cpu_time() = ToApi(stats.cpu_time);
  return out;
}

api::Template ToApi(const TemplateInfo& info) {
  api::Template out;
  out.set_name(info.name);
  out.set_digest(info.digest.str());
  out.set_disk_bytes(info.disk_size.count());
  out.set_clones(static_cast<std::uint32_t>(info.clones));
  out.set_problem(info.problem);
  if (info.quarantined_until) {
    *out.mutable_quarantined_until() = TimestampOf(UnixNanos(*info.quarantined_until));
  }
  if (!info.manifest) return out;
  const auto& m = *info.manifest;
  *out.mutable_created() = TimestampOf(UnixNanos(m.created));
  out.set_vcpus(m.shape.vcpus);
  out.set_max_vcpus(m.shape.max_vcpus);
  out.set_memory_bytes(m.shape.memory.count());
  out.set_max_memory_bytes(m.shape.max_memory.count());
  out.set_accelerator(std::string(hypervisor::Name(m.accelerator)));
  out.mutable_inputs()->insert(m.inputs.begin(), m.inputs.end());
  out.mutable_fingerprint()->insert(m.fingerprint.begin(), m.fingerprint.end());
  out.set_agent_version(m.agent_version);
  return out;
}

api::Pool ToApi(const PoolInfo& info) {
  api::Pool out;
  out.set_template_name(info.template_name);
  out.set_vcpus(info.vcpus);
  out.set_memory_bytes(info.memory.count());
  out.set_target(info.target);
  out.set_warm(info.warm);
  out.set_filling(info.filling);
  out.set_leased(info.leased);
  out.set_hits(info.hits);
  out.set_misses(info.misses);
  out.set_last_error(info.last_error);
  out.set_learned(info.learned);
  return out;
}

api::MemoryAccount ToApi(const Admission::Memory& memory) {
  api::MemoryAccount out;
  out.set_total_bytes(memory.host.total.count());
  out.set_available_bytes(memory.host.available.count());
  out.set_reserve_bytes(memory.reserve.count());
  out.set_private_bytes(memory.private_memory.count());
  out.set_growth_bytes(memory.growth.count());
  return out;
}

api::Tenant ToApi(const std::string& name, const Quotas::Held& held, const Limits& limits) {
  api::Tenant out;
  out.set_name(name);
  out.set_leases(held.leases);
  out.set_vcpus(static_cast<std::uint32_t>(held.vcpus));
  out.set_memory_bytes(held.memory.count());
  out.set_max_leases(limits.tenant_leases);
  out.set_max_vcpus(limits.tenant_vcpus);
  out.set_max_memory_bytes(limits.tenant_memory.count());
  return out;
}

api::Progress ToApi(const StepProgress& progress) {
  api::Progress out;
  out.set_step(progress.step);
  out.set_done(progress.done);
  out.set_total(progress.total);
  out.set_unit(progress.unit);
  return out;
}

}  // namespace hatchery::cache::rpc
