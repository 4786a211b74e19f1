#include "tests/torture/endurance.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <sstream>
#include <string>

#include "base/files.h"
#include "bench/load.h"
#include "bench/statistics.h"
#include "hypervisor/qemu/proc.h"
#include "tests/torture/client.h"

namespace hatchery::torture {

namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr int kPeakClients = 64;   // more than it can serve at once
constexpr int kPeakCalls = 18000;  // about a minute: hosts are faster and slower by the second
constexpr double kOfPeak = 0.8;
constexpr auto kWindow = std::chrono::minutes(1);

// An acquire whose VM is released as soon as it is there; the latency is the acquire's.
class Pair : public std::enable_shared_from_this<Pair> {
 public:
  static void Begin(api::Cache::Stub& cache, std::atomic<int>& under_way, bench::Done done) {
    auto pair = std::make_shared<Pair>(cache, under_way);
    pair->done_ = std::move(done);
    cache.async()->Acquire(pair->acquiring_.get(), &pair->wanted_, &pair->acquired_,
                           [pair](const grpc::Status& status) { pair->OnAcquired(status); });
  }
  Pair(api::Cache::Stub& cache, std::atomic<int>& under_way)
      : cache_(cache), under_way_(under_way) {
    ++under_way_;
  }
  ~Pair() {
    if (--under_way_ == 0) under_way_.notify_all();
  }

 private:
  void OnAcquired(const grpc::Status& status) {
    done_(status.ok() ? "" : status.error_message());
    if (!status.ok()) return;
    release_.set_vm_id(acquired_.vm().vm_id());
    cache_.async()->Release(releasing_.get(), &release_, &released_,
                            [pair = shared_from_this()](const grpc::Status&) {});
  }

  api::Cache::Stub& cache_;
  std::atomic<int>& under_way_;
  bench::Done done_;
  std::unique_ptr<grpc::ClientContext> acquiring_ = Within(kPatience);
  std::unique_ptr<grpc::ClientContext> releasing_ = Within(2 * kPatience);
  api::AcquireRequest wanted_;
  api::AcquireResponse acquired_;
  api::ReleaseRequest release_;
  api::ReleaseResponse released_;
};

// A line of /proc/PID/status, in KiB.
long Kib(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return std::atol(line.c_str() + name.size() + 1);
  }
  return 0;
}

// User and system, so far, in milliseconds; 0 when it cannot be read.
double CpuMs(pid_t pid) {
  const auto stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  const auto time = stat ? hypervisor::qemu::ParseCpuTime(*stat) : std::unexpected(stat.error());
  return time ? std::chrono::duration<double, std::milli>(*time).count() : 0;
}

// Of what the host's CPUs could have done since it was asked last: how much they did, and how much
// the host's own host gave to others meanwhile.
class HostCpu {
 public:
  struct Shares {
    double busy_percent = 0, stolen_percent = 0;
  };
  Shares SinceLast() {
    const Ticks now = Read();
    const double all = now.all - last_.all;
    const Shares shares{100 * (now.busy - last_.busy) / all,
                        100 * (now.stolen - last_.stolen) / all};
    last_ = now;
    return shares;
  }

 private:
  struct Ticks {
    double all = 0, busy = 0, stolen = 0;
  };
  // The first line of /proc/stat: user nice system idle iowait irq softirq steal, see proc(5).
  static Ticks Read() {
    std::ifstream file("/proc/stat");
    std::string cpu;
    std::array<double, 8> of{};
    file >> cpu;
    for (double& ticks : of) file >> ticks;
    const double all = std::accumulate(of.begin(), of.end(), 0.0);
    return {all, all - of[3] - of[4] - of[7], of[7]};
  }
  Ticks last_ = Read();
};

std::ptrdiff_t Descriptors(pid_t pid) {
  std::error_code error;
  const fs::directory_iterator all("/proc/" + std::to_string(pid) + "/fd", error);
  return std::distance(begin(all), end(all));
}

double Milliseconds(std::vector<double>& samples, double quantile) {
  if (samples.empty()) return 0;
  constexpr double kMs = 1000;
  const auto at = static_cast<std::size_t>(quantile * static_cast<double>(samples.size() - 1));
  std::ranges::nth_element(samples, samples.begin() + static_cast<std::ptrdiff_t>(at));
  return samples[at] * kMs;
}

// What is told of a minute, and compared at the end.
struct Minute {
  double p999_ms = 0;
  long rss_kib = 0;
};

// `cpu_ms`: what the window cost the daemon.
Minute PrintWindow(const Site& site, pid_t pid, int minute, bench::Load load, double cpu_ms,
                   HostCpu::Shares host) {
  const Minute told{Milliseconds(load.samples, 0.999), Kib(pid, "VmRSS")};
  const auto calls = static_cast<double>(std::max<std::size_t>(load.samples.size(), 1));
  std::uint64_t failed = 0;
  for (const auto& [why, count] : load.failures) failed += count;
  std::printf("%6d %9zu %7llu %9.2f %9.2f %9.2f %9.2f %7.2f %7.1f %7.1f %8ld %5td %5zu\n", minute,
              load.samples.size(), static_cast<unsigned long long>(failed),
              Milliseconds(load.samples, 0.5), Milliseconds(load.samples, 0.99), told.p999_ms,
              Milliseconds(load.samples, 1), cpu_ms / calls, host.busy_percent, host.stolen_percent,
              told.rss_kib / 1024, Descriptors(pid), FindVmms(site.state_dir()).size());
  for (const auto& [why, count] : load.failures) {
    std::printf("       %llu times: %s\n", static_cast<unsigned long long>(count), why.c_str());
  }
  std::fflush(stdout);
  return told;
}

