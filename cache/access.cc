#include "cache/access.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>

namespace hatchery::cache {

namespace {

constexpr std::string_view kAllowed =
    "write uid:NUMBER, gid:NUMBER, user:NAME, group:NAME, tls:NAME or *";
constexpr std::size_t kMaxTlsName = 100;
// As much as a group's or user's entry may take, members included.
constexpr std::size_t kMaxAccountEntry = 1 << 20;

std::string_view Trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::unexpected<Error> BadEntry(std::string_view entry, std::string_view why) {
  return MakeError(Code::kInvalidArgument, "'" + std::string(entry) + "' " + std::string(why) +
                                               "; " + std::string(kAllowed) +
                                               ", separated by commas");
}

Result<AccessEntry> ParseEntry(std::string_view text) {
  using Kind = AccessEntry::Kind;
  if (text == "*") return AccessEntry{};
  static constexpr std::pair<std::string_view, Kind> kPrefixes[] = {{"uid:", Kind::kUid},
                                                                    {"gid:", Kind::kGid},
                                                                    {"user:", Kind::kUser},
                                                                    {"group:", Kind::kGroup},
                                                                    {"tls:", Kind::kTls}};
  for (const auto& [prefix, kind] : kPrefixes) {
    if (!text.starts_with(prefix)) continue;
    const std::string_view value = text.substr(prefix.size());
    AccessEntry entry{.kind = kind};
    if (kind == Kind::kUid || kind == Kind::kGid) {
      const auto [end, error] =
          std::from_chars(value.data(), value.data() + value.size(), entry.id);
      // The kernel's "no id".
      if (error != std::errc() || end != value.data() + value.size() || entry.id == UINT32_MAX) {
        return BadEntry(text, "has no number from 0 to 4294967294");
      }
      return entry;
    }
    if (value.empty()) return BadEntry(text, "has no name");
    if (kind == Kind::kTls) {
      if (auto valid = ValidateTlsName(value); !valid) return BadEntry(text, "is no TLS name");
    }
    entry.name = value;
    return entry;
  }
  return BadEntry(text, "is nobody");
}

// getpwnam_r and getgrnam_r say ERANGE until their buffer is large enough. Returns the id, or
// nothing if there is no such account.
template <class Entry, class Look, class Id>
Result<std::optional<Id>> LookUp(Look look, Id Entry::* id, const std::string& name) {
  Entry entry{};
  Entry* found = nullptr;
  int error = ERANGE;
  for (std::size_t size = 1024; error == ERANGE && size <= kMaxAccountEntry; size *= 2) {
    std::vector<char> buffer(size);
    error = look(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (error == 0 && found != nullptr) return std::optional<Id>(entry.*id);
  }
  // What glibc and its modules say of a name that is not there.
  const bool absent = error == 0 || error == ENOENT || error == ESRCH;
  if (!absent) return ErrnoError(error, "looking up '" + name + "'");
  return std::optional<Id>();
}

template <class T>
bool Contains(const std::vector<T>& all, const T& one) {
  return std::ranges::find(all, one) != all.end();
}

std::string Describe(const Peer& peer) {
  if (const auto* tls = std::get_if<TlsPeer>(&peer)) return "TLS client '" + tls->name + "'";
  const auto& unix_peer = std::get<UnixPeer>(peer);
  return "uid " + std::to_string(unix_peer.uid) + " (gid " + std::to_string(unix_peer.gid) + ")";
}

}  // namespace

std::string_view Name(MethodClass what) {
  switch (what) {
    case MethodClass::kRead: return "read";
    case MethodClass::kAcquire: return "acquire";
    case MethodClass::kAdminister: return "administer";
  }
  return "unknown";
}

std::string TenantOf(const Peer& peer) {
  if (const auto* tls = std::get_if<TlsPeer>(&peer)) return "tls:" + tls->name;
  return "uid:" + std::to_string(std::get<UnixPeer>(peer).uid);
}

Result<void> ValidateTlsName(std::string_view name) {
  const auto fits = [](char c) { return c >= 0x20 && c < 0x7f && c != '/' && c != ','; };
  if (!name.empty() && name.size() <= kMaxTlsName && std::ranges::all_of(name, fits)) return {};
  return PermissionDenied(
      "the name in the client's certificate (its common name, or else its first DNS name) must "
      "have 1 to 100 printable ASCII characters, none of them '/' or ','");
}

Result<std::vector<AccessEntry>> ParseAccessList(std::string_view text) {
  std::vector<AccessEntry> entries;
  if (Trimmed(text).empty()) return entries;
  for (;;) {
    const auto comma = text.find(',');
    ASSIGN_OR_RETURN(AccessEntry entry, ParseEntry(Trimmed(text.substr(0, comma))));
    entries.push_back(std::move(entry));
    if (comma == std::string_view::npos) return entries;
    text.remove_prefix(comma + 1);
  }
}

bool Access::List::Has(const UnixPeer& peer) const {
  const auto is_ours = [&](gid_t gid) { return Contains(gids, gid); };
  return everybody || Contains(uids, peer.uid) || is_ours(peer.gid) ||
         std::ranges::any_of(peer.groups, is_ours);
}

bool Access::List::Has(const TlsPeer& peer) const { return everybody || Contains(tls, peer.name); }

Result<Access::List> Access::Resolve(std::string_view setting, std::string_view text) {
  using Kind = AccessEntry::Kind;
  const auto entries = ParseAccessList(text);
  if (!entries) return Annotate(entries.error(), setting);
  const auto missing = [&](std::string_view what, const std::string& name) {
    return MakeError(Code::kInvalidArgument, std::string(setting) + ": there is no " +
                                                 std::string(what) + " '" + name +
                                                 "' on this host");
  };
  List list;
  for (const auto& entry : *entries) {
    switch (entry.kind) {
      case Kind::kEverybody: list.everybody = true; break;
      case Kind::kUid: list.uids.push_back(entry.id); break;
      case Kind::kGid: list.gids.push_back(entry.id); break;
      case Kind::kTls: list.tls.push_back(entry.name); break;
      case Kind::kUser: {
        ASSIGN_OR_RETURN(const auto uid, LookUp(::getpwnam_r, &passwd::pw_uid, entry.name));
        if (!uid) return missing("user", entry.name);
        list.uids.push_back(*uid);
        break;
      }
      case Kind::kGroup: {
        ASSIGN_OR_RETURN(const auto gid, LookUp(::getgrnam_r, &group::gr_gid, entry.name));
        if (!gid) return missing("group", entry.name);
        list.gids.push_back(*gid);
        break;
      }
    }
  }
  return list;
}

Access::Access() : own_uid_(::geteuid()) { read_.everybody = acquire_.everybody = true; }

Result<Access> Access::Create(const Lists& lists, uid_t own_uid) {
  Access access;
  access.own_uid_ = own_uid;
  ASSIGN_OR_RETURN(access.read_, Resolve("access.read", lists.read));
  ASSIGN_OR_RETURN(access.acquire_, Resolve("access.acquire", lists.acquire));
  ASSIGN_OR_RETURN(access.administer_, Resolve("access.administer", lists.administer));
  return access;
}

bool Access::May(const Peer& peer, MethodClass what) const {
  if (const auto* known = std::get_if<UnixPeer>(&peer)) {
    if (known->uid == 0 || known->uid == own_uid_) return true;
  }
  const auto has = [&](const List& list) {
    return std::visit([&](const auto& p) { return list.Has(p); }, peer);
  };
  switch (what) {
    case MethodClass::kRead:
      if (has(read_)) return true;
      [[fallthrough]];
    case MethodClass::kAcquire:
      if (has(acquire_)) return true;
      [[fallthrough]];
    case MethodClass::kAdminister: return has(administer_);
  }
  return false;
}

Result<Caller> Access::Authorize(const Peer& peer, MethodClass what) const {
  const std::string tenant = TenantOf(peer);
  if (!May(peer, what)) {
    return PermissionDenied(Describe(peer) + " may not " + std::string(Name(what)) +
                            ": it takes an entry such as " + tenant +
                            " in the daemon's setting access." + std::string(Name(what)));
  }
  Caller caller;
  caller.tenant = tenant;
  caller.administers = May(peer, MethodClass::kAdminister);
  if (const auto* known = std::get_if<UnixPeer>(&peer)) caller.process = known->process;
  return caller;
}

}  // namespace hatchery::cache
