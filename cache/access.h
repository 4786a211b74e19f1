// Who may do what: the policy. It judges peers that somebody else has identified (cache/rpc/peers.h
// for the unix socket, a verified certificate for TCP) and knows nothing of connections.
//
// A daemon has three lists, one per class of method. A list is entries separated by commas:
//
//   uid:1000  user:alice    that user
//   gid:2000  group:ci      everybody in that group, also as a supplementary one
//   tls:ci-runner           the client whose verified certificate has that name
//   *                       everybody who can connect
//
// Who may administer may also acquire, and who may acquire may also read. root and the daemon's own
// user may do everything, whatever the lists say: they could take its records and VMs anyway.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/process.h"
#include "base/status.h"
#include "cache/caller.h"

namespace hatchery::cache {

// Each includes the ones before it.
enum class MethodClass { kRead, kAcquire, kAdminister };
std::string_view Name(MethodClass what);  // "read", as in the setting

// At the other end of a unix socket, as the kernel says: the credentials of who connected.
struct UnixPeer {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;               // supplementary
  std::optional<ProcessIdentity> process;  // absent: it had ended, or is outside our pid namespace
};
// At the other end of a mutual TLS connection: the name in its certificate, see ValidateTlsName().
struct TlsPeer {
  std::string name;
};
using Peer = std::variant<UnixPeer, TlsPeer>;

// "uid:1000", "tls:ci-runner": whose VMs a peer's are.
std::string TenantOf(const Peer& peer);

// Names of TLS clients become tenants, parts of keys and log fields: 1 to 100 printable ASCII
// characters, none of them '/' or ','. kPermissionDenied says what is wrong.
Result<void> ValidateTlsName(std::string_view name);

// One entry of a list as it is written; names are not looked up yet.
struct AccessEntry {
  enum class Kind { kEverybody, kUid, kGid, kUser, kGroup, kTls };
  Kind kind = Kind::kEverybody;
  std::uint32_t id = 0;  // kUid, kGid
  std::string name;      // kUser, kGroup, kTls
  bool operator==(const AccessEntry&) const = default;
};
// Spaces around entries do not count; an empty list is nobody. kInvalidArgument quotes the entry
// that is none and says what is allowed.
Result<std::vector<AccessEntry>> ParseAccessList(std::string_view text);

// Immutable once made; any thread.
class Access {
 public:
  struct Lists {
    std::string read = "*";
    std::string acquire = "*";
    std::string administer;
  };
  // The lists of a daemon that was told nothing; its own user is who runs this.
  Access();
  // Looks up users and groups, once: a user made later is not known. kInvalidArgument names the
  // setting. `own_uid` is the daemon's.
  static Result<Access> Create(const Lists& lists, uid_t own_uid);

  // On whose behalf `peer` calls, if it may. kPermissionDenied says who it is taken for, what it
  // would need and in which setting.
  Result<Caller> Authorize(const Peer& peer, MethodClass what) const;

 private:
  struct List {
    bool everybody = false;
    std::vector<uid_t> uids;
    std::vector<gid_t> gids;
    std::vector<std::string> tls;
    bool Has(const UnixPeer& peer) const;
    bool Has(const TlsPeer& peer) const;
  };
  static Result<List> Resolve(std::string_view setting, std::string_view text);
  bool May(const Peer& peer, MethodClass what) const;

  uid_t own_uid_ = 0;
  List read_, acquire_, administer_;
};

}  // namespace hatchery::cache
