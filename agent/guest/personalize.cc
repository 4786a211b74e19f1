#include "agent/guest/personalize.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>

#include "base/ids.h"

namespace hatchery::agent::guest {

namespace {

constexpr std::size_t kMinSeedBytes = 32;
constexpr std::size_t kMaxSeedBytes = 4096;
constexpr std::size_t kMaxHostnameBytes = 64;  // the kernel's __NEW_UTS_LEN
constexpr std::size_t kMachineIdDigits = 32;
constexpr std::string_view kBootId = "/proc/sys/kernel/random/boot_id";
constexpr std::string_view kOurBootId = "/run/hatchery/boot_id";

Result<void> Validate(const v1::PersonalizeRequest& request) {
  if (request.seed().size() < kMinSeedBytes || request.seed().size() > kMaxSeedBytes) {
    return InvalidArgument(
        "seed", std::to_string(request.seed().size()) + " bytes; at least 32, at most 4096");
  }
  if (request.time_unix_ns() <= 0) return InvalidArgument("time_unix_ns", "must be positive");
  const std::string& hostname = request.hostname();
  const bool hostname_ok = std::all_of(hostname.begin(), hostname.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
  });
  if (!hostname_ok || hostname.size() > kMaxHostnameBytes) {
    return InvalidArgument("hostname", "at most 64 letters, digits, '-', '.' and '_'");
  }
  const std::string& id = request.machine_id();
  const bool id_ok =
      std::all_of(id.begin(), id.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (!id.empty() && (!id_ok || id.size() != kMachineIdDigits)) {
    return InvalidArgument("machine_id", "must be 32 hexadecimal digits");
  }
  return {};
}

std::string RandomUuid() {
  std::string bytes = RandomBytes(16);
  bytes[6] = static_cast<char>((bytes[6] & 0x0f) | 0x40);  // version 4
  bytes[8] = static_cast<char>((bytes[8] & 0x3f) | 0x80);  // RFC 4122's variant
  std::string text = ToHex(bytes);
  for (const std::size_t at : {20, 16, 12, 8}) text.insert(at, "-");
  return text;
}

bool IsSameFile(const std::filesystem::path& a, const std::filesystem::path& b) {
  struct stat sa{}, sb{};
  return ::stat(a.c_str(), &sa) == 0 && ::stat(b.c_str(), &sb) == 0 && sa.st_dev == sb.st_dev &&
         sa.st_ino == sb.st_ino;
}

// Whatever went wrong in a part, the caller's request was valid.
std::unexpected<Error> FailedPart(std::string_view part, Error error) {
  error.code = Code::kInternal;
  return Annotate(std::move(error), part);
}

Result<void> InPart(std::string_view part, Result<void> result) {
  if (!result) return FailedPart(part, std::move(result.error()));
  return {};
}

}  // namespace

Result<std::string> RenewBootId(GuestSystem& system) {
  const std::string id = RandomUuid();
  RETURN_IF_ERROR(system.WriteFile(kOurBootId, id + "\n"));
  if (!IsSameFile(system.Path(kOurBootId), system.Path(kBootId))) {
    RETURN_IF_ERROR(system.BindOver(kOurBootId, kBootId));
  }
  return id;
}

Result<v1::PersonalizeResponse> PersonalizeIdentity(GuestSystem& system,
                                                    const v1::PersonalizeRequest& request) {
  RETURN_IF_ERROR(Validate(request));
  v1::PersonalizeResponse response;
  RETURN_IF_ERROR(InPart("seed", system.Reseed(request.seed())));
  response.set_reseeded(true);
  RETURN_IF_ERROR(InPart("clock", system.SetClock(request.time_unix_ns())));
  response.set_clock_set(true);
  if (!request.hostname().empty()) {
    RETURN_IF_ERROR(InPart("hostname", system.SetHostname(request.hostname())));
    RETURN_IF_ERROR(
        InPart("hostname", system.WriteFile("/etc/hostname", request.hostname() + "\n")));
    response.set_hostname_set(true);
  }
  if (!request.machine_id().empty()) {
    std::string id = request.machine_id();
    std::transform(id.begin(), id.end(), id.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    RETURN_IF_ERROR(InPart("machine_id", system.WriteFile("/etc/machine-id", id + "\n")));
    response.set_machine_id_set(true);
  }
  if (request.renew_boot_id()) {
    auto boot_id = RenewBootId(system);
    if (!boot_id) return FailedPart("boot_id", std::move(boot_id.error()));
    response.set_boot_id(*std::move(boot_id));
  }
  return response;
}

}  // namespace hatchery::agent::guest
