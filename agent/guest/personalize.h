// Makes a clone different from its siblings: Personalize of proto/hatchery/agent/v1/guest.proto.
// Loop thread only.
#pragma once

#include <functional>
#include <string>

#include "agent/guest/onliner.h"
#include "agent/guest/system.h"
#include "base/status.h"
#include "hatchery/agent/v1/guest.pb.h"

namespace hatchery::agent::guest {

// Everything but CPUs and memory, in the proto's order. Nothing is done unless the whole request is
// valid (kInvalidArgument names the field); after that the first part that fails ends it, and its
// error starts with the part's name ("seed: …").
Result<v1::PersonalizeResponse> PersonalizeIdentity(GuestSystem& system,
                                                    const v1::PersonalizeRequest& request);

// Puts a random UUID in place of the kernel's boot id, which a clone shares with its template, and
// returns it. May be repeated.
Result<std::string> RenewBootId(GuestSystem& system);

}  // namespace hatchery::agent::guest
