#include <algorithm>
#include <optional>

#include "bench/benchmark.h"
#include "bench/host.h"

namespace hatchery::bench {

namespace {

// Enough for one acquire at a time: the pool is full again before the next.
constexpr std::uint32_t kPool = 2;
constexpr Sizes kMore = {1, Bytes::MiB(256)};  // of the pre-sized shape, beyond the template's

void DeclareAll(Recorder& r, std::uint32_t burst) {
  const auto with_commands = [&](const std::string& key, const std::string& name,
                                 const std::string& end) {
    r.Declare(key, name + end);
    r.Declare(key + ".first_exec", name + " to 1st command done");
    r.Declare(key + ".tenth_exec", name + " to 10th command done");
  };
  with_commands("cold", "cold boot", " to agent answering");
  with_commands("clone", "clone on demand", " to warm");
  with_commands("acquire", "acquire", " from the pool");
  r.Declare("acquire.inside", "acquire, inside the daemon");
  r.Declare("acquire.personalize", "acquire, resume to confirmation");
  r.Declare("acquire.exec1", "first command after acquire");
  r.Declare("acquire.exec10", "tenth command after acquire");
  r.Declare("acquire.quiet", "acquire, commands after the refill");
  r.Declare("acquire.sized", "acquire of a pooled larger shape");
  r.Declare("clone.loaded", "clone to loaded");
  r.Declare("clone.loaded_cpu", "clone to loaded, CPU time");
  r.Declare("clone.warm_cpu", "clone to warm, CPU time");
  r.Declare("bare", "bare QEMU to QMP answering");
  r.Declare("bare.greeting", "bare QEMU to QMP greeting");
  r.Declare("bare_cpu", "bare QEMU, CPU time");
  if (burst == 0) return;
  const std::string at_once = std::to_string(burst) + " acquires at once";
  r.Declare("burst.acquire", at_once + ", each");
  r.Declare("burst.first_exec", at_once + " to 1st command");
}

void PromiseAll(Recorder& r, std::uint32_t burst) {
  using Is = Target::Is;
  constexpr auto kP50 = Statistic::kP50;
  r.Promise({.key = "acquire_p50",
             .name = "acquire from the pool, faster than cold boot",
             .value = {"acquire", kP50},
             .against = Number{"cold", kP50},
             .inverse = true,
             .target = Target{Is::kAtLeast, 1000}});
  r.Promise({.key = "acquire_p99",
             .name = "acquire from the pool at p99, faster than cold boot",
             .value = {"acquire", Statistic::kP99},
             .against = Number{"cold", kP50},
             .inverse = true,
             .target = Target{Is::kAtLeast, 300}});
  r.Promise(
      {.key = "interactive",
       .name = "time to interactive: acquire to the end of a first command, against cold boot",
       .value = {"acquire.first_exec", kP50},
       .against = Number{"cold.first_exec", kP50},
       .inverse = true});
  r.Promise({.key = "clone_warm",
             .name = "clone on demand to warm, against bare QEMU",
             .value = {"clone", kP50},
             .against = Number{"bare", kP50},
             .target = Target{Is::kAtMost, 2.2}});
  r.Promise({.key = "clone_warm_greeting",
             .name = "clone on demand to warm, against bare QEMU's greeting",
             .value = {"clone", kP50},
             .against = Number{"bare.greeting", kP50}});
  r.Promise({.key = "clone_loaded",
             .name = "clone to loaded, against bare QEMU",
             .value = {"clone.loaded", kP50},
             .against = Number{"bare", kP50},
             .target = Target{Is::kAtMost, 1.5}});
  r.Promise({.key = "clone_cpu",
             .name = "CPU time of a clone until loaded, against bare QEMU",
             .value = {"clone.loaded_cpu", kP50},
             .against = Number{"bare_cpu", kP50},
             .target = Target{Is::kAtMost, 1.3}});
  r.Promise({.key = "first_exec",
             .name = "first command after acquire, against the tenth",
             .value = {"acquire.exec1", kP50},
             .against = Number{"acquire.exec10", kP50},
             .target = Target{Is::kAtMost, 1.5}});
  r.Promise({.key = "acquire_sized",
             .name = "acquire of a pooled larger shape, against acquire",
             .value = {"acquire.sized", kP50},
             .against = Number{"acquire", kP50},
             .target = Target{Is::kAtMost, 1.2}});
  if (burst == 0) return;
  r.Promise({.key = "burst",
             .name = "acquires at once, against one",
             .value = {"burst.acquire", Statistic::kP99},
             .against = Number{"acquire", kP50}});
}

class ColdStart {
 public:
  ColdStart(const ColdStartPlan& plan, Host& host, Recorder& recorder)
      : plan_(plan), host_(host), served_(host.served()), r_(recorder) {
    larger_ = {host.base().vcpus + kMore.vcpus, host.base().memory + kMore.memory};
  }

