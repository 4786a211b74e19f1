// User ids for VMMs: each live VM has one that no other has, so that who breaks out of one VMM is
// nobody to the others and to the host.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/process.h"
#include "base/status.h"

namespace hatchery::hypervisor {

struct UidRange {
  uid_t first = 0, last = 0;
  bool operator==(const UidRange&) const = default;
};

// What `auto` is for root: 65,536 ids at a place that neither people, services nor containers get.
inline constexpr UidRange kDefaultUids = {1'879'048'192, 1'879'113'727};

// "FIRST-LAST", "auto" (kDefaultUids for root, nothing for others) or "none". kInvalidArgument when
// it is none of these or holds uid 0, (uid_t)-1 or the id of an account in `passwd`, which it names
// (the text of /etc/passwd); kPermissionDenied for a range when `we` are not root.
Result<std::optional<UidRange>> ParseUids(std::string_view setting, uid_t we,
                                          std::string_view passwd);

// Whether this process can make others run as these ids: root of a container may lack the
// capabilities, or have no such ids. `id_map` is the text of /proc/self/uid_map or gid_map,
// `status` of /proc/self/status. kFailedPrecondition says what is missing.
Result<void> MayGive(UidRange range, std::string_view id_map, std::string_view status);

// Which ids are taken. Loop thread only.
class UidAllocator {
 public:
  // `start` says where in the range to begin (any number): daemons of one host that use one range
  // are unlikely to meet if each has its own.
  UidAllocator(UidRange range, std::size_t start);

  // One that is free, the longest unused first. kResourceExhausted when all are taken.
  Result<uid_t> Take();
  // It is taken already: by a VM of an earlier daemon. Also of another range.
  void Claim(uid_t uid);
  // Its VM is gone.
  void Free(uid_t uid);
  // Nobody watches its VM any more: it is free when this process has ended.
  void Abandon(uid_t uid, ProcessIdentity process);

  std::size_t taken() const { return taken_.size(); }
  const UidRange& range() const { return range_; }

 private:
  bool IsFree(uid_t uid);

  const UidRange range_;
  uid_t next_;
  std::map<uid_t, std::optional<ProcessIdentity>> taken_;
};

}  // namespace hatchery::hypervisor
