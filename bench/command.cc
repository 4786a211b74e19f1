#include "bench/command.h"

#include <unistd.h>

#include <memory>
#include <optional>

#include "base/files.h"
#include "bench/compare.h"
#include "bench/environment.h"
#include "bench/html.h"
#include "bench/outcome.h"
#include "bench/plan_options.h"
#include "bench/report_json.h"
#include "bench/table.h"
#include "cmd/hatchery/table.h"
#include "image/image.h"

namespace hatchery::bench {

namespace {

using cli::Context;

struct OutputOptions {
  std::string json, html;
  bool check = false;
};

struct RunOptions {
  std::string image = image::DefaultDir().string();
  std::string daemon = (ExecutablePath().parent_path() / "hatcheryd").string();
  std::string qemu = "qemu-system-x86_64";
  std::string accelerator = "auto";
  std::uint32_t vcpus = 1;
  Bytes memory = Bytes::MiB(256);
  bool quick = false;
  bool quiet = false;
  OutputOptions output;
};

enum class Needs { kGuest, kNoGuest };

// A benchmark with its plan already in it.
struct Job {
  std::string name;
  Needs needs = Needs::kGuest;
  std::function<Result<Section>(const Setup&)> measure;
};

// --- what a report ends in

Result<void> CheckWritable(const std::string& option, const std::string& file) {
  if (file.empty()) return {};
  const fs::path folder = fs::absolute(file).parent_path();
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return InvalidArgument(option, option + ": cannot write in " + folder.string());
  }
  if (fs::is_directory(file)) return InvalidArgument(option, option + ": " + file + " is a folder");
  return {};
}

Result<void> CheckWritable(const OutputOptions& output) {
  RETURN_IF_ERROR(CheckWritable("--json", output.json));
  return CheckWritable("--report", output.html);
}

int Publish(const Context& context, const Report& report, const OutputOptions& output) {
  // First, so that nothing is lost if the files cannot be written.
  int code = context.Print(Json(), RenderTable(report));
  auto write = [&](const std::string& file, auto render) {
    if (file.empty()) return;
    if (const auto written = WriteFileAtomically(fs::absolute(file), render(report)); !written) {
      code = context.Fail(written.error());
    }
  };
  write(output.json, ToJsonText);
  write(output.html, RenderHtml);
  const Tally tally = CountTargets(report);
  if (output.check && !tally.AllMet()) {
    context.Complain(std::to_string(tally.targets - tally.met) + " of " +
                     std::to_string(tally.targets) + " targets missed");
    return cli::kExitFailed;
  }
  return code;
}

// --- measuring

// As one could type it again.
std::string CommandLine(const std::vector<std::string>& arguments) {
  std::string line = "hatchery";
  for (const auto& argument : arguments) {
    const bool plain = !argument.empty() &&
                       argument.find_first_of(" \t\n\"'\\$`*?[]{}()<>|&;#~!") == std::string::npos;
    std::string quoted;
    for (const char c : argument) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += " " + (plain ? argument : "'" + quoted + "'");
  }
  return line;
}

Result<void> CheckInputs(const RunOptions& options, const std::vector<Job>& jobs) {
  RETURN_IF_ERROR(CheckWritable(options.output));
  if (::access(options.daemon.c_str(), X_OK) != 0) {
    return InvalidArgument("--daemon", "there is no hatcheryd at " + options.daemon +
                                           "; say where it is with --daemon");
  }
  const fs::path image = fs::absolute(options.image).lexically_normal();
  for (const Job& job : jobs) {
    if (job.needs == Needs::kGuest && !image::Find(image)) {
      return NotFound("there is no guest image in " + image.string() +
                      "; build it with `hatchery image build -o " + image.string() +
                      "`, or say where one is with --image");
    }
  }
  return {};
}

// What a benchmark has learnt of VMs; that of one without them does not hide it.
void Merge(const Environment& learnt, Environment& environment) {
  auto take = [](const std::string& from, std::string& to) {
    if (to.empty() || to == "fake") to = from.empty() ? to : from;
  };
  take(learnt.accelerator, environment.accelerator);
  take(learnt.vmm, environment.vmm);
  take(learnt.template_digest, environment.template_digest);
}

int Measure(const Context& context, const RunOptions& options, const std::vector<Job>& jobs) {
  if (const auto fine = CheckInputs(options, jobs); !fine) return context.Fail(fine.error());
  // Between two benchmarks, too, an interrupt must not end the process at once.
  const cli::Interrupt::Scope hold(context.interrupt, [] {});
  Report report{.environment = DescribeHost(), .command = CommandLine(context.arguments)};
  std::size_t failed = 0;
  for (const Job& job : jobs) {
    Environment learnt = report.environment;
    learnt.accelerator = learnt.vmm = learnt.template_digest = "";
    auto section = [&] {
      cli::ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
      const Setup setup{.image_dir = fs::absolute(options.image).lexically_normal(),
                        .daemon = fs::absolute(options.daemon),
                        .qemu = options.qemu,
                        .accelerator = options.accelerator,
                        .vcpus = options.vcpus,
                        .memory = options.memory,
                        .interrupt = context.interrupt,
                        .say =
                            [&](const std::string& step) {
                              if (!options.quiet) progress.Show(job.name + ": " + step);
                            },
                        .environment = learnt};
      return job.measure(setup);
    }();
    if (context.interrupt.signal() != 0) {
      return context.Fail(section ? Error{Code::kCancelled, "interrupted"} : section.error());
    }
    Merge(learnt, report.environment);
    if (!section) {
      ++failed;
      context.Complain(job.name + ": " + section.error().message);
      report.sections.push_back(
          {.benchmark = job.name, .notes = {"could not be measured: " + section.error().message}});
    } else {
      report.sections.push_back(*std::move(section));
    }
  }
  if (failed == jobs.size()) return cli::kExitFailed;
  const int code = Publish(context, report, options.output);
  return failed > 0 ? cli::kExitFailed : code;
}

// --- saved reports

Result<Report> Load(const std::string& file) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxReportSize));
  auto report = FromJsonText(text);
  if (!report) return Annotate(report.error(), file);
  return report;
}

