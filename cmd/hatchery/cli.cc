#include "cmd/hatchery/cli.h"

#include <algorithm>

#include "base/duration.h"
#include "cmd/hatchery/table.h"

namespace hatchery::cli {

namespace {

// "vm list": the names of the subcommands that were given, from the top.
std::string VerbOf(const CLI::App& app) {
  for (const CLI::App* given : app.get_subcommands()) {
    const std::string rest = VerbOf(*given);
    return rest.empty() ? given->get_name() : given->get_name() + " " + rest;
  }
  return {};
}

int Usage(const Context& context, const std::string& message) {
  context.Complain(message);
  context.io.err << "try `hatchery" << (context.verb.empty() ? "" : " " + context.verb)
                 << " --help`\n";
  return kExitUsage;
}

// Arguments after "--" are a command's own: CLI11 does not get to see them.
std::vector<std::string> TakeCommand(std::vector<std::string>& arguments) {
  const auto mark = std::ranges::find(arguments, "--");
  if (mark == arguments.end()) return {};
  std::vector<std::string> command(mark + 1, arguments.end());
  arguments.erase(mark, arguments.end());
  return command;
}

bool TakesCommand(std::string_view verb) { return verb == "run" || verb == "vm exec"; }

}  // namespace

Result<std::optional<std::chrono::nanoseconds>> Context::Limit() const {
  if (timeout.empty()) return std::nullopt;
  auto limit = ParseDuration(timeout);
  if (!limit) return InvalidArgument("--timeout", limit.error().message);
  return *limit;
}

Result<Client> Context::Connect() const {
  ASSIGN_OR_RETURN(auto target, Where());
  ASSIGN_OR_RETURN(const auto limit, Limit());
  return Client(std::move(target), limit, interrupt);
}

void Context::Complain(std::string_view message) const {
  io.err << "hatchery: " << (verb.empty() ? "" : verb + ": ") << Printable(message) << std::endl;
}

int Context::Fail(const Error& error, int code) const {
  Complain(error.message);
  if (const int signal = interrupt.signal(); signal != 0) return kExitSignalled + signal;
  return error.field.starts_with("--") ? kExitUsage : code;
}

int Context::Print(const Json& json_form, const std::string& text) const {
  if (json) {
    io.out << DumpJson(json_form, 2) << '\n';
  } else {
    io.out << text;
  }
  io.out.flush();
  if (io.out.good()) return kExitOk;
  Complain("could not write the output");
  return kExitFailed;
}

CLI::App* AddVerb(CLI::App& parent, Context& context, const std::string& name,
                  const std::string& description, const std::string& example,
                  std::function<int()> action) {
  CLI::App* verb = parent.add_subcommand(name, description);
  verb->footer("Example: " + example);
  verb->callback([&context, action = std::move(action)] { context.action = action; });
  return verb;
}

void AddJsonFlag(CLI::App* verb, Context& context) {
  verb->add_flag("--json", context.json, "Print JSON, for programs");
}

int RunCli(std::vector<std::string> arguments, const std::string& default_endpoint, const Io& io,
           Interrupt& interrupt, const Clock& clock, const AddCommands& more) {
  Context context{
      .io = io,
      .interrupt = interrupt,
      .clock = clock,
      .arguments = arguments,
      .endpoint = default_endpoint.empty() ? std::string(kDefaultEndpoint) : default_endpoint};
  const bool has_command = std::ranges::find(arguments, "--") != arguments.end();
  context.command = TakeCommand(arguments);

  CLI::App app("Warm virtual machines in milliseconds: the client of hatcheryd.", "hatchery");
  app.fallthrough();
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", "hatchery " HATCHERY_VERSION);
  app.add_option("--endpoint", context.endpoint,
                 "The daemon's socket, unix:///PATH or a path, or tcp://HOST:PORT, which takes the "
                 "three --tls options; also from HATCHERY_ENDPOINT")
      ->type_name("ENDPOINT")
      ->default_str(context.endpoint);
  app.add_option("--tls-ca", context.tls.ca, "Who has signed the daemon's certificate (PEM)")
      ->type_name("FILE")
      ->envname("HATCHERY_TLS_CA");
  app.add_option("--tls-cert", context.tls.certificate, "This client's certificate (PEM)")
      ->type_name("FILE")
      ->envname("HATCHERY_TLS_CERT");
  app.add_option("--tls-key", context.tls.key, "Its key (PEM)")
      ->type_name("FILE")
      ->envname("HATCHERY_TLS_KEY");
  app.add_option("--timeout", context.timeout, "For each call to the daemon, as in 500ms, 10s, 2m")
      ->type_name("DURATION");
  app.footer(
      "--endpoint, --tls-… and --timeout may stand anywhere before --. Every verb has its own "
      "--help.\n"
      "Example: hatchery factory init --pool 4 && hatchery run --memory 512M -- uname -a");
  AddDoctorCommand(app, context);
  AddImageCommands(app, context);
  AddFactoryCommands(app, context);
  AddTemplateCommands(app, context);
  AddPoolCommands(app, context);
  AddVmCommands(app, context);
  AddRunCommand(app, context);
  AddKataCommands(app, context);
  if (more) more(app, context);

  // The edge where CLI11's exceptions become messages.
  try {
    // It takes them last first.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    io.out << app.help() << std::flush;
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    io.out << version.what() << std::endl;
    return kExitOk;
  } catch (const CLI::ParseError& e) {
    context.verb = VerbOf(app);
    const bool forgot_mark = TakesCommand(context.verb) && !has_command;
    return Usage(context,
                 std::string(e.what()) +
                     (forgot_mark ? "; write the command after --, as in -- uname -a" : ""));
  }

  context.verb = VerbOf(app);
  if (!context.action) {
    // "hatchery" alone, or "hatchery vm": what there is to choose from.
    io.err << app.help() << std::flush;
    return kExitUsage;
  }
  if (has_command && !TakesCommand(context.verb)) {
    return Usage(context, "takes no command after --");
  }
  if (TakesCommand(context.verb) && context.command.empty()) {
    return Usage(context, "no command given; write it after --, as in -- uname -a");
  }
  return context.action();
}

}  // namespace hatchery::cli
