#include "tests/torture/endurance.h"

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "base/files.h"
#include "bench/load.h"
#include "hypervisor/qemu/proc.h"
#include "tests/torture/client.h"

namespace hatchery::torture {

namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr int kPeakClients = 64;  // more than it can serve at once
constexpr int kPeakCalls = 6000;
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

// `cpu_ms`: what the window cost the daemon.
void PrintWindow(const Site& site, pid_t pid, int minute, bench::Load load, double cpu_ms) {
  const auto calls = static_cast<double>(std::max<std::size_t>(load.samples.size(), 1));
  std::uint64_t failed = 0;
  for (const auto& [why, count] : load.failures) failed += count;
  std::printf("%6d %9zu %7llu %9.2f %9.2f %9.2f %9.2f %7.2f %8ld %5td %5zu\n", minute,
              load.samples.size(), static_cast<unsigned long long>(failed),
              Milliseconds(load.samples, 0.5), Milliseconds(load.samples, 0.99),
              Milliseconds(load.samples, 0.999), Milliseconds(load.samples, 1), cpu_ms / calls,
              Kib(pid, "VmRSS") / 1024, Descriptors(pid), FindVmms(site.state_dir()).size());
  for (const auto& [why, count] : load.failures) {
    std::printf("       %llu times: %s\n", static_cast<unsigned long long>(count), why.c_str());
  }
  std::fflush(stdout);
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
  const double rate = kOfPeak * peak;
  std::printf(
      "%d clients without a pause: %.0f acquires and releases per second; now %.0f, open loop\n",
      kPeakClients, peak, rate);
  std::printf(
      "minute        ok  failed    p50 ms    p99 ms  p99.9 ms    max ms  CPU ms  RSS MiB   fds  "
      "VMMs\n");
  const auto window = std::min<std::chrono::seconds>(kWindow, options.length);
  const int windows = static_cast<int>(options.length / window);
  for (int i = 1; i <= windows; ++i) {
    const auto calls = static_cast<std::size_t>(rate * static_cast<double>(window.count()));
    const double before = CpuMs(site.daemon().pid());
    auto load = bench::RunOpenLoop(
        bench::MakeSendClock(), rate, calls,
        [&](std::size_t, bench::Done done) { Pair::Begin(*cache, under_way, std::move(done)); },
        never);
    PrintWindow(site, site.daemon().pid(), i, std::move(load), CpuMs(site.daemon().pid()) - before);
  }
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
