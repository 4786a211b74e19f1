// Makes a clone different from its siblings: Personalize of proto/hatchery/agent/v1/guest.proto.
//
// The files that it writes stay open. A clone is personalised in rehearsal first and then, while
// somebody waits, for its caller; opening five paths anew was most of what the guest did
// then. Loop thread only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/guest/system.h"
#include "base/fd.h"
#include "base/status.h"
#include "hatchery/agent/v1/guest.pb.h"

namespace hatchery::agent::guest {

// A small file that is rewritten in place, as it may be a bind mount. Opened when it is first
// written, and again if somebody has meanwhile put another file in its place.
class KeptFile {
 public:
  explicit KeptFile(std::string_view path) : path_(path) {}
  // Opens it where need be, and changes nothing; returns its size.
  Result<std::int64_t> Open(const GuestSystem& system);
  Result<void> Write(const GuestSystem& system, std::string_view text);
  std::string_view path() const { return path_; }

 private:
  const std::string_view path_;
  UniqueFd fd_;
};

class Personalizer {
 public:
  explicit Personalizer(GuestSystem& system) : system_(system) {}

  // Does ahead of time what the first Apply() would do besides writing: opens the files, with what
  // they hold, and shows a boot id file in place of the kernel's (with the same id). For a guest
  // that is about to be saved as a template, so that its clones need not. What fails here is left
  // to Apply(), which says so.
  void Prepare();

  // Everything but CPUs and memory, in the proto's order. Nothing is done unless the whole request
  // is valid (kInvalidArgument names the field); after that the first part that fails ends it, and
  // its error starts with the part's name ("seed: …").
  Result<v1::PersonalizeResponse> Apply(const v1::PersonalizeRequest& request);

 private:
  Result<void> ShowBootId(std::string_view id);

  GuestSystem& system_;
  KeptFile hostname_{"/etc/hostname"};
  KeptFile machine_id_{"/etc/machine-id"};
  KeptFile boot_id_{"/run/hatchery/boot_id"};
  bool boot_id_shown_ = false;  // in place of the kernel's
};

}  // namespace hatchery::agent::guest