int Show(const Context& context, const std::string& file, const OutputOptions& output) {
  if (const auto fine = CheckWritable(output); !fine) return context.Fail(fine.error());
  const auto report = Load(file);
  if (!report) return context.Fail(report.error());
  return Publish(context, *report, output);
}

int CompareFiles(const Context& context, const std::vector<std::string>& files) {
  const auto a = Load(files[0]);
  if (!a) return context.Fail(a.error());
  const auto b = Load(files[1]);
  if (!b) return context.Fail(b.error());
  return context.Print(Json(), "A: " + cli::Printable(files[0]) +
                                   "\nB: " + cli::Printable(files[1]) + "\n\n" +
                                   RenderComparison(Compare(*a, *b)));
}

// --- options

void AddOutputOptions(CLI::App* verb, OutputOptions& output) {
  verb->add_option("--report", output.html, "Also write a page with plots, to open in a browser")
      ->type_name("FILE.html")
      ->group("Output");
  verb->add_flag("--check", output.check, "Exit code 1 if a target is missed")->group("Output");
}

void AddRunOptions(CLI::App* verb, RunOptions& options, Needs needs) {
  verb->add_flag("--quick", options.quick,
                 "The least that does every step: to see that it works, not how fast");
  verb->add_option("--daemon", options.daemon,
                   "hatcheryd to measure; the one beside this program if not given")
      ->type_name("FILE");
  if (needs == Needs::kGuest) {
    verb->add_option("--image", options.image, "Guest image, as `hatchery image build` makes it")
        ->type_name("DIR")
        ->capture_default_str();
    verb->add_option("--qemu", options.qemu, "A path, or a name in PATH")
        ->type_name("FILE")
        ->capture_default_str();
    verb->add_option("--accelerator", options.accelerator, "kvm, tcg or auto")
        ->check(CLI::IsMember({"kvm", "tcg", "auto"}))
        ->type_name("NAME")
        ->capture_default_str();
    verb->add_option("--vcpus", options.vcpus, "Of the template")
        ->check(CLI::Range(1, 1024))
        ->type_name("N")
        ->capture_default_str();
    verb->add_option_function<std::string>(
            "--memory",
            [&options](const std::string& text) {
              const auto size = ParseSize(text);
              if (!size) throw CLI::ValidationError("--memory", size.error().message);
              options.memory = *size;
            },
            "Of the template")
        ->type_name("SIZE")
        ->default_str(OneWord(options.memory));
  }
  verb->add_flag("--quiet", options.quiet, "No progress on stderr")->group("Output");
  verb->add_option("--json", options.output.json,
                   "Also write the report, every sample included (bench/report.schema.json)")
      ->type_name("FILE")
      ->group("Output");
  AddOutputOptions(verb, options.output);
}

template <class Plan>
using Measuring = std::function<Result<Section>(const Setup&, const Plan&)>;

template <class Plan>
Job JobOf(const std::string& name, Needs needs, const Measuring<Plan>& measure, Plan plan) {
  return {name, needs,
          [measure, plan = std::move(plan)](const Setup& setup) { return measure(setup, plan); }};
}

