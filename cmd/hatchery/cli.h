// The command line `hatchery`, whole: from its arguments to its exit code. Everything it touches of
// the process (streams, signals, the clock) comes from outside, so that tests run it as users do.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "cmd/hatchery/client.h"
#include "cmd/hatchery/exit_code.h"
#include "cmd/hatchery/interrupt.h"
#include "cmd/hatchery/json_output.h"
#include "cmd/hatchery/progress.h"

namespace hatchery::cli {

struct Io {
  std::ostream& out;
  std::ostream& err;
  int stdin_fd = 0;
  bool err_is_terminal = false;
};

struct Context;
// Adds verbs that are not this library's to know.
using AddCommands = std::function<void(CLI::App& app, Context& context)>;

// Runs one command line (without argv[0]); returns the exit code (exit_code.h). Blocks.
// `default_endpoint` is HATCHERY_ENDPOINT's value, or empty (HATCHERY_TLS_CA and its like are read
// from the environment here); `more` adds verbs behind the others.
int RunCli(std::vector<std::string> arguments, const std::string& default_endpoint, const Io& io,
           Interrupt& interrupt, const Clock& clock = SystemClock(), const AddCommands& more = {});

// What the verbs share. Verbs add their subcommand to the parser; the one that was given leaves
// what is to be done in `action`, which runs after parsing.
struct Context {
  const Io& io;
  Interrupt& interrupt;
  const Clock& clock;

  std::vector<std::string> arguments;  // all of them, as they were given
  std::string endpoint;
  TlsFiles tls;
  std::string timeout;
  bool json = false;                 // of the verbs that have it
  std::vector<std::string> command;  // what stands after "--", untouched
  std::string verb;                  // "vm list"
  std::function<int()> action;

  Result<Client> Connect() const;
  // One short question: context.Ask(&Client::cache, &v1::Cache::Stub::ListVms, request).
  template <class Stub, class Request, class Response>
  Result<Response> Ask(Stub& (Client::*stub)(),
                       grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                    Response*),
                       const Request& request) const {
    ASSIGN_OR_RETURN(Client client, Connect());
    return client.Call((client.*stub)(), method, request, {.timeout = kQueryTimeout});
  }
  // What --endpoint and the --tls options say.
  Result<Target> Where() const { return ParseEndpoint(endpoint, tls); }
  // What --timeout says, if it was given.
  Result<std::optional<std::chrono::nanoseconds>> Limit() const;

  // Prints "hatchery: <verb>: <message>" and returns `code`; that of an interrupt if there was one,
  // and kExitUsage if the error is about an option.
  int Fail(const Error& error, int code = kExitFailed) const;
  void Complain(std::string_view message) const;

  // Prints what a verb has to say: `json` with --json, `text` otherwise.
  int Print(const Json& json_form, const std::string& text) const;
};

// Makes `verb` of `parent` do `action`. Every verb gets a footer with an example.
CLI::App* AddVerb(CLI::App& parent, Context& context, const std::string& name,
                  const std::string& description, const std::string& example,
                  std::function<int()> action);
void AddJsonFlag(CLI::App* verb, Context& context);

void AddWatchCommand(CLI::App& vm, Context& context);
void AddVmCommands(CLI::App& app, Context& context);
void AddRunCommand(CLI::App& app, Context& context);
void AddTemplateCommands(CLI::App& app, Context& context);
void AddFactoryCommands(CLI::App& app, Context& context);
void AddPoolCommands(CLI::App& app, Context& context);
void AddImageCommands(CLI::App& app, Context& context);
void AddKataCommands(CLI::App& app, Context& context);
void AddDoctorCommand(CLI::App& app, Context& context);

}  // namespace hatchery::cli
