#include "agent/client/validate.h"

#include <cstddef>
#include <string>
#include <utility>

namespace hatchery::agent {

namespace {

constexpr std::size_t kMinSeedBytes = 32;
// A frame holds 4 MiB; the rest is for its envelope.
constexpr Bytes kMaxExecRequest = Bytes::MiB(3);
// proto/hatchery/agent/v1/guest.proto: both outputs have to fit one frame.
constexpr Bytes kMaxOutputLimit = Bytes::KiB(1536);

}  // namespace

Result<void> ValidateIdentity(const Identity& identity) {
  if (identity.seed.size() < kMinSeedBytes) {
    return InvalidArgument("seed", "Personalize: seed must have at least 32 bytes, not " +
                                       std::to_string(identity.seed.size()));
  }
  return {};
}

Result<void> ValidateExec(const ExecRequest& request) {
  if (request.argv.empty() || request.argv[0].empty()) {
    return InvalidArgument("argv", "Exec: argv names no program");
  }
  if (request.output_limit > kMaxOutputLimit) {
    return InvalidArgument("output_limit", "Exec: output_limit is " +
                                               ToString(request.output_limit) + ", more than " +
                                               ToString(kMaxOutputLimit));
  }
  std::size_t size = request.stdin_data.size() + request.cwd.size();
  for (const auto& argument : request.argv) size += argument.size();
  for (const auto& [name, value] : request.env) size += name.size() + value.size();
  if (size > kMaxExecRequest.count()) {
    return InvalidArgument(request.stdin_data.size() * 2 > size ? "stdin_data" : "argv",
                           "Exec: the request has " + ToString(Bytes(size)) + ", more than " +
                               ToString(kMaxExecRequest));
  }
  return {};
}

Result<void> CheckConfirmed(const Identity& asked, const PersonalizeReport& report) {
  const auto missing = [](std::string part) {
    return Internal("Personalize: the agent did not confirm " + std::move(part));
  };
  if (!report.reseeded) return missing("the reseed (seed)");
  if (!report.clock_set) return missing("the clock (time)");
  if (!report.foreign) {
    if (!asked.hostname.empty() && !report.hostname_set) return missing("hostname");
    if (!asked.machine_id.empty() && !report.machine_id_set) return missing("machine_id");
    if (asked.renew_boot_id && report.boot_id.empty()) return missing("a new boot_id");
  }
  if (report.online_vcpus < asked.vcpus) {
    return missing("vcpus: " + std::to_string(report.online_vcpus) + " of " +
                   std::to_string(asked.vcpus) + " are online");
  }
  if (report.online_memory < asked.memory) {
    return missing("memory: " + ToString(report.online_memory) + " of " + ToString(asked.memory) +
                   " is online");
  }
  return {};
}

std::unexpected<Error> NoSuchMethod(std::string_view method) {
  return Unimplemented("the guest's agent has no " + std::string(method) +
                       ": it is not hatchery-agent");
}

}  // namespace hatchery::agent
