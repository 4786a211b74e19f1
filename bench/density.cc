#include <algorithm>
#include <numeric>

#include "bench/benchmark.h"
#include "bench/host.h"
#include "hypervisor/qemu/proc.h"

namespace hatchery::bench {

namespace {

// Over which the CPU time of idle VMs is taken.
constexpr auto kIdle = std::chrono::milliseconds(500);
// What a pool of so many VMs may take of private memory.
constexpr double kPoolOf = 50;
constexpr double kPoolBytes = 2.0 * (1u << 30);

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}
double Mean(const std::vector<double>& values) {
  return values.empty() ? 0 : Sum(values) / static_cast<double>(values.size());
}

// What some VMs cost at one moment, of each one that could be read.
struct Cost {
  std::vector<double> private_bytes, proportional_bytes;
  std::vector<double> cpu;   // seconds since its start
  std::vector<double> idle;  // CPU seconds per second, doing nothing
  std::vector<Error> failures;
};

// One of the two kinds of VM whose number grows: its series and curves.
class Kind {
 public:
  Kind(std::string key, std::string name) : key_(std::move(key)), name_(std::move(name)) {}

  void Declare(Recorder& r) const {
    r.Declare(key_ + ".private", name_ + ": private memory of each", Unit::kBytes);
    r.Declare(key_ + ".pss", name_ + ": proportional set size of each", Unit::kBytes);
    r.Declare(key_ + ".cpu", name_ + ": CPU time of each since its start");
    r.Declare(key_ + ".cpu_idle", name_ + ": CPU seconds per idle second of each");
  }

  // `count` of them cost this; the last one's samples become the series.
  void Grow(double count, Cost cost) {
    Point(private_, count, Mean(cost.private_bytes));
    Point(pss_, count, Mean(cost.proportional_bytes));
    Point(cpu_, count, Mean(cost.cpu));
    Point(idle_, count, Mean(cost.idle));
    Point(total_, count, Sum(cost.private_bytes));
    last_ = std::move(cost);
  }

  // How many there are to be next.
  std::uint32_t Next(const DensityPlan& plan) const {
    return NextCount(static_cast<std::uint32_t>(Count()), plan.step, plan.max_vms,
                     Sum(last_.private_bytes), static_cast<double>(plan.limit.count()));
  }

  double Count() const { return static_cast<double>(last_.private_bytes.size()); }

  void Record(Recorder& r) const {
    for (const double bytes : last_.private_bytes) r.Add(key_ + ".private", bytes);
    for (const double bytes : last_.proportional_bytes) r.Add(key_ + ".pss", bytes);
    for (const double seconds : last_.cpu) r.Add(key_ + ".cpu", seconds);
    for (const double share : last_.idle) r.Add(key_ + ".cpu_idle", share);
    for (const auto& error : last_.failures) r.Fail(key_ + ".private", error);
    const auto plot = [&](const char* key, const char* title, const char* y, Unit unit,
                          const std::vector<Curve::Point>& points) {
      r.Plot({.key = key_ + key,
              .name = name_,
              .plot = title,
              .x = "VMs",
              .y = y,
              .unit = unit,
              .points = points});
    };
    plot(".private", "Private memory per VM", "private memory per VM", Unit::kBytes, private_);
    plot(".pss", "Proportional set size per VM", "PSS per VM", Unit::kBytes, pss_);
    plot(".total", "Private memory of all VMs", "private memory", Unit::kBytes, total_);
    plot(".cpu", "CPU time per VM since its start", "CPU time per VM", Unit::kSeconds, cpu_);
    plot(".cpu_idle", "CPU time per idle VM and second", "CPU seconds per second", Unit::kSeconds,
         idle_);
  }

 private:
  static void Point(std::vector<Curve::Point>& points, double x, double y) {
    points.push_back({x, y});
  }

  const std::string key_, name_;
  std::vector<Curve::Point> private_, pss_, cpu_, idle_, total_;
  Cost last_;
};

class Density {
 public:
  Density(const DensityPlan& plan, Host& host, Recorder& recorder)
      : plan_(plan), host_(host), served_(host.served()), r_(recorder) {}

