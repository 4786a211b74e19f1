// The service without VMs, beside an empty call on the same server.
#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cmath>
#include <cstdio>

#include "base/files.h"
#include "bench/benchmark.h"
#include "bench/daemon.h"
#include "bench/rpc_clients.h"
#include "bench/served.h"
#include "bench/statistics.h"

namespace hatchery::bench {

namespace {

// A point is measured in this many rounds, in each of which each kind of call has its turn.
constexpr int kRounds = 10;
constexpr int kWarmUpRounds = 1;
// How often acquires without a pause go through the pool.
constexpr std::uint32_t kTurnovers = 3;

// Issue 3's figures.
constexpr double kLatencyLimit = 1.4;
constexpr double kThroughputLimit = 0.6;
constexpr double kPoolLimit = 1.1;

const char* const kPlotOfLevels = "latency against concurrency";
const char* const kPlotOfPools = "latency against the size of the pool";

std::string Whole(double number) { return std::to_string(std::llround(number)); }

template <class Range>
std::string List(const Range& numbers) {
  std::string text;
  for (const auto number : numbers) {
    text += (text.empty() ? "" : ", ") + Whole(static_cast<double>(number));
  }
  return text;
}

// What is measured at one point. What is acquired between two releases is at most half of the pool,
// which was full before.
struct Point {
  Load empty, acquire, release;  // calls in turn: each client's every other is an acquire
  Load empty_turn, acquire_turn;
  std::vector<double> empty_rates, acquire_rates;  // per second, one of each round
  std::uint64_t warm_up = 0;
};

class RpcBenchmark {
 public:
  RpcBenchmark(const Setup& setup, const RpcPlan& plan)
      : setup_(setup), plan_(plan), stop_([this] { return setup_.interrupt.signal() != 0; }) {}

  Result<Section> Run() {
    section_.benchmark = "rpc";
    RETURN_IF_ERROR(CheckPlan());
    ASSIGN_OR_RETURN(const TempDir dir,
                     TempDir::Create(std::filesystem::temp_directory_path(), "hatchery-bench-"));
    ASSIGN_OR_RETURN(const auto daemon, StartDaemon(dir.path()));
    auto measured = Measure(*daemon, dir.path() / "state" / "hatchery.sock");
    auto ended = daemon->End();
    if (stop_()) return Cancelled("interrupted");
    if (!measured) return std::unexpected(measured.error());
    if (!ended) return std::unexpected(ended.error());
    return std::move(section_);
  }

 private:
  Result<void> CheckPlan() const {
    const bool usable = plan_.calls > 0 && !plan_.concurrency.empty() && !plan_.pools.empty() &&
                        std::ranges::min(plan_.concurrency) > 0 &&
                        std::ranges::min(plan_.pools) > 1;
    if (usable) return {};
    return MakeError(Code::kInvalidArgument,
                     "needs calls, levels of concurrency, and pools of at least 2");
  }

  Result<std::unique_ptr<Daemon>> StartDaemon(const std::filesystem::path& dir) {
    // The fake driver boots nothing, but a template is made of files.
    for (const char* name : {"kernel", "initrd"}) {
      RETURN_IF_ERROR(WriteFileAtomically(dir / name, name));
    }
    DaemonOptions options;
    options.binary = setup_.daemon;
    options.state_dir = dir / "state";
    options.accelerator = "auto";
    options.qemu = setup_.qemu;
    options.arguments = {"--driver-name",           "fake",           "--guest-kernel",
                         (dir / "kernel").string(), "--guest-initrd", (dir / "initrd").string()};
    setup_.environment.accelerator = "fake";
    setup_.environment.vmm = "fake";
    return Daemon::Start(io_, setup_.interrupt, std::move(options));
  }

