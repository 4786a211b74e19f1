// What the template and factory verbs share.
#pragma once

#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/requests.h"

namespace hatchery::cli {

// --kernel to --boot-timeout.
void AddSpecOptions(CLI::App* verb, SpecOptions& options);

// Runs a call of the factory whose stream is nothing but progress, and shows it.
template <class Request, class Response>
Result<void> StreamProgress(const Context& context,
                            std::unique_ptr<grpc::ClientReader<Response>> (
                                v1::Factory::Stub::*method)(grpc::ClientContext*, const Request&),
                            const Request& request) {
  ASSIGN_OR_RETURN(Client client, context.Connect());
  ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
  return client.Stream(client.factory(), method, request, [&](const Response& response) {
    if (response.has_progress()) progress.Show(response.progress());
  });
}

}  // namespace hatchery::cli
