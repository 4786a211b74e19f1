#include "bench/figures.h"

#include <numeric>

#include "base/bytes.h"
#include "base/files.h"
#include "bench/daemon.h"
#include "bench/environment.h"
#include "bench/local.h"
#include "bench/served.h"
#include "cmd/hatchery/local.h"

namespace hatchery::bench::old {

namespace {

using Say = std::function<void(const std::string&)>;

// Issue 2's figures.
constexpr Target kAcquire = {Target::Of::kRatio, Target::Is::kAtLeast, 300};
constexpr Target kPrivateMemory = {Target::Of::kRatio, Target::Is::kAtMost, 0.10};
constexpr Target kCloneLoaded = {Target::Of::kRatio, Target::Is::kAtMost, 1.5};
constexpr double kPoolBytes = 2.0 * (1u << 30);  // of kPoolOf VMs
constexpr std::uint32_t kPoolOf = 50;

struct Samples {
  Local::ColdBoots cold;
  Local::Starts starts;
  PoolCost pool;
  std::optional<double> template_bytes;
  AcquireTimes plain, resized;
};

std::vector<Figure> FiguresOf(const Samples& s, const Plan& plan) {
  const auto cold = Summarize(s.cold.seconds);
  const auto& bytes = s.pool.private_bytes;
  const double sum = std::accumulate(bytes.begin(), bytes.end(), 0.0);
  const Target pool_target = {Target::Of::kValue, Target::Is::kAtMost,
                              kPoolBytes * plan.pool / kPoolOf};
  const std::string pool = "pool of " + std::to_string(plan.pool);
  std::vector<Figure> figures = {
      {"acquire", "acquire, no resize", Unit::kSeconds, Summarize(s.plain.acquire),
       Against{"cold boot", cold}, kAcquire},
      {"private_memory", "private memory, warm clone", Unit::kBytes, Summarize(bytes),
       Against{"cold boot", Summarize(s.cold.private_bytes)}, kPrivateMemory},
      {"clone_loaded", "clone to loaded", Unit::kSeconds, Summarize(s.starts.clone),
       Against{"bare QEMU to QMP", Summarize(s.starts.bare)}, kCloneLoaded},
      {"pool_memory", "private memory, " + pool, Unit::kBytes, Summarize({sum}), {}, pool_target},
      {"cold_boot", "cold boot to agent answering", Unit::kSeconds, cold},
      {"acquire_inside", "acquire: inside the daemon", Unit::kSeconds, Summarize(s.plain.inside)},
      {"acquire_personalize", "  of it: resume and personalise", Unit::kSeconds,
       Summarize(s.plain.personalize)},
      {"acquire_resized", "acquire, +1 vCPU +256 MiB", Unit::kSeconds,
       Summarize(s.resized.acquire)},
      {"resized_resize", "  of it: telling the VMM", Unit::kSeconds, Summarize(s.resized.resize)},
      {"resized_personalize", "  of it: resume and personalise", Unit::kSeconds,
       Summarize(s.resized.personalize)},
      {"first_exec", "first exec after acquire", Unit::kSeconds, Summarize(s.plain.first_exec)},
      {"refill", "refill: one clone to warm", Unit::kSeconds, Summarize(s.plain.refill)},
      {"pool_fill", "filling the " + pool, Unit::kSeconds, Summarize({s.pool.fill_seconds})},
      {"pool_fill_each", "  per clone", Unit::kSeconds,
       Summarize({s.pool.fill_seconds / plan.pool})},
  };
  if (s.template_bytes) {
    figures.push_back({"template_memory", "template's memory, held once", Unit::kBytes,
                       Summarize({*s.template_bytes})});
  }
  return figures;
}

std::vector<std::string> Notes(const Plan& plan) {
  auto n = [](auto number) { return std::to_string(number); };
  return {
      "VMs of 1 vCPU and 256 MiB; all on the same QEMU and accelerator, in one run",
      "ratios are of medians; percentiles are nearest-rank: below 100 samples, p99 is the maximum",
      "acquires: " + n(plan.acquires) + " (resized: " + n(plan.resized) +
          "), one at a time over the unix socket, each from a full pool with nothing else going "
          "on; " +
          n(plan.warm_ups) + " before each series not counted",
      "cold boots: " + n(plan.cold_boots) + ", none left out; clones and bare QEMUs: " +
          n(plan.starts) + " each, in turn, after one of each that is not counted",
      "private memory: Private_Clean + Private_Dirty of smaps_rollup, pools' VMs warm and paused",
  };
}

class Run {
 public:
  Run(const Plan& plan, cli::Interrupt& interrupt, const Say& say, fs::path root)
      : plan_(plan), interrupt_(interrupt), say_(say), root_(std::move(root)) {}