  Result<void> Measure(Daemon& daemon, const std::filesystem::path& socket) {
    Served served(io_, setup_.interrupt, daemon.client());
    served_ = &served;
    RpcClients clients(socket, std::ranges::max(plan_.concurrency));
    clients_ = &clients;
    ASSIGN_OR_RETURN(const v1::Template made, served.MakeTemplate(sizes_));
    setup_.environment.template_digest = made.digest();
    RETURN_IF_ERROR(MeasureLevels());
    RETURN_IF_ERROR(MeasureRates());
    RETURN_IF_ERROR(MeasurePools());
    Describe();
    return {};
  }

  Result<void> Fill(std::uint32_t size) { return served_->FillPool(sizes_, size); }

  Result<void> CheckGoesOn() const {
    if (stop_()) return Cancelled("interrupted");
    return {};
  }

  Load Closed(int level, int calls, Failure (RpcClients::*call)(int)) {
    return RunClosedLoop(
        level, calls, [&](int client) { return (clients_->*call)(client); }, stop_);
  }

  // Each client makes an empty call and an acquire in turn.
  void Alternate(Point& point, int level, int calls) {
    std::vector<Load> empties(static_cast<std::size_t>(level));
    const Load acquires = RunClosedLoop(
        level, calls, [&](int client) { return clients_->Acquire(client); }, stop_,
        [&](int client) {
          empties[static_cast<std::size_t>(client)].Time([&] { return clients_->Empty(client); });
        });
    for (const auto& empty : empties) point.empty.Add(empty);
    point.acquire.Add(acquires);
  }

  Result<void> ReleaseAll(Point& point, int level, std::uint32_t pool) {
    point.release.Add(Closed(level, static_cast<int>(clients_->held()), &RpcClients::Release));
    return Fill(pool);
  }

  // `rounds` rounds of `calls` each.
  Result<void> MeasureRounds(Point& point, int level, int rounds, int calls, std::uint32_t pool) {
    for (int round = 0; round < rounds; ++round) {
      RETURN_IF_ERROR(CheckGoesOn());
      Alternate(point, level, calls);
      RETURN_IF_ERROR(ReleaseAll(point, level, pool));
      const Load empty = Closed(level, calls, &RpcClients::Empty);
      const Load acquire = Closed(level, calls, &RpcClients::Acquire);
      point.empty_rates.push_back(empty.Rate());
      point.acquire_rates.push_back(acquire.Rate());
      point.empty_turn.Add(empty);
      point.acquire_turn.Add(acquire);
      RETURN_IF_ERROR(ReleaseAll(point, level, pool));
    }
    return {};
  }

  // The warm-up first, which is not counted.
  Result<void> MeasurePoint(Point& point, int level, int calls_in_all, std::uint32_t pool,
                            int most_at_once) {
    const int at_once = std::clamp((calls_in_all + kRounds - 1) / kRounds, 1, most_at_once);
    Point ignored;
    RETURN_IF_ERROR(MeasureRounds(ignored, level, kWarmUpRounds, at_once, pool));
    point.warm_up += static_cast<std::uint64_t>(kWarmUpRounds * at_once);
    return MeasureRounds(point, level, (calls_in_all + at_once - 1) / at_once, at_once, pool);
  }

  // The pool that the levels and rates are measured with: the smallest of which a round takes at
  // most half, else the largest.
  std::uint32_t PoolOfLevels() const {
    auto sizes = plan_.pools;
    std::ranges::sort(sizes);
    const auto wanted = static_cast<std::uint32_t>(2 * (plan_.calls + kRounds - 1) / kRounds);
    const auto found = std::ranges::lower_bound(sizes, wanted);
    return found == sizes.end() ? sizes.back() : *found;
  }

  Result<void> MeasureLevels() {
    const std::uint32_t pool = PoolOfLevels();
    setup_.say("filling a pool of " + std::to_string(pool));
    RETURN_IF_ERROR(Fill(pool));
    for (const int level : plan_.concurrency) {
      setup_.say("closed loop: concurrency " + std::to_string(level));
      Point point;
      RETURN_IF_ERROR(MeasurePoint(point, level, plan_.calls, pool, static_cast<int>(pool / 2)));
      AddPoint(point, ".c" + std::to_string(level), " at concurrency " + std::to_string(level),
               kPlotOfLevels, "clients", level);
    }
    return MeasureSustained(std::ranges::max(plan_.concurrency), pool);
  }

