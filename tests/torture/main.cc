// torture: see README.md.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "base/files.h"
#include "tests/torture/endurance.h"
#include "tests/torture/recovery.h"
#include "tests/torture/run.h"
#include "tests/torture/worker.h"

namespace hatchery::torture {
namespace {

struct Arguments {
  RunOptions run;
  WorkerOptions worker;
  std::string vmm = "fake";
  std::string root;
  std::string check;
  std::int64_t seconds = 60;
  unsigned recoveries = 0;
  bool endure = false;
  bool keep = false;
};

// What wins over a command line that somebody else wrote: CTest's.
template <class Number>
void FromEnvironment(const char* name, Number& number) {
  if (const char* const text = std::getenv(name); text != nullptr && *text != '\0') {
    number = static_cast<Number>(std::strtoull(text, nullptr, 10));
  }
}

int Conclude(const std::vector<std::string>& violations) {
  for (const auto& violation : violations) std::printf("VIOLATION %s\n", violation.c_str());
  std::printf(violations.empty() ? "nothing lost, nothing twice, nothing left over\n" : "");
  return violations.empty() ? 0 : 1;
}

int Torture(Arguments arguments) {
  arguments.run.real_vmms = arguments.vmm == "qemu";
  arguments.run.length = std::chrono::seconds(arguments.seconds);
  if (arguments.root.empty()) {
    auto made = TempDir::Create("/tmp", "torture-");
    if (!made) throw std::runtime_error(made.error().message);
    arguments.root = made->Keep();
  }
  arguments.run.root = arguments.root;
  int exit_code = 0;
  if (arguments.recoveries > 0) {
    exit_code = Conclude(MeasureRecovery(arguments.run, arguments.run.pool, arguments.recoveries));
  } else if (arguments.endure) {
    exit_code = Conclude(Endure(arguments.run));
  } else {
    Run run(arguments.run);
    exit_code = Conclude(run.Do());
  }
  if (exit_code == 0 && !arguments.keep) {
    (void)RemoveAll(arguments.root);
  } else {
    std::printf("seed %llu; journals and the daemon's log are in %s\n",
                static_cast<unsigned long long>(arguments.run.seed), arguments.root.c_str());
  }
  return exit_code;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  RunOptions& run = arguments.run;
  arguments.run.seed = std::random_device()();
  if (const char* const dir = std::getenv("HATCHERY_TEST_IMAGE_DIR")) run.image_dir = dir;

  CLI::App app("Kills hatcheryd and all around it, and proves that nothing was lost.", "torture");
  app.add_option("--seed", run.seed, "All decisions come from it; the default is a new one");
  app.add_option("--seconds", arguments.seconds, "How long the mischief goes on");
  app.add_option("--kills", run.kills, "Until the daemon has died so often, instead");
  app.add_option("--clients", run.clients, "Client processes");
  app.add_option("--pool", run.pool, "Warm VMs to keep");
  app.add_option("--vmm", arguments.vmm, "fake: processes that pass for QEMU; qemu: real ones")
      ->check(CLI::IsMember({"fake", "qemu"}));
  app.add_option("--image", run.image_dir, "The guest's folder, for --vmm qemu");
  app.add_option("--dir", arguments.root, "An empty folder to work in; default: a new one in /tmp");
  app.add_option("--recovery", arguments.recoveries,
                 "Only kill the daemon so often, with --pool VMs, half of them leased");
  app.add_flag("--endurance", arguments.endure,
               "No mischief: an open loop of acquires at 80% of the peak, minute by minute");
  app.add_option("--rate", run.rate, "Of acquires per second, for --endurance, instead of that");
  app.add_flag("--keep", arguments.keep, "Keep the journals of a good run, too");
  app.add_option("--drop", run.drop, "A state write that the daemon loses, to see this fail");
  app.add_option("--check", arguments.check, "Only look again at the journals in this folder");
  // Clients are this program, too.
  WorkerOptions& worker = arguments.worker;
  app.add_option("--worker", worker.name)->group("");
  app.add_option("--socket", worker.socket)->group("");
  app.add_option("--journals", worker.journals)->group("");
  app.add_flag("--real-guests", worker.real_guests)->group("");
  CLI11_PARSE(app, argc, argv);

  if (!worker.name.empty()) {
    worker.seed = run.seed;
    return RunWorker(worker);
  }
  FromEnvironment("HATCHERY_TORTURE_SEED", run.seed);
  FromEnvironment("HATCHERY_TORTURE_SECONDS", arguments.seconds);
  if (!arguments.check.empty()) return Conclude(Report(std::filesystem::path(arguments.check)));
  return Torture(std::move(arguments));
}

}  // namespace
}  // namespace hatchery::torture

int main(int argc, char** argv) {
  try {
    return hatchery::torture::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "torture: %s\n", e.what());
    return 2;
  }
}
