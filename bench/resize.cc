#include <sstream>

#include "bench/benchmark.h"
#include "bench/host.h"

namespace hatchery::bench {

namespace {

// One acquire at a time: the pool is full again before the next.
constexpr std::uint32_t kPool = 1;
// Of the memory that a guest has, its kernel takes a part before it counts the total.
constexpr double kUsable = 0.8;

void Describe(Recorder& r, const ResizePlan& plan) {
  const std::string more = "+" + std::to_string(plan.vcpus) + " vCPU +" + ToString(plan.memory);
  r.Parameter("samples", std::to_string(plan.samples));
  r.Parameter("warm_ups", std::to_string(plan.warm_ups));
  r.Parameter("add_vcpus", std::to_string(plan.vcpus));
  r.Parameter("add_memory", ToString(plan.memory));
  r.Note("in turn: an acquire with " + more +
         " until the guest has them online (its agent confirms; a command in the guest then counts "
         "them), one that does not wait for the guest, the bare device_add of the same, and an "
         "acquire without resize and one of that "
         "shape, each from a pool of its own, made at the same time, in changing order");
  r.Note(
      "the bare device_add: a guest booted cold for it, without a template, that has answered and "
      "run a command; QMP's device_add and object-add until the guest has all of it online");
  r.Note("each acquire on a quiet host: its pool full, no clone being made, no VM being ended");
  r.Declare("acquire", "acquire, no resize");
  r.Declare("acquire.resized", "acquire, " + more + ", until the guest has them online");
  r.Declare("acquire.resized.vmm", "of it: telling QEMU");
  r.Declare("acquire.background", "acquire, " + more + ", without waiting for the guest");
  r.Declare("acquire.background.ready", "then until the guest has them online, from the start");
  r.Declare("device_add", "bare device_add, " + more + ", until the guest has them online");
  r.Declare("acquire.sized", "acquire of that shape from a pool of it");
  r.Promise({.key = "resize",
             .name = "acquire with " + more + ", against the bare device_add",
             .value = {"acquire.resized", Statistic::kP50},
             .against = Number{"device_add", Statistic::kP50},
             .target = Target{Target::Is::kAtMost, 1.0}});
  r.Promise({.key = "resize_background",
             .name = "acquire that does not wait for the guest, against the bare device_add",
             .value = {"acquire.background", Statistic::kP50},
             .against = Number{"device_add", Statistic::kP50}});
  r.Promise({.key = "resize_sized",
             .name = "acquire of the pooled shape, against acquire without resize",
             .value = {"acquire.sized", Statistic::kP50},
             .against = Number{"acquire", Statistic::kP50},
             .target = Target{Target::Is::kAtMost, 1.2}});
}

class Resize {
 public:
  Resize(const ResizePlan& plan, Host& host, Recorder& recorder)
      : plan_(plan), host_(host), served_(host.served()), r_(recorder) {
    larger_ = {host.base().vcpus + plan.vcpus, host.base().memory + plan.memory};
  }

  Result<void> Go() {
    for (int i = 0; i < plan_.warm_ups + plan_.samples; ++i) {
      const int counted = i - plan_.warm_ups;
      r_.set_counting(counted >= 0);
      host_.Say(counted < 0 ? "warm-up " + std::to_string(i + 1)
                            : "round " + std::to_string(counted + 1) + " of " +
                                  std::to_string(plan_.samples));
      const auto resized = Acquire(larger_);
      Add("acquire.resized", resized);
      r_.Add("acquire.resized.vmm", resized ? Result<double>(Seconds(resized->reply.resize()))
                                            : std::unexpected(resized.error()));
      AcquireInBackground();
      r_.Add("device_add", HotAdd());
      AcquirePooled(/*plain_first=*/i % 2 == 0);
      if (host_.interrupted()) return Cancelled("interrupted");
    }
    return {};
  }

 private:
  void Add(const std::string& key, const Result<Served::Acquired>& acquired) {
    r_.Add(key, acquired ? Result<double>(acquired->seconds) : std::unexpected(acquired.error()));
  }

