// `hatchery doctor`: needs no daemon.
#include <algorithm>

#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/doctor.h"
#include "cmd/hatchery/doctor_boot.h"

namespace hatchery::cli {

namespace {

struct DoctorOptions {
  std::string state_dir = "/var/lib/hatchery";
  std::string image_dir;  // empty: image in state_dir
  std::string qemu_binary = "qemu-system-x86_64";
  bool no_boot = false;
};

bool Has(const std::vector<Finding>& findings, std::string_view check, Verdict verdict) {
  return std::ranges::any_of(findings, [&](const Finding& finding) {
    return finding.check == check && finding.verdict == verdict;
  });
}

int Doctor(const Context& context, const DoctorOptions& options) {
  const std::filesystem::path state_dir = std::filesystem::absolute(options.state_dir);
  std::vector<Finding> findings = CheckHost(state_dir, options.qemu_binary);
  if (!options.no_boot && Has(findings, "qemu", Verdict::kOk)) {
    const auto image_dir = options.image_dir.empty() ? state_dir / "image"
                                                     : std::filesystem::absolute(options.image_dir);
    const bool kvm = Has(findings, "kvm_create_vm", Verdict::kOk);
    std::vector<Finding> boots;
    {
      ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
      auto show = [&progress](std::string step) { progress.Show(std::move(step)); };
      boots = CheckBoots(image_dir, options.qemu_binary, kvm, show, context.interrupt);
    }
    if (context.interrupt.signal() != 0) return context.Fail({Code::kCancelled, "interrupted"});
    findings.insert(findings.end(), boots.begin(), boots.end());
  }
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
  verb->add_option("--image-dir", options->image_dir,
                   "The guest image that is booted; image in the state directory if not given")
      ->type_name("DIR");
  verb->add_flag("--no-boot", options->no_boot, "Do not boot a guest: quicker, but proves less");
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
