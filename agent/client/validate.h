// What every agent client, real or fake, checks before a call and after it. Pure functions.
#pragma once

#include <string_view>

#include "agent/client/client.h"

namespace hatchery::agent {

// kInvalidArgument when the seed has fewer than 32 bytes.
Result<void> ValidateIdentity(const Identity& identity);

// kInvalidArgument: argv names no program, output_limit over 1.5 MiB, or more than 3 MiB in all.
Result<void> ValidateExec(const ExecRequest& request);

// Fail closed: kInternal names the first part that `asked` wanted and `report` does not confirm.
// `asked.seed` is not looked at; reseeding must be confirmed always. Hostname, machine-id and
// boot_id are not missed in the report of a foreign agent.
Result<void> CheckConfirmed(const Identity& asked, const PersonalizeReport& report);

// kUnimplemented: `method` is Hatchery's own, and the agent is foreign.
std::unexpected<Error> NoSuchMethod(std::string_view method);

}  // namespace hatchery::agent