  // Each client acquires and releases without a pause, the pool refilling behind them.
  Result<void> MeasureSustained(int level, std::uint32_t pool) {
    setup_.say("closed loop: acquire and release without a pause");
    Load acquires;
    std::vector<double> rates;
    std::mutex mutex;
    auto cycle = [&](int client) -> Failure {
      const auto start = std::chrono::steady_clock::now();
      const Failure failure = clients_->AcquireOrClone(client);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      {
        const std::lock_guard lock(mutex);
        if (failure.empty()) {
          acquires.samples.push_back(took.count());
        } else {
          ++acquires.failures[failure];
        }
      }
      return clients_->Release(client);
    };
    // So many that the pool cannot serve them without being refilled.
    const int in_all = std::max(plan_.calls, static_cast<int>(kTurnovers * pool));
    const int calls = (in_all + kRounds - 1) / kRounds;
    for (int round = 0; round < kWarmUpRounds + kRounds; ++round) {
      RETURN_IF_ERROR(CheckGoesOn());
      if (round == kWarmUpRounds) acquires = Load(), rates.clear();
      const std::size_t served = acquires.samples.size();
      const Load cycles = RunClosedLoop(level, calls, cycle, stop_);
      rates.push_back(static_cast<double>(acquires.samples.size() - served) / cycles.seconds);
    }
    RETURN_IF_ERROR(Fill(pool));
    const std::string name = " and release without a pause at concurrency " + std::to_string(level);
    AddSeries("acquire.sustained", "acquire, of acquire" + name, Unit::kSeconds,
              std::move(acquires.samples), acquires.failures,
              static_cast<std::uint64_t>(kWarmUpRounds * calls));
    AddSeries("sustained.rate", "acquire" + name, Unit::kPerSecond, rates);
    peak_ = Percentile(rates, 50);
    return {};
  }

  // Open loop, the empty call and acquire in turn.
  Result<void> MeasureRates() {
    auto rates = plan_.rates;
    if (rates.empty()) rates = {std::floor(peak_ / 2), std::floor(peak_ * 0.8)};
    rates_ = rates;
    const SendClock clock = MakeSendClock();
    for (const double rate : rates) {
      if (!(rate > 0)) continue;
      RETURN_IF_ERROR(CheckGoesOn());
      setup_.say("open loop: " + Whole(rate) + " calls per second");
      const auto calls = static_cast<std::size_t>(
          std::max(1.0, rate * std::chrono::duration<double>(plan_.open_loop).count()));
      const auto warm_up = std::max<std::size_t>(1, calls / kRounds);
      auto run = [&](std::size_t count, void (RpcClients::*call)(std::size_t, Done)) {
        auto load = RunOpenLoop(
            clock, rate, count,
            [&](std::size_t i, Done done) { (clients_->*call)(i, std::move(done)); }, stop_);
        (void)clients_->AwaitReleases();
        return load;
      };
      (void)run(warm_up, &RpcClients::StartEmpty);
      (void)run(warm_up, &RpcClients::StartAcquire);
      RETURN_IF_ERROR(Fill(PoolOfLevels()));
      auto empty = run(calls, &RpcClients::StartEmpty);
      auto acquire = run(calls, &RpcClients::StartAcquire);
      RETURN_IF_ERROR(Fill(PoolOfLevels()));
      const std::string suffix = ".rate" + Whole(rate);
      const std::string name = " at " + Whole(rate) + " calls per second";
      AddSeries("empty" + suffix, "empty call" + name, Unit::kSeconds, std::move(empty.samples),
                empty.failures, warm_up);
      AddSeries("acquire" + suffix, "acquire" + name, Unit::kSeconds, std::move(acquire.samples),
                acquire.failures, warm_up);
      AddFigure("open_loop" + suffix, "acquire, open loop" + name + ", p99",
                {"acquire" + suffix, Statistic::kP99}, Number{"empty" + suffix, Statistic::kP99});
    }
    return {};
  }

