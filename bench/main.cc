// hatchery-figures: measures what issue 2 promises, side by side on this host, and prints a table.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "base/files.h"
#include "bench/figures.h"
#include "cmd/hatchery/exit_code.h"

namespace {

using namespace hatchery;

struct Options {
  bench::old::Plan plan;
  std::string show, json;
  bool check = false;
};

int Fail(const Error& error, int code = cli::kExitFailed) {
  std::cerr << "hatchery-figures: " << error.message << std::endl;
  return code;
}

int Verdict(const bench::old::Report& report, const Options& options) {
  return options.check && !report.AllMet() ? cli::kExitFailed : cli::kExitOk;
}

int Show(const Options& options) {
  const auto text = ReadFile(options.show);
  if (!text) return Fail(text.error());
  const auto report = bench::old::FromJsonText(*text);
  if (!report) return Fail({report.error().code, options.show + ": " + report.error().message});
  std::cout << bench::old::Render(*report) << std::flush;
  return Verdict(*report, options);
}

int MeasureAndTell(const Options& options, cli::Interrupt& interrupt) {
  const auto report = bench::old::Measure(options.plan, interrupt, [](const std::string& step) {
    std::cerr << "hatchery-figures: " << step << std::endl;
  });
  if (!report) {
    const int signal = interrupt.signal();
    return Fail(report.error(), signal != 0 ? cli::kExitSignalled + signal : cli::kExitFailed);
  }
  if (options.json.empty()) {
    std::cout << bench::old::Render(*report) << std::flush;
  } else if (auto kept = WriteFileAtomically(options.json, bench::old::ToJsonText(*report));
             !kept) {
    return Fail(kept.error());
  }
  return Verdict(*report, options);
}

int Main(int argc, char** argv, cli::Interrupt& interrupt) {
  Options options;
  std::string image, daemon = (ExecutablePath().parent_path() / "hatcheryd").string();
  bool quick = false;
  bench::old::Plan& plan = options.plan;
  CLI::App app(
      "Measures Hatchery on this host: acquire against cold boot, a warm clone's memory, a "
      "clone's start\nagainst QEMU's own, a pool's memory. Exit code 0 also where a target "
      "is missed, unless --check.",
      "hatchery-figures");
  auto* show = app.add_option("--show", options.show, "Print the table of FILE; measure nothing")
                   ->type_name("FILE");
  app.add_option("--image", image, "Guest image to measure with (hatchery image build -o DIR)")
      ->type_name("DIR")
      ->excludes(show);
  app.add_option("--json", options.json, "Write the figures to FILE instead of printing a table")
      ->type_name("FILE")
      ->excludes(show);
  app.add_flag("--quick", quick, "Few samples and a pool of 4: to see that it works");
  app.add_flag("--check", options.check, "Exit code 1 if a target is missed");
  app.add_option("--accelerator", plan.accelerator, "kvm, tcg or auto")
      ->check(CLI::IsMember({"kvm", "tcg", "auto"}))
      ->capture_default_str();
  app.add_option("--qemu", plan.qemu, "QEMU's path or name")->capture_default_str();
  app.add_option("--daemon", daemon, "hatcheryd's path")->capture_default_str();
  auto* acquires = app.add_option("--samples", plan.acquires, "Acquires to measure")
                       ->check(CLI::Range(1, 10000))
                       ->capture_default_str();
  auto* pool = app.add_option("--pool", plan.pool, "Warm VMs to keep")
                   ->check(CLI::Range(1, 1000))
                   ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? cli::kExitOk : cli::kExitUsage;
  }
  if (!options.show.empty()) return Show(options);
  if (image.empty()) {
    return Fail({Code::kInvalidArgument, "--image DIR is missing (or --show FILE)"},
                cli::kExitUsage);
  }
  if (quick) {
    const bench::old::Plan asked = plan;
    plan = bench::old::Quick(plan);
    if (acquires->count() > 0) plan.acquires = asked.acquires;
    if (pool->count() > 0) plan.pool = asked.pool;
  }
  plan.image_dir = fs::absolute(image).lexically_normal();
  plan.daemon = fs::absolute(daemon);
  return MeasureAndTell(options, interrupt);
}

}  // namespace

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  // gRPC reports connection trouble on stderr by itself; the errors printed here say it better.
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  cli::Interrupt interrupt;
  const cli::SignalWatcher watcher(interrupt);
  try {
    return Main(argc, argv, interrupt);
  } catch (const std::exception& e) {
    std::cerr << "hatchery-figures: a bug, please report it: " << e.what() << std::endl;
    return cli::kExitFailed;
  }
}