  Result<void> Go() {
    for (int i = 0; i < plan_.warm_ups; ++i) {
      host_.Say("warm-up " + std::to_string(i + 1) + " of " + std::to_string(plan_.warm_ups));
      r_.set_counting(false);
      RETURN_IF_ERROR(Round());
    }
    r_.set_counting(true);
    for (int i = 0; i < plan_.samples; ++i) {
      host_.Say("round " + std::to_string(i + 1) + " of " + std::to_string(plan_.samples));
      // Spread evenly.
      for (int boots = i * plan_.cold_boots / plan_.samples;
           boots < (i + 1) * plan_.cold_boots / plan_.samples; ++boots) {
        BootCold();
      }
      RETURN_IF_ERROR(Round());
    }
    if (plan_.burst > 0) Burst();
    return {};
  }

 private:
  Result<void> Round() {
    StartBare();
    Clone();
    Acquire("acquire", host_.base(), &ColdStart::CommandsAtOnce);
    Acquire("acquire.quiet", host_.base(), &ColdStart::CommandsInQuiet);
    Acquire("acquire.sized", larger_, nullptr);
    if (host_.interrupted()) return Cancelled("interrupted");
    return {};
  }

  // One attempt failed: so did what would have followed.
  void FailAll(const Error& error, const std::vector<std::string>& keys) {
    for (const auto& key : keys) r_.Fail(key, error);
  }
  void AddCommands(const std::string& key, const Result<Commands>& commands) {
    if (!commands) return FailAll(commands.error(), {key + ".first_exec", key + ".tenth_exec"});
    r_.Add(key + ".first_exec", commands->to_first);
    r_.Add(key + ".tenth_exec", commands->to_tenth);
  }
  Result<Commands> RunTenIn(SteadyClock::time_point start, factory::Machine& machine) {
    return RunTen(start, [&] { return host_.Run(host_.local().Exec(machine)); });
  }
  Result<Commands> RunTenIn(SteadyClock::time_point start, const std::string& vm_id) {
    return RunTen(start, [&] { return served_.Exec(vm_id); });
  }
  void End(Guest& guest) {
    if (auto ended = guest.End(); !ended) r_.Trouble("ending a VM", ended.error());
  }

  void BootCold() {
    const auto start = SteadyClock::now();
    auto booted = host_.Run(host_.local().BootCold());
    if (!booted) {
      return FailAll(booted.error(), {"cold", "cold.first_exec", "cold.tenth_exec"});
    }
    r_.Add("cold", SecondsSince(start));
    Guest guest(host_, std::move(**booted));
    AddCommands("cold", RunTenIn(start, guest.machine));
    End(guest);
  }

  void StartBare() {
    const auto bare = host_.Run(host_.local().StartBare());
    if (!bare) return FailAll(bare.error(), {"bare", "bare.greeting", "bare_cpu"});
    r_.Add("bare", bare->answer);
    r_.Add("bare.greeting", bare->greeting);
    r_.Add("bare_cpu", bare->cpu);
  }

  void Clone() {
    Guest guest(host_);
    const auto start = SteadyClock::now();
    const auto made = host_.Run(host_.local().Clone(guest.machine));
    if (!made) {
      return FailAll(made.error(), {"clone", "clone.first_exec", "clone.tenth_exec", "clone.loaded",
                                    "clone.loaded_cpu", "clone.warm_cpu"});
    }
    r_.Add("clone", made->warm);
    r_.Add("clone.loaded", made->loaded);
    r_.Add("clone.loaded_cpu", made->loaded_cpu);
    r_.Add("clone.warm_cpu", made->warm_cpu);
    const auto assigned = host_.Run(host_.local().Assign(guest.machine));
    AddCommands("clone", assigned ? RunTenIn(start, guest.machine)
                                  : Result<Commands>(std::unexpected(assigned.error())));
    End(guest);
  }

  // Both pools are full and nothing is being made; what was released before has ended.
  Result<void> AwaitQuiet() {
    RETURN_IF_ERROR(served_.FillPool(host_.base(), kPool));
    return served_.FillPool(larger_, kPool);
  }

