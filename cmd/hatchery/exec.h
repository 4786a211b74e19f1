// Running one command in a VM: what `run` and `vm exec` have in common.
#pragma once

#include <CLI/CLI.hpp>

#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/requests.h"

namespace hatchery::cli {

// --env, --cwd, --timeout and --stdin.
void AddExecOptions(CLI::App* verb, ExecOptions& options);

// All that can be wrong before a VM is touched: the options, and the input, which is read here to
// its end. kResourceExhausted when it is more than kMaxStdin.
Result<v1::ExecRequest> PrepareExec(const Context& context, const ExecOptions& options);

Result<v1::ExecResponse> Exec(Client& client, const v1::ExecRequest& request);

// Writes the command's output as it is, says on stderr what else there is to say, and returns the
// exit code.
int Finish(const Context& context, const v1::ExecRequest& request,
           const v1::ExecResponse& response);

}  // namespace hatchery::cli
