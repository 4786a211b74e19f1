// `hatchery kata …`: what clients of Kata's VM cache protocol are told.
#include "cmd/hatchery/cli.h"

namespace hatchery::cli {

namespace {

int Config(const Context& context) {
  const auto response =
      context.Ask(&Client::factory, &v1::Factory::Stub::GetKataConfig, v1::GetKataConfigRequest());
  if (!response) return context.Fail(response.error());
  const auto vm_config = ParseJson(response->vm_config(), "the daemon's vm_config");
  if (!vm_config) return context.Fail(vm_config.error());
  const auto agent_config = ParseJson(response->agent_config(), "the daemon's agent_config");
  if (!agent_config) return context.Fail(agent_config.error());

  Json json = {{"vm_config", *vm_config}, {"agent_config", *agent_config}};
  const std::string text = DumpJson(json, 2) + "\n";
  json["contradictions"] = Json::array();
  for (const auto& each : response->contradictions()) {
    json["contradictions"].push_back(each);
    context.Complain(each);
  }
  const int printed = context.Print(json, text);
  return response->contradictions().empty() ? printed : kExitFailed;
}

}  // namespace

void AddKataCommands(CLI::App& app, Context& context) {
  CLI::App* kata = app.add_subcommand("kata", "Kata Containers' VM cache protocol");
  kata->require_subcommand(0, 1);
  kata->footer("Example: hatchery kata config");

  CLI::App* verb =
      AddVerb(*kata, context, "config",
              "Print the configuration that clients are told, and check it: exits with "
              "1 if a field of it is not true of the VMs, and names each",
              "hatchery kata config", [&context] { return Config(context); });
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