  // One acquire on a quiet host; the VM has what was asked for, and is gone afterwards.
  Result<Served::Acquired> Acquire(Sizes sizes) {
    RETURN_IF_ERROR(served_.FillPool(host_.base(), kPool));
    ASSIGN_OR_RETURN(auto acquired, served_.Acquire(sizes));
    const auto right = Count(acquired.id(), sizes);
    if (auto released = served_.Release({acquired.reply.vm()}); !released) {
      r_.Trouble("releasing a VM", released.error());
    }
    RETURN_IF_ERROR(right);
    return acquired;
  }

  Result<void> Count(const std::string& vm_id, Sizes sizes) {
    ASSIGN_OR_RETURN(
        const auto said,
        served_.Ask(vm_id, {"/bin/sh", "-c", "nproc; awk '/MemTotal/{print $2}' /proc/meminfo"}));
    std::istringstream words(said);
    std::uint32_t vcpus = 0;
    double kib = 0;
    words >> vcpus >> kib;
    if (vcpus == sizes.vcpus && kib * 1024 >= kUsable * static_cast<double>(sizes.memory.count())) {
      return {};
    }
    return Internal("the guest counts " + std::to_string(vcpus) + " vCPUs and " +
                    std::to_string(kib) + " KiB, not what was asked for");
  }

  void AcquireInBackground() {
    auto acquired = [&]() -> Result<Served::InBackground> {
      RETURN_IF_ERROR(served_.FillPool(host_.base(), kPool));
      ASSIGN_OR_RETURN(auto times, served_.AcquireInBackground(larger_));
      const auto right = Count(times.vm.vm_id(), larger_);
      if (auto released = served_.Release({times.vm}); !released) {
        r_.Trouble("releasing a VM", released.error());
      }
      RETURN_IF_ERROR(right);
      return times;
    }();
    if (!acquired) {
      r_.Fail("acquire.background", acquired.error());
      return r_.Fail("acquire.background.ready", acquired.error());
    }
    r_.Add("acquire.background", acquired->replied);
    r_.Add("acquire.background.ready", acquired->ready);
  }

  // One of each shape, from pools that were made at the same time: how long a VM has been idle, and
  // what has run since, shows in how warm the host's caches are for it. While there is a pool of
  // the larger shape, no acquire of it would be resized: it goes again.
  void AcquirePooled(bool plain_first) {
    auto made = served_.RemovePool(host_.base(), kPool);
    if (made) made = served_.FillPool(host_.base(), kPool);
    if (made) made = served_.FillPool(larger_, kPool);
    if (!made) {
      r_.Fail("acquire", made.error());
      return r_.Fail("acquire.sized", made.error());
    }
    if (plain_first) Add("acquire", Acquire(host_.base()));
    Add("acquire.sized", Acquire(larger_));
    if (!plain_first) Add("acquire", Acquire(host_.base()));
    if (auto removed = served_.RemovePool(larger_, kPool); !removed) {
      r_.Trouble("removing the pool of the larger shape", removed.error());
    }
  }

  Result<double> HotAdd() {
    ASSIGN_OR_RETURN(auto booted, host_.Run(host_.local().BootCold()));
    Guest guest(host_, std::move(*booted));
    RETURN_IF_ERROR(host_.Run(host_.local().Exec(guest.machine)));
    ASSIGN_OR_RETURN(const double took,
                     host_.Run(host_.local().HotAdd(guest.machine, plan_.vcpus, plan_.memory)));
    RETURN_IF_ERROR(guest.End());
    return took;
  }

  const ResizePlan& plan_;
  Host& host_;
  Served& served_;
  Recorder& r_;
  Sizes larger_;
};

}  // namespace

Result<Section> MeasureResize(const Setup& setup, const ResizePlan& plan) {
  if (plan.samples < 1) return InvalidArgument("samples", "must be at least 1");
  if (plan.vcpus == 0 && plan.memory == Bytes()) {
    return InvalidArgument("vcpus", "nothing to add: neither vCPUs nor memory");
  }
  Recorder recorder("resize");
  Describe(recorder, plan);
  return OnHost(setup, std::move(recorder),
                [&](Host& host, Recorder& r) { return Resize(plan, host, r).Go(); });
}

}  // namespace hatchery::bench
