#include "bench/figures.h"

#include <numeric>

#include "base/bytes.h"
#include "base/files.h"
#include "bench/environment.h"
#include "bench/host.h"
#include "bench/measure.h"
#include "hypervisor/qemu/proc.h"

namespace hatchery::bench::old {

namespace {

using Say = std::function<void(const std::string&)>;

// Issue 2's figures.
constexpr Target kAcquire = {Target::Of::kRatio, Target::Is::kAtLeast, 300};
constexpr Target kPrivateMemory = {Target::Of::kRatio, Target::Is::kAtMost, 0.10};
constexpr Target kCloneLoaded = {Target::Of::kRatio, Target::Is::kAtMost, 1.5};
constexpr double kPoolBytes = 2.0 * (1u << 30);  // of kPoolOf VMs
constexpr std::uint32_t kPoolOf = 50;

struct Acquires {  // seconds, one entry per acquire
  std::vector<double> acquire;
  std::vector<double> inside;       // the daemon's own count of the whole
  std::vector<double> personalize;  // the daemon's own count of that part
  std::vector<double> resize;       // likewise
  std::vector<double> refill;       // from the reply until another VM was warm in its place
  std::vector<double> first_exec;   // of /bin/true
};

struct Samples {
  std::vector<double> cold, cold_bytes;
  std::vector<double> loaded, bare;
  double fill = 0;
  std::vector<double> warm_bytes;
  std::optional<double> template_bytes;
  Acquires plain, resized;
};

Result<double> PrivateBytes(pid_t pid) {
  ASSIGN_OR_RETURN(const auto stats, hypervisor::qemu::ReadProcessStats(pid));
  return static_cast<double>(stats.private_memory.count());
}

std::vector<Figure> FiguresOf(const Samples& s, const Plan& plan) {
  const auto cold = Summarize(s.cold);
  const auto& bytes = s.warm_bytes;
  const double sum = std::accumulate(bytes.begin(), bytes.end(), 0.0);
  const Target pool_target = {Target::Of::kValue, Target::Is::kAtMost,
                              kPoolBytes * plan.pool / kPoolOf};
  const std::string pool = "pool of " + std::to_string(plan.pool);
  std::vector<Figure> figures = {
      {"acquire", "acquire, no resize", Unit::kSeconds, Summarize(s.plain.acquire),
       Against{"cold boot", cold}, kAcquire},
      {"private_memory", "private memory, warm clone", Unit::kBytes, Summarize(bytes),
       Against{"cold boot", Summarize(s.cold_bytes)}, kPrivateMemory},
      {"clone_loaded", "clone to loaded", Unit::kSeconds, Summarize(s.loaded),
       Against{"bare QEMU to QMP", Summarize(s.bare)}, kCloneLoaded},
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
      {"pool_fill", "filling the " + pool, Unit::kSeconds, Summarize({s.fill})},
      {"pool_fill_each", "  per clone", Unit::kSeconds, Summarize({s.fill / plan.pool})},
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
  Run(const Plan& plan, const Say& say, Host& host)
      : plan_(plan), say_(say), host_(host), served_(host.served()) {}

  Result<Samples> Go() {
    Samples samples;
    RETURN_IF_ERROR(MeasureLocal(samples));
    say_("filling a pool of " + std::to_string(plan_.pool));
    const auto start = SteadyClock::now();
    RETURN_IF_ERROR(Fill());
    samples.fill = SecondsSince(start);
    ASSIGN_OR_RETURN(const auto warm, served_.Warm(host_.base()));
    for (const auto& vm : warm) {
      ASSIGN_OR_RETURN(const double bytes, PrivateBytes(static_cast<pid_t>(vm.pid())));
      samples.warm_bytes.push_back(bytes);
    }
    samples.template_bytes = MemfdBytes(host_.daemon().pid());
    say_("acquiring " + std::to_string(plan_.acquires) + " VMs, and " +
         std::to_string(plan_.resized) + " larger ones, one by one");
    ASSIGN_OR_RETURN(samples.plain, Acquire(host_.base(), plan_.acquires));
    const Sizes larger{host_.base().vcpus + 1, host_.base().memory + Bytes::MiB(256)};
    ASSIGN_OR_RETURN(samples.resized, Acquire(larger, plan_.resized));
    say_("ending the daemon");
    return samples;
  }

 private:
  Result<void> Fill() { return served_.FillPool(host_.base(), plan_.pool); }

  Result<Acquires> Acquire(Sizes sizes, int count) {
    Acquires ignored, times;
    for (int i = 0; i < plan_.warm_ups; ++i) RETURN_IF_ERROR(AcquireOne(sizes, ignored));
    for (int i = 0; i < count; ++i) RETURN_IF_ERROR(AcquireOne(sizes, times));
    return times;
  }

  Result<void> AcquireOne(Sizes sizes, Acquires& times) {
    ASSIGN_OR_RETURN(const auto acquired, served_.Acquire(sizes));
    const auto end = SteadyClock::now();
    times.acquire.push_back(acquired.seconds);
    times.inside.push_back(Seconds(acquired.reply.total()));
    times.personalize.push_back(Seconds(acquired.reply.personalize()));
    times.resize.push_back(Seconds(acquired.reply.resize()));
    RETURN_IF_ERROR(Fill());
    times.refill.push_back(SecondsSince(end));
    ASSIGN_OR_RETURN(const double exec, served_.Exec(acquired.id()));
    times.first_exec.push_back(exec);
    return served_.Release({acquired.reply.vm()});
  }

  Result<void> MeasureLocal(Samples& samples) {
    Local& local = host_.local();
    say_("cold boots: " + std::to_string(plan_.cold_boots));
    for (int i = 0; i < plan_.cold_boots; ++i) {
      const auto start = SteadyClock::now();
      ASSIGN_OR_RETURN(auto booted, host_.Run(local.BootCold()));
      samples.cold.push_back(SecondsSince(start));
      Guest guest(host_, std::move(*booted));
      ASSIGN_OR_RETURN(const double bytes, PrivateBytes(guest.pid()));
      samples.cold_bytes.push_back(bytes);
      RETURN_IF_ERROR(guest.End());
    }
    say_("clones and bare QEMUs, in turn: " + std::to_string(plan_.starts) + " of each");
    for (int i = 0; i <= plan_.starts; ++i) {
      Guest guest(host_);
      ASSIGN_OR_RETURN(const auto clone, host_.Run(local.Clone(guest.machine)));
      RETURN_IF_ERROR(guest.End());
      ASSIGN_OR_RETURN(const auto bare, host_.Run(local.StartBare()));
      if (i == 0) continue;
      samples.loaded.push_back(clone.loaded);
      samples.bare.push_back(bare.answer);
    }
    return {};
  }

  const Plan& plan_;
  const Say& say_;
  Host& host_;
  Served& served_;
};

Result<Report> MeasureBelow(const Plan& plan, cli::Interrupt& interrupt, const Say& say,
                            const fs::path& root) {
  bench::Environment about = DescribeHost();
  const Setup setup{.image_dir = plan.image_dir,
                    .daemon = plan.daemon,
                    .qemu = plan.qemu,
                    .accelerator = plan.accelerator,
                    .interrupt = interrupt,
                    .say = say,
                    .environment = about};
  ASSIGN_OR_RETURN(const auto host, Host::Start(setup, root));
  auto samples = Run(plan, say, *host).Go();
  auto ended = host->End();
  if (!samples) return std::unexpected(samples.error());
  RETURN_IF_ERROR(ended);
  Report report;
  report.environment = {.cpu = about.cpu,
                        .cores = about.cores,
                        .kernel = about.kernel,
                        .accelerator = about.accelerator,
                        .qemu = about.vmm,
                        .load = about.load,
                        .memory_mib = about.memory_mib};
  report.notes = Notes(plan);
  report.figures = FiguresOf(*samples, plan);
  return report;
}

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
  auto report = MeasureBelow(plan, interrupt, say, scratch.path());
  if (interrupt.signal() != 0) return Cancelled("interrupted");
  return report;
}

}  // namespace hatchery::bench::old
