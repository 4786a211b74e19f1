// `hatchery image build`: done here, without a daemon.
#include <thread>

#include "base/duration.h"
#include "base/files.h"
#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/local.h"
#include "image/image.h"

namespace hatchery::cli {

namespace {

// Downloading some 30 MB over a slow line is the longest part.
constexpr std::chrono::minutes kBuildTimeout{15};

struct ImageOptions {
  std::string out_dir;
  std::string agent;
  std::string kernel_package = image::BuildOptions().kernel_package;
};

int Build(const Context& context, const ImageOptions& options) {
  const auto limit = context.Limit();
  if (!limit) return context.Fail(limit.error());
  image::BuildOptions build{.out_dir = fs::absolute(options.out_dir).lexically_normal(),
                            .agent = options.agent.empty()
                                         ? ExecutablePath().parent_path() / "hatchery-agent"
                                         : fs::absolute(options.agent),
                            .kernel_package = options.kernel_package};
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  WorkerPool workers(std::max(1u, std::thread::hardware_concurrency()));
  Result<image::GuestImage> built = Internal("not run");
  {
    ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
    auto show = [&progress](std::string line) { progress.Show(std::move(line)); };
    built =
        RunHere(io, context.interrupt,
                image::Build(spawner, workers, build, show, After(limit->value_or(kBuildTimeout))));
  }
  if (!built) return context.Fail(built.error());
  return context.Print(
      Json{{"kernel", built->kernel.string()}, {"initrd", built->initrd.string()}},
      "kernel: " + built->kernel.string() + "\ninitrd: " + built->initrd.string() + "\n");
}

}  // namespace

void AddImageCommands(CLI::App& app, Context& context) {
  CLI::App* image = app.add_subcommand("image", "The default guest: a Debian kernel and the agent");
  image->require_subcommand(0, 1);
  image->footer("Example: hatchery image build -o /var/lib/hatchery/image");

  auto options = std::make_shared<ImageOptions>();
  CLI::App* verb =
      AddVerb(*image, context, "build", "Fetch the kernel and pack the initramfs; needs no daemon",
              "hatchery image build -o /var/lib/hatchery/image",
              [&context, options] { return Build(context, *options); });
  verb->add_option("-o,--output", options->out_dir, "Where kernel and initrd go")
      ->type_name("DIR")
      ->required();
  verb->add_option("--kernel-package", options->kernel_package,
                   "The Debian package of the kernel, or one that depends on it")
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--agent", options->agent,
                   "The static agent, which becomes the guest's /init: hatchery-agent beside this "
                   "program if not given; of another one no more than grpc.Health is needed")
      ->type_name("FILE");
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