  Result<void> Go() {
    warm_.Declare(r_);
    used_.Declare(r_);
    r_.Declare("template", "the template's memory, held once", Unit::kBytes);
    r_.Declare("cold.private", "cold-booted VM of the same shape: private memory", Unit::kBytes);
    r_.Declare("cold.used.private", "cold-booted VM after a command: private memory", Unit::kBytes);
    for (int i = 0; i < plan_.cold_boots; ++i) {
      host_.Say("cold boots: " + std::to_string(i + 1) + " of " + std::to_string(plan_.cold_boots));
      BootCold();
    }
    RETURN_IF_ERROR(GrowWarm());
    const auto bytes = MemfdBytes(host_.daemon().pid());
    r_.Add("template", bytes ? Result<double>(*bytes)
                             : NotFound("the daemon holds no memfd, or it cannot be read"));
    RETURN_IF_ERROR(GrowUsed());
    warm_.Record(r_);
    used_.Record(r_);
    Promise();
    return {};
  }

 private:
  void BootCold() {
    auto booted = host_.Run(host_.local().BootCold());
    if (!booted) {
      r_.Fail("cold.private", booted.error());
      return r_.Fail("cold.used.private", booted.error());
    }
    Guest guest(host_, std::move(**booted));
    r_.Add("cold.private", PrivateBytes(guest.pid()));
    const auto ran = host_.Run(host_.local().Exec(guest.machine));
    r_.Add("cold.used.private",
           ran ? PrivateBytes(guest.pid()) : Result<double>(std::unexpected(ran.error())));
    if (auto ended = guest.End(); !ended) r_.Trouble("ending a VM", ended.error());
  }
  static Result<double> PrivateBytes(pid_t pid) {
    ASSIGN_OR_RETURN(const auto stats, hypervisor::qemu::ReadProcessStats(pid));
    return static_cast<double>(stats.private_memory.count());
  }

  Result<void> GrowWarm() {
    std::uint32_t count = 0;
    for (;;) {
      const auto next = warm_.Next(plan_);
      if (next <= count) break;
      host_.Say("warm VMs: " + std::to_string(next) + " of at most " +
                std::to_string(plan_.max_vms));
      if (auto filled = served_.FillPool(host_.base(), next); !filled) {
        if (host_.interrupted()) return filled;
        r_.Fail("warm.private", filled.error());
        break;
      }
      ASSIGN_OR_RETURN(const auto vms, served_.Warm(host_.base()));
      ASSIGN_OR_RETURN(auto cost, Measure(vms));
      count = next;
      warm_.Grow(count, std::move(cost));
    }
    if (auto removed = served_.RemovePool(host_.base(), count); !removed) {
      r_.Trouble("removing the pool", removed.error());
      RETURN_IF_ERROR(served_.FillPool(host_.base(), 0));
    }
    return {};
  }

  // Out of a pool that holds a step's, so that those for the next are made behind it.
  Result<void> GrowUsed() {
    const std::uint32_t pool = std::clamp(plan_.step, 1u, plan_.max_vms);
    std::vector<v1::Vm> vms;
    for (;;) {
      const auto count = static_cast<std::uint32_t>(vms.size());
      const auto next = used_.Next(plan_);
      if (next <= count) break;
      host_.Say("VMs that ran a command: " + std::to_string(next) + " of at most " +
                std::to_string(plan_.max_vms));
      auto full = served_.FillPool(host_.base(), pool);
      if (full) {
        Use(next - count, vms);
        full = served_.FillPool(host_.base(), pool);
      }
      if (host_.interrupted()) return Cancelled("interrupted");
      if (!full) r_.Fail("used.private", full.error());
      if (!full || vms.size() < next) break;
      ASSIGN_OR_RETURN(auto cost, Measure(vms));
      used_.Grow(next, std::move(cost));
    }
    if (auto released = served_.Release(vms); !released) {
      r_.Trouble("releasing VMs", released.error());
    }
    return {};
  }
  void Use(std::uint32_t count, std::vector<v1::Vm>& vms) {
    const auto acquired = served_.AcquireAtOnce(host_.base(), count, /*exec=*/true);
    for (const auto& call : acquired.calls) {
      if (!call.first_exec) r_.Fail("used.private", call.first_exec.error());
    }
    vms.insert(vms.end(), acquired.vms.begin(), acquired.vms.end());
  }