  // One acquire on a quiet host, then `commands` in the VM, if any.
  void Acquire(const std::string& key, Sizes sizes,
               void (ColdStart::*commands)(SteadyClock::time_point,
                                           const Result<Served::Acquired>&)) {
    auto quiet = AwaitQuiet();
    const auto start = SteadyClock::now();
    const auto acquired = quiet
                              ? served_.Acquire(sizes)
                              : Result<Served::Acquired>(std::unexpected(std::move(quiet).error()));
    r_.Add(key, acquired ? Result<double>(acquired->seconds) : std::unexpected(acquired.error()));
    if (commands != nullptr) (this->*commands)(start, acquired);
    if (!acquired) return;
    if (auto released = served_.Release({acquired->reply.vm()}); !released) {
      r_.Trouble("releasing a VM", released.error());
    }
  }

  // As a caller would: the refill goes on meanwhile.
  void CommandsAtOnce(SteadyClock::time_point start, const Result<Served::Acquired>& acquired) {
    if (!acquired) {
      return FailAll(acquired.error(), {"acquire.first_exec", "acquire.tenth_exec",
                                        "acquire.inside", "acquire.personalize"});
    }
    AddCommands("acquire", RunTenIn(start, acquired->id()));
    r_.Add("acquire.inside", Seconds(acquired->reply.total()));
    r_.Add("acquire.personalize", Seconds(acquired->reply.personalize()));
  }
  // The first against the tenth: both with nothing beside them.
  void CommandsInQuiet(SteadyClock::time_point start, const Result<Served::Acquired>& acquired) {
    auto ran = [&]() -> Result<Commands> {
      if (!acquired) return std::unexpected(acquired.error());
      RETURN_IF_ERROR(AwaitQuiet());
      return RunTenIn(start, acquired->id());
    }();
    if (!ran) return FailAll(ran.error(), {"acquire.exec1", "acquire.exec10"});
    r_.Add("acquire.exec1", ran->first);
    r_.Add("acquire.exec10", ran->tenth);
  }

  void Burst() {
    host_.Say("a burst of " + std::to_string(plan_.burst));
    if (auto full = served_.FillPool(host_.base(), plan_.burst); !full) {
      for (std::uint32_t i = 0; i < plan_.burst; ++i) {
        FailAll(full.error(), {"burst.acquire", "burst.first_exec"});
      }
      return;
    }
    const auto burst = served_.AcquireAtOnce(host_.base(), plan_.burst, /*exec=*/true);
    for (const auto& call : burst.calls) {
      r_.Add("burst.acquire", call.acquired);
      r_.Add("burst.first_exec", call.first_exec);
    }
    if (auto released = served_.Release(burst.vms); !released) {
      r_.Trouble("releasing a burst's VMs", released.error());
    }
  }

  const ColdStartPlan& plan_;
  Host& host_;
  Served& served_;
  Recorder& r_;
  Sizes larger_;
};

}  // namespace

Result<Section> MeasureColdStart(const Setup& setup, const ColdStartPlan& plan) {
  if (plan.samples < 1) return InvalidArgument("samples", "must be at least 1");
  Recorder recorder("cold-start");
  recorder.Parameter("samples", std::to_string(plan.samples));
  recorder.Parameter("cold_boots", std::to_string(plan.cold_boots));
  recorder.Parameter("warm_ups", std::to_string(plan.warm_ups));
  recorder.Parameter("burst", std::to_string(plan.burst));
  recorder.Note(
      "rounds of one bare QEMU, one clone on demand and one acquire of each kind, cold boots "
      "spread "
      "evenly among them, so that all see the same host; rounds before that are not counted");
  recorder.Note(
      "each acquire on a quiet host: its pool full, no clone being made, no VM being ended; timed "
      "at the client, over the unix socket");
  recorder.Note(
      "commands are /bin/true. \"To the end of a command\" counts from the start, the VM's refill "
      "going on beside it as for any caller; the first command against the tenth is taken once "
      "the pool is full again");
  recorder.Note(
      "a clone on demand is what the daemon makes for an acquire that finds its pool empty; cold "
      "boots, clones and their commands without a daemon in between");
  recorder.Note(
      "a clone's CPU time is its VMM's own; forking it costs the zygote some more (docs/adr/0007). "
      "Bare QEMUs are started as any other program");
  recorder.Note("the burst counts each call from when all were let go");
  DeclareAll(recorder, plan.burst);
  PromiseAll(recorder, plan.burst);
  return OnHost(setup, std::move(recorder),
                [&](Host& host, Recorder& r) { return ColdStart(plan, host, r).Go(); });
}

}  // namespace hatchery::bench