// Whether it is flat: the first, second and last third of the minutes beside each other.
void PrintThirds(const std::vector<Minute>& minutes) {
  const std::size_t third = minutes.size() / 3;
  if (third == 0) return;
  std::printf("median of a third of the minutes:  p99.9 ms  RSS MiB\n");
  for (std::size_t i = 0; i < 3; ++i) {
    const auto begin = minutes.begin() + static_cast<std::ptrdiff_t>(i * third);
    const auto end = i == 2 ? minutes.end() : begin + static_cast<std::ptrdiff_t>(third);
    std::vector<double> p999, rss;
    for (auto at = begin; at != end; ++at) {
      p999.push_back(at->p999_ms);
      rss.push_back(static_cast<double>(at->rss_kib) / 1024);
    }
    std::printf("  minutes %3td to %3td               %9.2f %8.1f\n", begin - minutes.begin() + 1,
                end - minutes.begin(), bench::Percentile(p999, 50), bench::Percentile(rss, 50));
  }
}

Result<void> Load(Site& site, const RunOptions& options) {
  if (!site.Start()) return Internal("the daemon does not start: " + site.daemon().said());
  Operator op(site.daemon().socket());
  if (const auto made = op.Init(options.pool, kPatience); !made.ok()) {
    return Internal("init: " + made.error_message());
  }
  const auto cache = api::Cache::NewStub(Connect(site.daemon().socket()));
  std::atomic<int> under_way = 0;
  const auto never = [] { return false; };
  const auto one = [&](int) -> bench::Failure {
    api::AcquireResponse acquired;
    auto status = cache->Acquire(Within(kPatience).get(), {}, &acquired);
    if (!status.ok()) return status.error_message();
    api::ReleaseRequest release;
    release.set_vm_id(acquired.vm().vm_id());
    api::ReleaseResponse released;
    status = cache->Release(Within(kPatience).get(), release, &released);
    return status.ok() ? "" : status.error_message();
  };
  const double peak = bench::RunClosedLoop(kPeakClients, kPeakCalls, one, never).Rate();
  // Else the first minute is that of a pool that is empty.
  if (const auto filled = op.Init(options.pool, kPatience); !filled.ok()) {
    return Internal("init: " + filled.error_message());
  }
  const double rate = options.rate > 0 ? options.rate : kOfPeak * peak;
  std::printf(
      "%d clients without a pause: %.0f acquires and releases per second; now %.0f, open loop\n",
      kPeakClients, peak, rate);
  std::printf(
      "minute        ok  failed    p50 ms    p99 ms  p99.9 ms    max ms  CPU ms  busy %%   steal  "
      "RSS MiB   fds  VMMs\n");
  const auto window = std::min<std::chrono::seconds>(kWindow, options.length);
  const int windows = static_cast<int>(options.length / window);
  HostCpu host;
  std::vector<Minute> minutes;
  for (int i = 1; i <= windows; ++i) {
    const auto calls = static_cast<std::size_t>(rate * static_cast<double>(window.count()));
    const double before = CpuMs(site.daemon().pid());
    auto load = bench::RunOpenLoop(
        bench::MakeSendClock(), rate, calls,
        [&](std::size_t, bench::Done done) { Pair::Begin(*cache, under_way, std::move(done)); },
        never);
    minutes.push_back(PrintWindow(site, site.daemon().pid(), i, std::move(load),
                                  CpuMs(site.daemon().pid()) - before, host.SinceLast()));
  }
  PrintThirds(minutes);
  for (int left = under_way; left > 0; left = under_way) under_way.wait(left);
  if (const auto gone = op.Destroy(kPatience); !gone.ok()) {
    return Internal("destroy: " + gone.error_message());
  }
  (void)site.daemon().Signal(SIGTERM);
  (void)site.daemon().WaitEnd(kPatience);
  ReapOrphans({});
  return site.LookForLeftOvers({}, {});
}

}  // namespace

std::vector<std::string> Endure(const RunOptions& options) {
  AdoptOrphans();
  std::vector<std::string> found;
  {
    Site site(options.root, ExecutablePath().parent_path() / "hatcheryd-torture",
              DaemonFlags(options));
    if (auto loaded = Load(site, options); !loaded) found.push_back(loaded.error().message);
    if (site.daemon().started()) site.daemon().Kill();
    for (const Vmm& vmm : FindVmms(site.state_dir())) ::kill(vmm.process.pid, SIGKILL);
  }
  for (auto& violation : CheckJournals(options.root / "journals", {}).violations()) {
    found.push_back(violation);
  }
  return found;
}

}  // namespace hatchery::torture