template <class Plan>
void AddBenchmark(CLI::App& bench, Context& context, const std::string& name,
                  const std::string& description, const std::string& more, Needs needs,
                  const Measuring<Plan>& measure) {
  auto options = std::make_shared<RunOptions>();
  auto plan = std::make_shared<PlanOptions<Plan>>();
  CLI::App* verb = AddVerb(bench, context, name, description, "hatchery bench " + name + more,
                           [&context, name, needs, measure, options, plan] {
                             const Plan start = options->quick ? Smallest<Plan>() : Plan();
                             return Measure(context, *options,
                                            {JobOf<Plan>(name, needs, measure, plan->Over(start))});
                           });
  AddOptions(verb, *plan);
  AddRunOptions(verb, *options, needs);
}

void AddAll(CLI::App& bench, Context& context, const Benchmarks& b) {
  auto options = std::make_shared<RunOptions>();
  auto all = [b](auto plan_of) {
    return std::vector<Job> {
      JobOf<ColdStartPlan>("cold-start", Needs::kGuest, b.cold_start,
                           plan_of.template operator()<ColdStartPlan>()),
      JobOf<BurstPlan>("burst", Needs::kGuest, b.burst, plan_of.template operator()<BurstPlan>()),
      JobOf<DensityPlan>("density", Needs::kGuest, b.density,
                         plan_of.template operator()<DensityPlan>()),
      JobOf<RpcPlan>("rpc", Needs::kNoGuest, b.rpc, plan_of.template operator()<RpcPlan>()),
      JobOf<ResizePlan>("resize", Needs::kGuest, b.resize,
                        plan_of.template operator()<ResizePlan>())
    };
  };
  CLI::App* verb = AddVerb(
      bench, context, "all", "All five, one after the other, in one report",
      "hatchery bench all --json all.json --report all.html", [&context, options, all] {
        const bool quick = options->quick;
        return Measure(context, *options,
                       all([quick]<class Plan>() { return quick ? Smallest<Plan>() : Plan(); }));
      });
  AddRunOptions(verb, *options, Needs::kGuest);
}

void AddShow(CLI::App& bench, Context& context) {
  auto file = std::make_shared<std::string>();
  auto output = std::make_shared<OutputOptions>();
  CLI::App* verb = AddVerb(bench, context, "show", "Print a report that was written with --json",
                           "hatchery bench show all.json --report all.html",
                           [&context, file, output] { return Show(context, *file, *output); });
  verb->add_option("file", *file, "The report")->type_name("FILE.json")->required();
  AddOutputOptions(verb, *output);
}

}  // namespace

void AddBenchCommands(CLI::App& app, Context& context, const Benchmarks& benchmarks) {
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure on this host: cold start, bursts, density, the service, resizing");
  bench->require_subcommand(0, 1);
  bench->footer(
      "Each starts a daemon of its own and leaves nothing behind; none touches a daemon that "
      "runs.\n"
      "Example: hatchery bench cold-start --json today.json && "
      "hatchery bench --compare yesterday.json today.json");

  auto files = std::make_shared<std::vector<std::string>>();
  CLI::Option* compare =
      bench->add_option("--compare", *files, "Print how two reports differ, and what is noise")
          ->type_name("A.json B.json")
          ->expected(2);
  bench->callback([bench, compare, &context, files] {
    if (compare->count() == 0) return;
    if (!bench->get_subcommands().empty()) {
      throw CLI::ValidationError("--compare", "stands by itself, without a benchmark");
    }
    context.action = [&context, files] { return CompareFiles(context, *files); };
  });

  AddBenchmark<ColdStartPlan>(
      *bench, context, "cold-start",
      "Cold boot, clone on demand and acquire, in turn: to the agent, to a 1st and a 10th command",
      " --samples 200 --json cold.json", Needs::kGuest, benchmarks.cold_start);
  AddBenchmark<BurstPlan>(*bench, context, "burst",
                          "Many acquires at once, then the time until the pool is full again",
                          " --size 100", Needs::kGuest, benchmarks.burst);
  AddBenchmark<DensityPlan>(
      *bench, context, "density", "Memory and CPU time per warm VM as their number grows",
      " --limit 8G --max-vms 500 --step 50", Needs::kGuest, benchmarks.density);
  AddBenchmark<RpcPlan>(*bench, context, "rpc",
                        "The service without VMs, beside an empty call on the same server",
                        " --concurrency 1,8,64 --report rpc.html", Needs::kNoGuest, benchmarks.rpc);
  AddBenchmark<ResizePlan>(*bench, context, "resize",
                           "Acquire with more vCPUs and memory, beside a bare device_add",
                           " --add-vcpus 3 --add-memory 1G", Needs::kGuest, benchmarks.resize);
  AddAll(*bench, context, benchmarks);
  AddShow(*bench, context);
}

}  // namespace hatchery::bench
