#include "tests/bench/sample_report.h"

#include <algorithm>
#include <boost/random/lognormal_distribution.hpp>
#include <boost/random/mersenne_twister.hpp>
#include <cmath>

namespace hatchery::bench {

namespace {

constexpr double kMs = 1e-3;
constexpr double kMib = 1 << 20;

class Maker {
 public:
  // `median` and a tail: one sample in six is larger by e^spread or more.
  Series Make(std::string key, std::string name, std::size_t count, double median, double spread,
              Unit unit = Unit::kSeconds) {
    boost::random::lognormal_distribution<> tail(0, spread);
    Series series{.key = std::move(key), .name = std::move(name), .unit = unit};
    series.samples.resize(count);
    std::ranges::generate(series.samples, [&] { return median * (0.8 + 0.2 * tail(random_)); });
    return series;
  }

 private:
  boost::random::mt19937_64 random_{42};
};

Target AtMost(double limit) { return {Target::Is::kAtMost, limit}; }
Target AtLeast(double limit) { return {Target::Is::kAtLeast, limit}; }

Section ColdStart(Maker& maker) {
  Section section{.benchmark = "cold-start"};
  section.parameters = {{"samples", "100"}, {"cold-boots", "20"}, {"warm-ups", "2"},
                        {"burst", "20"},    {"vcpus", "1"},       {"memory", "256MiB"}};
  section.notes = {
      "cold boot, clone and acquire in turn, each from a full pool with nothing else going on",
      "time to interactive: from the acquire to the end of the first command",
      "a <b>note</b> that wants escaping & \"quotes\""};
  section.series = {maker.Make("cold_boot", "cold boot to agent", 20, 2.4, 0.2),
                    maker.Make("clone", "clone on demand to agent", 100, 64 * kMs, 0.5),
                    maker.Make("acquire", "acquire from the pool", 100, 2.1 * kMs, 0.8),
                    maker.Make("cold_boot.first_exec", "cold boot to 1st command", 20, 2.5, 0.2),
                    maker.Make("clone.first_exec", "clone to 1st command", 100, 90 * kMs, 0.5),
                    maker.Make("acquire.first_exec", "acquire to 1st command", 100, 9 * kMs, 0.7),
                    maker.Make("acquire.tenth_exec", "acquire to 10th command", 100, 54 * kMs, 0.4),
                    maker.Make("burst.first_exec", "burst of 20, to 1st command", 20, 70 * kMs, 1)};
  section.series[0].warm_up = 1;
  section.series[1].failures = {{"DEADLINE_EXCEEDED: the agent did not answer within 10s", 2}};
  section.series[2].warm_up = 2;
  section.figures = {{.key = "acquire",
                      .name = "acquire against cold boot",
                      .value = {"acquire"},
                      .against = Number{"cold_boot"},
                      .inverse = true,
                      .target = AtLeast(1000)},
                     {.key = "acquire_p99",
                      .name = "acquire against cold boot, p99",
                      .value = {"acquire", Statistic::kP99},
                      .against = Number{"cold_boot"},
                      .inverse = true,
                      .target = AtLeast(300)},
                     {.key = "tti",
                      .name = "time to interactive",
                      .value = {"acquire.first_exec"},
                      .against = Number{"cold_boot.first_exec"},
                      .inverse = true},
                     {.key = "tti_burst",
                      .name = "time to interactive, burst of 20",
                      .value = {"burst.first_exec", Statistic::kP99}}};
  return section;
}

Section Burst(Maker& maker) {
  Section section{.benchmark = "burst"};
  section.parameters = {{"size", "50"}, {"rounds", "3"}, {"singles", "20"}};
  section.notes = {"50 acquires at once on a pool of 50; then until the pool is full again"};
  section.series = {maker.Make("single", "single acquire", 20, 2.2 * kMs, 0.5),
                    maker.Make("burst", "each acquire of the burst", 150, 14 * kMs, 0.7),
                    maker.Make("refill", "refill of 50", 3, 1.9, 0.1),
                    maker.Make("bare", "50 bare spawns", 3, 1.1, 0.1)};
  section.figures = {{.key = "burst",
                      .name = "burst's p99 against a single acquire",
                      .value = {"burst", Statistic::kP99},
                      .against = Number{"single"},
                      .target = AtMost(8)},
                     {.key = "refill",
                      .name = "refill of 50 against bare spawns",
                      .value = {"refill"},
                      .against = Number{"bare"},
                      .target = AtMost(2)}};
  return section;
}

Section Density(Maker& maker) {
  Section section{.benchmark = "density"};
  section.parameters = {{"limit", "2GiB"}, {"max-vms", "100"}, {"step", "10"}};
  section.notes = {"the template's memory is held once and counted once"};
  section.series = {
      maker.Make("private", "private memory, warm clone", 100, 15.8 * kMib, 0.1, Unit::kBytes),
      maker.Make("cold_private", "private memory, cold boot", 3, 204 * kMib, 0.05, Unit::kBytes),
      maker.Make("cpu", "CPU time per clone", 100, 28 * kMs, 0.3)};
  Curve private_bytes{.key = "private_by_count",
                      .name = "warm",
                      .plot = "Private memory, all VMs",
                      .x = "warm VMs",
                      .y = "private memory",
                      .unit = Unit::kBytes};
  Curve used = private_bytes, each = private_bytes, pss = private_bytes;
  used.key = "used_by_count";
  used.name = "after a command";
  each.key = "private_each";
  each.name = "private";
  each.plot = "Memory per VM";
  each.y = "memory per VM";
  pss = each;
  pss.key = "pss_each";
  pss.name = "proportional set size";
  for (int count = 10; count <= 100; count += 10) {
    const double n = count;
    private_bytes.points.push_back({n, n * 15.8 * kMib});
    used.points.push_back({n, n * 19.1 * kMib});
    each.points.push_back({n, (15.8 + 1 / n) * kMib});
    pss.points.push_back({n, (15.9 + 97 / n) * kMib});
  }
  section.curves = {private_bytes, used, each, pss};
  section.figures = {{.key = "private",
                      .name = "private memory of a warm clone",
                      .value = {"private"},
                      .against = Number{"cold_private"},
                      .target = AtMost(0.08)}};
  return section;
}

Section Rpc(Maker& maker) {
  Section section{.benchmark = "rpc"};
  section.parameters = {{"calls", "2000"}, {"concurrency", "1,2,4,8,16,32"}};
  section.notes = {"fake driver: no VMs; Acquire and an empty call in turn on the same server"};
  Curve acquire{.key = "acquire_p50",
                .name = "Acquire, p50",
                .plot = "Latency by concurrency",
                .x = "clients",
                .y = "latency",
                .unit = Unit::kSeconds};
  Curve empty = acquire;
  empty.key = "empty_p50";
  empty.name = "empty call, p50";
  for (const int clients : {1, 2, 4, 8, 16, 32}) {
    const double grows = std::pow(clients, 0.9);
    const auto n = std::to_string(clients);
    section.series.push_back(
        maker.Make("empty.c" + n, "empty call, " + n + " clients", 2000, 0.120 * kMs * grows, 0.6));
    section.series.push_back(
        maker.Make("acquire.c" + n, "Acquire, " + n + " clients", 2000, 0.162 * kMs * grows, 0.7));
    empty.points.push_back({static_cast<double>(clients), 0.120 * kMs * grows});
    acquire.points.push_back({static_cast<double>(clients), 0.162 * kMs * grows});
  }
  section.series.push_back(
      maker.Make("empty.rate", "empty call, calls/s at 32", 5, 29'000, 0.1, Unit::kPerSecond));
  section.series.push_back(
      maker.Make("acquire.rate", "Acquire, calls/s at 32", 5, 19'500, 0.1, Unit::kPerSecond));
  section.curves = {acquire, empty};
  section.figures = {{.key = "rpc",
                      .name = "Acquire against the empty call",
                      .value = {"acquire.c1"},
                      .against = Number{"empty.c1"},
                      .target = AtMost(1.4)},
                     {.key = "throughput",
                      .name = "throughput at 32 clients",
                      .value = {"acquire.rate"},
                      .against = Number{"empty.rate"},
                      .target = AtLeast(0.6)}};
  return section;
}

Section Resize(Maker& maker) {
  Section section{.benchmark = "resize"};
  section.parameters = {{"samples", "20"}, {"vcpus", "1"}, {"memory", "256MiB"}};
  section.series = {maker.Make("resized", "acquire with +1 vCPU, +256 MiB", 20, 0.39, 0.2),
                    maker.Make("bare", "bare device_add, running guest", 20, 0.34, 0.2)};
  section.figures = {{.key = "resize",
                      .name = "resize at acquire against device_add",
                      .value = {"resized"},
                      .against = Number{"bare"},
                      .target = AtMost(1.0)}};
  return section;
}

}  // namespace

Report SampleReport() {
  Maker maker;
  return {.environment = {.time = "2026-01-02T03:04:05Z",
                          .hatchery = "0.1.0",
                          .commit = "0123456789ab",
                          .cpu = "Some CPU @ 2.50GHz",
                          .cores = 2,
                          .memory_mib = 24105,
                          .kernel = "Linux 6.1.0",
                          .virtualization = "kvm",
                          .accelerator = "tcg",
                          .vmm = "QEMU 7.2.22",
                          .template_digest = "sha256:" + std::string(64, 'a'),
                          .load = "0.42 0.31 0.30"},
          .command = "hatchery bench all --image /srv/image",
          .sections = {ColdStart(maker), Burst(maker), Density(maker), Rpc(maker), Resize(maker)}};
}

}  // namespace hatchery::bench