  Result<Report> Go() {
    const auto image = image::Find(plan_.image_dir);
    if (!image) {
      return NotFound("there is no guest image in " + plan_.image_dir.string() +
                      "; build it with `hatchery image build -o " + plan_.image_dir.string() + "`");
    }
    Report report;
    const bench::Environment host = DescribeHost();
    report.environment = {.cpu = host.cpu,
                          .cores = host.cores,
                          .kernel = host.kernel,
                          .load = host.load,
                          .memory_mib = host.memory_mib};
    report.notes = Notes(plan_);
    say_("starting a daemon");
    ASSIGN_OR_RETURN(auto daemon, Daemon::Start(io_, interrupt_,
                                                {.binary = plan_.daemon,
                                                 .state_dir = root_ / "state",
                                                 .image_dir = plan_.image_dir,
                                                 .accelerator = plan_.accelerator,
                                                 .qemu = plan_.qemu}));
    auto samples = MeasureAll(*daemon, *image, report.environment);
    auto ended = daemon->End();
    if (!samples) return std::unexpected(samples.error());
    RETURN_IF_ERROR(ended);
    report.figures = FiguresOf(*samples, plan_);
    return report;
  }

 private:
  Result<Samples> MeasureAll(Daemon& daemon, const image::GuestImage& image,
                             Environment& environment) {
    Samples samples;
    say_("making a template");
    ASSIGN_OR_RETURN(const v1::Template made, MakeTemplate(daemon.client()));
    environment.accelerator = made.accelerator();
    RETURN_IF_ERROR(MeasureLocal(made, image, environment, samples));
    say_("filling a pool of " + std::to_string(plan_.pool));
    ASSIGN_OR_RETURN(samples.pool, FillPool(daemon.client(), plan_.pool));
    samples.template_bytes = MemfdBytes(daemon.pid());
    say_("acquiring " + std::to_string(plan_.acquires) + " VMs, and " +
         std::to_string(plan_.resized) + " larger ones, one by one");
    v1::AcquireRequest request;
    ASSIGN_OR_RETURN(samples.plain, TimeAcquires(daemon.client(), request, plan_.pool,
                                                 plan_.warm_ups, plan_.acquires));
    request.set_vcpus(made.vcpus() + 1);
    request.set_memory_bytes(made.memory_bytes() + Bytes::MiB(256).count());
    ASSIGN_OR_RETURN(samples.resized, TimeAcquires(daemon.client(), request, plan_.pool,
                                                   plan_.warm_ups, plan_.resized));
    say_("ending the daemon");
    return samples;
  }

  Result<void> MeasureLocal(const v1::Template& made, const image::GuestImage& image,
                            Environment& environment, Samples& samples) {
    LocalOptions options{.root = root_ / "local", .image = image, .qemu = plan_.qemu};
    ASSIGN_OR_RETURN(options.accelerator, hypervisor::ParseAccelerator(made.accelerator()));
    options.shape = {.vcpus = made.vcpus(),
                     .max_vcpus = made.max_vcpus(),
                     .memory = Bytes(made.memory_bytes()),
                     .max_memory = Bytes(made.max_memory_bytes())};
    RETURN_IF_ERROR(MakeDirectories(options.root, 0700));
    Local local(io_, std::move(options));
    ASSIGN_OR_RETURN(environment.qemu, cli::RunHere(io_, interrupt_, local.QemuVersion()));
    say_("cold boots: " + std::to_string(plan_.cold_boots));
    ASSIGN_OR_RETURN(samples.cold, cli::RunHere(io_, interrupt_, local.BootCold(plan_.cold_boots)));
    say_("clones and bare QEMUs, in turn: " + std::to_string(plan_.starts) + " of each");
    const auto folder = root_ / "state" / "templates" / made.digest();
    ASSIGN_OR_RETURN(samples.starts,
                     cli::RunHere(io_, interrupt_, local.StartInTurn(folder, plan_.starts)));
    return {};
  }

  const Plan& plan_;
  cli::Interrupt& interrupt_;
  const Say& say_;
  const fs::path root_;
  asio::io_context io_;
};

}  // namespace

Plan Quick(Plan plan) {
  plan.pool = 4;
  plan.cold_boots = 1;
  plan.starts = 2;
  plan.acquires = 3;
  plan.resized = 1;
  plan.warm_ups = 1;
  return plan;
}

Result<Report> Measure(const Plan& plan, cli::Interrupt& interrupt, const Say& say) {
  // An interrupt between two steps must not leave anything behind either.
  const cli::Interrupt::Scope hold(interrupt, [] {});
  ASSIGN_OR_RETURN(TempDir scratch, TempDir::Create("/tmp", "hatchery-figures-"));
  auto report = Run(plan, interrupt, say, scratch.path()).Go();
  if (interrupt.signal() != 0) return Cancelled("interrupted");
  return report;
}

}  // namespace hatchery::bench::old
