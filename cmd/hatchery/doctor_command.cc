// `hatchery doctor`: needs no daemon.
#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/doctor.h"

namespace hatchery::cli {

namespace {

struct DoctorOptions {
  std::string state_dir = "/var/lib/hatchery";
  std::string qemu_binary = "qemu-system-x86_64";
};

int Doctor(const Context& context, const DoctorOptions& options) {
  const auto findings =
      CheckHost(std::filesystem::absolute(options.state_dir), options.qemu_binary);
  const int printed = context.Print(ToJson(findings), ToText(findings));
  return AnyFailed(findings) ? kExitFailed : printed;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb =
      AddVerb(app, context, "doctor", "What this host can do, and what to fix; needs no daemon",
              "hatchery doctor --state-dir /srv/hatchery",
              [&context, options] { return Doctor(context, *options); });
  verb->add_option("--state-dir", options->state_dir, "The daemon's")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_option("--qemu-binary", options->qemu_binary, "A path, or a name in PATH")
      ->type_name("FILE")
      ->capture_default_str();
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