  // There and back again, so that a host that grows slower or faster meanwhile favours none.
  Result<void> MeasurePools() {
    auto passes = plan_.pools;
    std::ranges::sort(passes);
    const int most_at_once = static_cast<int>(std::max(1u, passes.front() / 2));
    const std::vector<std::uint32_t> back(passes.rbegin(), passes.rend());
    passes.insert(passes.end(), back.begin(), back.end());
    std::map<std::uint32_t, Point> points;
    for (const std::uint32_t pool : passes) {
      setup_.say("a pool of " + std::to_string(pool));
      RETURN_IF_ERROR(Fill(pool));
      RETURN_IF_ERROR(MeasurePoint(points[pool], 1, (plan_.calls + 1) / 2, pool, most_at_once));
    }
    for (auto& [pool, point] : points) {
      AddPoint(point, ".pool" + std::to_string(pool), " with a pool of " + std::to_string(pool),
               kPlotOfPools, "warm VMs", pool);
    }
    return {};
  }

  void AddSeries(std::string key, std::string name, Unit unit, std::vector<double> samples,
                 std::map<std::string, std::uint64_t> failures = {}, std::uint64_t warm_up = 0) {
    section_.series.push_back(
        {std::move(key), std::move(name), unit, std::move(samples), std::move(failures), warm_up});
  }

  void AddFigure(std::string key, std::string name, Number value,
                 std::optional<Number> against = {}, std::optional<Target> target = {}) {
    section_.figures.push_back(
        {std::move(key), std::move(name), std::move(value), std::move(against), false, target});
  }

  void AddToCurve(const std::string& of, const std::string& name, double percent,
                  const std::vector<double>& samples, const char* plot, const std::string& x,
                  double at) {
    const std::string statistic = "p" + Whole(percent);
    const std::string key = of + (plot == kPlotOfLevels ? ".levels." : ".pools.") + statistic;
    auto found = std::ranges::find(section_.curves, key, &Curve::key);
    if (found == section_.curves.end()) {
      found = section_.curves.insert(
          found, {key, name + ", " + statistic, plot, x, "latency", Unit::kSeconds, {}});
    }
    found->points.push_back({at, Percentile(samples, percent)});
  }

  void AddPoint(Point& point, const std::string& suffix, const std::string& name, const char* plot,
                const std::string& x, double at) {
    for (const double percent : {50.0, 99.0}) {
      AddToCurve("empty", "empty call", percent, point.empty.samples, plot, x, at);
      AddToCurve("acquire", "acquire", percent, point.acquire.samples, plot, x, at);
    }
    AddSeries("empty" + suffix, "empty call" + name, Unit::kSeconds, std::move(point.empty.samples),
              point.empty.failures, point.warm_up);
    AddSeries("acquire" + suffix, "acquire" + name, Unit::kSeconds,
              std::move(point.acquire.samples), point.acquire.failures, point.warm_up);
    AddSeries("release" + suffix, "release" + name, Unit::kSeconds,
              std::move(point.release.samples), point.release.failures, point.warm_up);
    AddSeries("empty" + suffix + ".turn", "empty call, one after the other," + name, Unit::kSeconds,
              std::move(point.empty_turn.samples), point.empty_turn.failures, point.warm_up);
    AddSeries("acquire" + suffix + ".turn", "acquire, one after the other," + name, Unit::kSeconds,
              std::move(point.acquire_turn.samples), point.acquire_turn.failures, point.warm_up);
    AddSeries("empty" + suffix + ".rate", "empty calls" + name, Unit::kPerSecond,
              std::move(point.empty_rates));
    AddSeries("acquire" + suffix + ".rate", "acquires" + name, Unit::kPerSecond,
              std::move(point.acquire_rates));
  }

