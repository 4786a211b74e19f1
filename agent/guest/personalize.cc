#include "agent/guest/personalize.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "base/ids.h"

namespace hatchery::agent::guest {

namespace {

constexpr std::size_t kMinSeedBytes = 32;
constexpr std::size_t kMaxSeedBytes = 4096;
constexpr std::size_t kMaxHostnameBytes = 64;  // the kernel's __NEW_UTS_LEN
constexpr std::size_t kMachineIdDigits = 32;
constexpr std::string_view kBootId = "/proc/sys/kernel/random/boot_id";

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

// fstat(2) itself: that of glibc 2.36 looks an empty path up, five times the work.
long Look(int fd, struct stat& info) { return ::syscall(SYS_fstat, fd, &info); }

Result<void> InPart(std::string_view part, Result<void> result) {
  if (result) return result;
  // Whatever went wrong in a part, the caller's request was valid.
  result.error().code = Code::kInternal;
  return Annotate(std::move(result.error()), part);
}

}  // namespace

Result<std::int64_t> KeptFile::Open(const GuestSystem& system) {
  struct stat info{};
  if (!fd_ || Look(fd_.get(), info) != 0 || info.st_nlink == 0) {
    ASSIGN_OR_RETURN(fd_, system.OpenFile(path_));
    if (Look(fd_.get(), info) != 0) {
      return ErrnoError(errno, "looking at " + std::string(path_));
    }
  }
  return info.st_size;
}

Result<void> KeptFile::Write(const GuestSystem& system, std::string_view text) {
  ASSIGN_OR_RETURN(const std::int64_t before, Open(system));
  // Not emptied first: the guest would give the page back, and clear another one.
  const auto size = static_cast<ssize_t>(text.size());
  if (::pwrite(fd_.get(), text.data(), text.size(), 0) != size) {
    return ErrnoError(errno, "writing " + std::string(path_));
  }
  if (size < before && ::ftruncate(fd_.get(), size) != 0) {
    return ErrnoError(errno, "shortening " + std::string(path_));
  }
  return {};
}

void Personalizer::Prepare() {
  (void)hostname_.Open(system_);
  (void)machine_id_.Open(system_);
  if (const auto id = system_.Read(kBootId)) (void)ShowBootId(*id);
}

Result<void> Personalizer::ShowBootId(std::string_view id) {
  RETURN_IF_ERROR(boot_id_.Write(system_, std::string(id) + "\n"));
  if (!boot_id_shown_) RETURN_IF_ERROR(system_.BindOver(boot_id_.path(), kBootId));
  boot_id_shown_ = true;
  return {};
}

Result<v1::PersonalizeResponse> Personalizer::Apply(const v1::PersonalizeRequest& request) {
  RETURN_IF_ERROR(Validate(request));
  v1::PersonalizeResponse response;
  RETURN_IF_ERROR(InPart("seed", system_.Reseed(request.seed())));
  response.set_reseeded(true);
  RETURN_IF_ERROR(InPart("clock", system_.SetClock(request.time_unix_ns())));
  response.set_clock_set(true);
  if (!request.hostname().empty()) {
    RETURN_IF_ERROR(InPart("hostname", system_.SetHostname(request.hostname())));
    RETURN_IF_ERROR(InPart("hostname", hostname_.Write(system_, request.hostname() + "\n")));
    response.set_hostname_set(true);
  }
  if (!request.machine_id().empty()) {
    std::string id = request.machine_id();
    std::transform(id.begin(), id.end(), id.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    RETURN_IF_ERROR(InPart("machine_id", machine_id_.Write(system_, id + "\n")));
    response.set_machine_id_set(true);
  }
  if (request.renew_boot_id()) {
    const std::string boot_id = RandomUuid();
    RETURN_IF_ERROR(InPart("boot_id", ShowBootId(boot_id)));
    response.set_boot_id(boot_id);
  }
  return response;
}

}  // namespace hatchery::agent::guest