  Result<Cost> Measure(const std::vector<v1::Vm>& vms) {
    Cost cost;
    std::vector<std::pair<pid_t, double>> before;
    for (const auto& vm : vms) {
      const auto pid = static_cast<pid_t>(vm.pid());
      const auto stats = hypervisor::qemu::ReadProcessStats(pid);
      if (!stats) {
        cost.failures.push_back(stats.error());
        continue;
      }
      cost.private_bytes.push_back(static_cast<double>(stats->private_memory.count()));
      cost.proportional_bytes.push_back(static_cast<double>(stats->proportional.count()));
      if (const auto cpu = CpuSeconds(pid); cpu) {
        cost.cpu.push_back(*cpu);
        before.emplace_back(pid, *cpu);
      }
    }
    const auto start = SteadyClock::now();
    RETURN_IF_ERROR(host_.Run(SleepFor(kIdle)));
    for (const auto& [pid, seconds] : before) {
      const auto cpu = CpuSeconds(pid);
      if (cpu) cost.idle.push_back((*cpu - seconds) / SecondsSince(start));
    }
    return cost;
  }

  void Promise() {
    using Is = Target::Is;
    constexpr auto kP50 = Statistic::kP50;
    r_.Promise({.key = "private_memory",
                .name = "private memory of a warm clone, against a cold-booted VM",
                .value = {"warm.private", kP50},
                .against = Number{"cold.private", kP50},
                .target = Target{Is::kAtMost, 0.08}});
    r_.Promise({.key = "private_memory_used",
                .name = "private memory of a clone that ran a command, against a cold-booted VM",
                .value = {"used.private", kP50},
                .against = Number{"cold.used.private", kP50}});
    const double count = warm_.Count();
    r_.Promise({.key = "pool_memory",
                .name = "private memory of " + std::to_string(static_cast<int>(count)) +
                        " warm VMs (2 GiB for 50)",
                .value = {"warm.private", Statistic::kSum},
                .target = Target{Is::kAtMost, kPoolBytes * count / kPoolOf}});
    r_.Promise({.key = "cpu_idle",
                .name = "CPU seconds per second, all warm VMs together",
                .value = {"warm.cpu_idle", Statistic::kSum}});
  }

  const DensityPlan& plan_;
  Host& host_;
  Served& served_;
  Recorder& r_;
  Kind warm_{"warm", "warm clones"};
  Kind used_{"used", "clones that ran a command"};
};

}  // namespace

Result<Section> MeasureDensity(const Setup& setup, const DensityPlan& plan) {
  if (plan.max_vms < 1) return InvalidArgument("max_vms", "must be at least 1");
  Recorder recorder("density");
  recorder.Parameter("limit", ToString(plan.limit));
  recorder.Parameter("max_vms", std::to_string(plan.max_vms));
  recorder.Parameter("step", std::to_string(plan.step));
  recorder.Parameter("cold_boots", std::to_string(plan.cold_boots));
  recorder.Note(
      "private memory: Private_Clean + Private_Dirty of smaps_rollup; the template, which all "
      "share, "
      "is counted once, by itself; PSS divides it among them");
  recorder.Note(
      "warm clones: as the pool keeps them, paused. Then as many are acquired, from a pool of one "
      "step, and each runs /bin/true; they stay running, the pool's beside them do not count");
  recorder.Note("series are of the largest number of VMs, curves of each step");
  recorder.Note("CPU time of idle VMs: over half a second after each step");
  return OnHost(setup, std::move(recorder),
                [&](Host& host, Recorder& r) { return Density(plan, host, r).Go(); });
}

}  // namespace hatchery::bench
