#include "hypervisor/uids.h"

#include <charconv>
#include <limits>
#include <sstream>

namespace hatchery::hypervisor {

namespace {

std::optional<uid_t> Number(std::string_view text) {
  uid_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

// An account with an id in the range; empty if there is none.
std::string AccountIn(UidRange range, std::string_view passwd) {
  std::istringstream lines{std::string(passwd)};
  for (std::string line; std::getline(lines, line);) {
    const auto name = line.find(':'), password = line.find(':', name + 1);
    if (name == std::string::npos || password == std::string::npos) continue;
    const auto from = password + 1;
    const auto id = Number(std::string_view(line).substr(from, line.find(':', from) - from));
    if (id && *id >= range.first && *id <= range.last) {
      return "'" + line.substr(0, name) + "' (uid " + std::to_string(*id) + ")";
    }
  }
  return {};
}

}  // namespace

Result<std::optional<UidRange>> ParseUids(std::string_view setting, uid_t we,
                                          std::string_view passwd) {
  if (setting == "none" || (setting == "auto" && we != 0)) return std::nullopt;
  UidRange range = kDefaultUids;
  const std::string what = "[vmm] uids '" + std::string(setting) + "'";
  if (setting != "auto") {
    const auto dash = setting.find('-');
    const auto first = Number(setting.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : Number(setting.substr(dash + 1));
    if (!first || !last || *first > *last) {
      return MakeError(Code::kInvalidArgument, what + " is not FIRST-LAST, auto or none");
    }
    range = {*first, *last};
    if (range.first == 0) {
      return MakeError(Code::kInvalidArgument, what + " holds 0, which is root's");
    }
    if (range.last == std::numeric_limits<uid_t>::max()) {
      return MakeError(Code::kInvalidArgument, what + " holds an id that no process can have");
    }
    if (we != 0) {
      return MakeError(Code::kPermissionDenied,
                       what + " needs a daemon that runs as root; use auto or none");
    }
  }
  if (const auto account = AccountIn(range, passwd); !account.empty()) {
    return MakeError(Code::kInvalidArgument,
                     what + " holds the account " + account + "; choose ids that nobody has");
  }
  return range;
}

Result<void> MayGive(UidRange range, std::string_view id_map, std::string_view status) {
  constexpr std::uint64_t kChownSetgidSetuid = 1u << 0 | 1u << 6 | 1u << 7;
  constexpr std::string_view kEffective = "\nCapEff:\t";
  std::uint64_t capabilities = 0;
  if (const auto at = status.find(kEffective); at != std::string_view::npos) {
    const auto digits = status.substr(at + kEffective.size());
    std::from_chars(digits.data(), digits.data() + digits.size(), capabilities, 16);
  }
  if ((capabilities & kChownSetgidSetuid) != kChownSetgidSetuid) {
    return FailedPrecondition("the daemon lacks CAP_CHOWN, CAP_SETGID or CAP_SETUID");
  }
  std::istringstream lines{std::string(id_map)};
  std::uint64_t first = 0, outside = 0, count = 0;
  while (lines >> first >> outside >> count) {
    if (range.first >= first && range.last < first + count) return {};
  }
  return FailedPrecondition("this user namespace has no ids " + std::to_string(range.first) + "-" +
                            std::to_string(range.last));
}

UidAllocator::UidAllocator(UidRange range, std::size_t start)
    : range_(range),
      next_(range.first + static_cast<uid_t>(start % (std::size_t{range.last} - range.first + 1))) {
}

bool UidAllocator::IsFree(uid_t uid) {
  const auto found = taken_.find(uid);
  if (found == taken_.end()) return true;
  if (!found->second) return false;
  const auto now = IdentifyProcess(found->second->pid);
  const bool gone = now ? *now != *found->second : now.error().code == Code::kNotFound;
  if (!gone) return false;
  taken_.erase(found);
  return true;
}

Result<uid_t> UidAllocator::Take() {
  uid_t uid = next_;
  do {
    const uid_t after = uid == range_.last ? range_.first : uid + 1;
    if (IsFree(uid)) {
      taken_[uid] = std::nullopt;
      next_ = after;
      return uid;
    }
    uid = after;
  } while (uid != next_);
  return ResourceExhausted("all user ids " + std::to_string(range_.first) + "-" +
                           std::to_string(range_.last) +
                           " are taken by VMs; widen [vmm] uids or release some");
}

void UidAllocator::Claim(uid_t uid) { taken_[uid] = std::nullopt; }

void UidAllocator::Free(uid_t uid) { taken_.erase(uid); }

void UidAllocator::Abandon(uid_t uid, ProcessIdentity process) {
  if (taken_.contains(uid)) taken_[uid] = process;
}

}  // namespace hatchery::hypervisor
