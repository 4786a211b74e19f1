#include "bench/benchmark.h"
#include "bench/host.h"

namespace hatchery::bench {

namespace {

void Describe(Recorder& r, const BurstPlan& plan, std::size_t at_once) {
  const std::string size = std::to_string(plan.size);
  const std::string together = std::to_string(at_once) + " at a time";
  r.Parameter("size", size);
  r.Parameter("rounds", std::to_string(plan.rounds));
  r.Parameter("singles", std::to_string(plan.singles));
  r.Note("in each round, in turn: single acquires on the full pool, " + size +
         " acquires at once on the full pool, and " + size + " bare QEMUs started " + together +
         ", as many as the refill makes clones");
  r.Note(
      "the burst counts each call from when all were let go; the refill counts from the last "
      "reply");
  r.Declare("single", "one acquire, the pool full");
  r.Declare("burst", size + " acquires at once, each");
  r.Declare("refill", "last reply until the pool of " + size + " is full again");
  r.Declare("bare_batch", size + " bare QEMUs, " + together);
  r.Promise({.key = "burst",
             .name = "p99 of " + size + " acquires at once, against a single one",
             .value = {"burst", Statistic::kP99},
             .against = Number{"single", Statistic::kP50},
             .target = Target{Target::Is::kAtMost, 8}});
  r.Promise({.key = "refill",
             .name = "refill of " + size + ", against as many bare QEMUs",
             .value = {"refill", Statistic::kP50},
             .against = Number{"bare_batch", Statistic::kP50},
             .target = Target{Target::Is::kAtMost, 2.0}});
}

class Bursts {
 public:
  Bursts(const BurstPlan& plan, std::size_t at_once, Host& host, Recorder& recorder)
      : plan_(plan), at_once_(at_once), host_(host), served_(host.served()), r_(recorder) {}

  Result<void> Go() {
    host_.Say("filling a pool of " + std::to_string(plan_.size));
    // One of each first: nothing has been touched yet.
    r_.set_counting(false);
    Single();
    r_.set_counting(true);
    for (int i = 0; i < plan_.rounds; ++i) {
      host_.Say("round " + std::to_string(i + 1) + " of " + std::to_string(plan_.rounds));
      for (int s = i * plan_.singles / plan_.rounds; s < (i + 1) * plan_.singles / plan_.rounds;
           ++s) {
        Single();
      }
      Burst();
      r_.Add("bare_batch", host_.Run(host_.local().StartBares(plan_.size, at_once_)));
      if (host_.interrupted()) return Cancelled("interrupted");
    }
    return {};
  }

 private:
  Result<void> Fill() { return served_.FillPool(host_.base(), plan_.size); }

  void Release(const std::vector<v1::Vm>& vms) {
    if (auto released = served_.Release(vms); !released) {
      r_.Trouble("releasing VMs", released.error());
    }
  }

  void Single() {
    if (auto full = Fill(); !full) return r_.Fail("single", full.error());
    const auto acquired = served_.Acquire(host_.base());
    if (!acquired) return r_.Fail("single", acquired.error());
    r_.Add("single", acquired->seconds);
    // The VM that takes its place is made before this one ends, so that they do not meet.
    if (auto full = Fill(); !full) r_.Trouble("refilling the pool", full.error());
    Release({acquired->reply.vm()});
  }

  void Burst() {
    if (auto full = Fill(); !full) {
      for (std::uint32_t i = 0; i < plan_.size; ++i) r_.Fail("burst", full.error());
      return r_.Fail("refill", full.error());
    }
    const auto burst = served_.AcquireAtOnce(host_.base(), plan_.size, /*exec=*/false);
    const auto replied = SteadyClock::now();
    auto full = Fill();
    if (full) {
      r_.Add("refill", SecondsSince(replied));
    } else {
      r_.Fail("refill", full.error());
    }
    for (const auto& call : burst.calls) r_.Add("burst", call.acquired);
    Release(burst.vms);
  }

  const BurstPlan& plan_;
  const std::size_t at_once_;
  Host& host_;
  Served& served_;
  Recorder& r_;
};

}  // namespace

Result<Section> MeasureBurst(const Setup& setup, const BurstPlan& plan) {
  if (plan.size < 1) return InvalidArgument("size", "must be at least 1");
  if (plan.rounds < 1) return InvalidArgument("rounds", "must be at least 1");
  const std::size_t at_once = RefillConcurrency();
  Recorder recorder("burst");
  Describe(recorder, plan, at_once);
  return OnHost(setup, std::move(recorder),
                [&](Host& host, Recorder& r) { return Bursts(plan, at_once, host, r).Go(); });
}

}  // namespace hatchery::bench