  void Describe() {
    const auto [low, high] = std::ranges::minmax(plan_.concurrency);
    const auto [small, large] = std::ranges::minmax(plan_.pools);
    const std::string at_low = ".c" + std::to_string(low), at_high = ".c" + std::to_string(high);
    using enum Target::Is;
    AddFigure("latency", "acquire, p50 at concurrency " + std::to_string(low), {"acquire" + at_low},
              Number{"empty" + at_low}, Target{kAtMost, kLatencyLimit});
    AddFigure("throughput", "acquires per second at concurrency " + std::to_string(high),
              {"acquire" + at_high + ".rate"}, Number{"empty" + at_high + ".rate"},
              Target{kAtLeast, kThroughputLimit});
    AddFigure("pool_size",
              "acquire, p50 with " + std::to_string(large) + " pooled VMs against " +
                  std::to_string(small),
              {"acquire.pool" + std::to_string(large)},
              Number{"acquire.pool" + std::to_string(small)}, Target{kAtMost, kPoolLimit});
    AddFigure("latency_turn",
              "acquires one after the other, p50 at concurrency " + std::to_string(low),
              {"acquire" + at_low + ".turn"}, Number{"empty" + at_low + ".turn"});
    AddFigure("latency_p99", "acquire, p99 at concurrency " + std::to_string(low),
              {"acquire" + at_low, Statistic::kP99}, Number{"empty" + at_low, Statistic::kP99});
    AddFigure(
        "sustained",
        "acquire and release per second without a pause at concurrency " + std::to_string(high),
        {"sustained.rate"}, Number{"empty" + at_high + ".rate"});
    section_.parameters = {
        {"calls", std::to_string(plan_.calls)},
        {"concurrency", List(plan_.concurrency)},
        {"pools", List(plan_.pools)},
        {"pool of levels and rates", std::to_string(PoolOfLevels())},
        {"rates", List(rates_)},
        {"open loop seconds", std::to_string(plan_.open_loop.count())},
        {"driver", "fake"},
    };
    section_.notes = {
        ("The daemon runs with its fake driver: no VMs, everything else as ever, records in "
         "RocksDB "
         "and the log included, its state directory in TMPDIR or /tmp. The empty call is "
         "grpc.health.v1.Health/Check on the same server."),
        ("Closed loop: each client has a connection and a thread of its own. Latencies are of "
         "calls "
         "in turn: each client's every other call is an acquire, so that both meet the same "
         "machine. "
         "Rates are of calls of one kind: all clients make empty calls, then all acquire "
         "(\"one after the other\": their latencies; a processor that has just done the same is "
         "quicker). VMs are released between, and the pool is full again before the next. At most "
         "half of the pool is taken. The first round is not counted."),
        ("Calls per second are from the first call's start to the last one's end: acquires without "
         "their releases and without the refill, which the service puts off while acquires run. "
         "\"Without a pause\" has all three: each client acquires and releases at once, and the "
         "pool "
         "refills behind them; an acquire that finds it empty is served by a clone of its own."),
        ("Open loop: calls are due at a steady rate, and their latency counts from when they were "
         "due, not from when they were sent. Each VM is released when its acquire is answered."),
        ("Pools of each size are measured with one client, from the smallest to the largest and "
         "back, a turn being half of the smallest pool for all."),
    };
  }

  const Setup& setup_;
  const RpcPlan& plan_;
  const Sizes sizes_{setup_.vcpus, setup_.memory};
  const std::function<bool()> stop_;
  asio::io_context io_;
  Served* served_ = nullptr;
  RpcClients* clients_ = nullptr;
  double peak_ = 0;
  std::vector<double> rates_;
  Section section_;
};

}  // namespace

Result<Section> MeasureRpc(const Setup& setup, const RpcPlan& plan) {
  return RpcBenchmark(setup, plan).Run();
}

}  // namespace hatchery::bench
