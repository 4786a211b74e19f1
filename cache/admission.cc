#include "cache/admission.h"

#include <algorithm>
#include <set>

#include "base/log.h"

namespace hatchery::cache {

namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Often enough that pools come back soon; each look costs about 0.1 ms.
constexpr auto kLookInterval = std::chrono::seconds(1);
// Before a refusal the host is looked at anew, but not more often than this: who is refused may ask
// again and again.
constexpr auto kFreshEnough = milliseconds(20);
// A round over all VMs takes so many times kLookInterval; longer with more than 500.
constexpr std::size_t kRounds = 10;
constexpr std::size_t kMostAtOnce = 50;
constexpr auto kMeasureTimeout = std::chrono::seconds(5);
// For an evicted VM to be gone: a kill takes milliseconds, also of many.
constexpr auto kEvictTimeout = std::chrono::seconds(2);
// Pools refill when so much of the reserve is free beyond it, and no more than that.
constexpr std::uint64_t kRefillPart = 4;
constexpr Bytes kMostSpare = Bytes::MiB(256);
// Memory comes back with the next release, which nobody knows, or is seen with the next look.
constexpr auto kRetryMemory = std::chrono::seconds(1);
constexpr milliseconds kShortestRetry{10}, kLongestRetry{10'000};

}  // namespace

struct Books {
  explicit Books(const Limits& l) : limits(l) {}
  const Limits limits;
  Quotas quotas{limits};
  MemoryAccount memory{limits};
  std::size_t waiting = 0;
  SteadyClock::time_point last_answer{};
  std::chrono::nanoseconds between_answers = milliseconds(1);  // of late
};

Grant::Grant(std::shared_ptr<Books> books, std::string tenant, std::uint32_t vcpus, Bytes memory)
    : books_(std::move(books)),
      tenant_(std::move(tenant)),
      vcpus_(vcpus),
      memory_(memory),
      growth_(MemoryAccount::GrowthOf(memory, books_->memory.typical_clone())) {
  books_->memory.AddGrowth(growth_);
}

Grant::~Grant() {
  books_->quotas.GiveBack(tenant_, vcpus_, memory_);
  books_->memory.RemoveGrowth(growth_);
}

void Grant::Measured(Bytes private_memory) {
  books_->memory.RemoveGrowth(growth_);
  growth_ = MemoryAccount::GrowthOf(memory_, private_memory);
  books_->memory.AddGrowth(growth_);
}

Admission::Place::Place(std::shared_ptr<Books> books) : books_(std::move(books)) {
  ++books_->waiting;
}

Admission::Place::~Place() {
  if (!books_) return;
  --books_->waiting;
  const auto now = SteadyClock::now();
  // The last ten or so count. A pause in which nobody asked says nothing of how fast it goes.
  const auto since =
      std::min<std::chrono::nanoseconds>(now - books_->last_answer, std::chrono::seconds(1));
  books_->between_answers = (books_->between_answers * 9 + since) / 10;
  books_->last_answer = now;
}

Admission::Clone::Clone(std::shared_ptr<Books> books) : books_(std::move(books)) {
  books_->memory.CloneBegun();
}

Admission::Clone::~Clone() {
  if (books_) books_->memory.CloneEnded();
}

Admission::Admission(Executor executor, Vms& vms, RightOfWay& right_of_way,
                     HostMemoryReader& host_memory, const Settings& settings)
    : vms_(vms),
      right_of_way_(right_of_way),
      host_memory_(host_memory),
      settings_(settings),
      books_(std::make_shared<Books>(settings.limits)),
      cloning_(executor, settings.parallel_clones),
      tasks_(executor) {}

void Admission::Start() {
  for (const auto& vm : vms_.List()) {
    if (vm->phase() != record::VM_PHASE_ASSIGNED) continue;
    const auto& r = vm->record;
    const std::string tenant = vm->tenant();
    books_->quotas.Restore(tenant, r.vcpus(), Bytes(r.memory_bytes()));
    Give(*vm, std::make_shared<Grant>(books_, tenant, r.vcpus(), Bytes(r.memory_bytes())));
  }
  if (!books_->memory.accounts()) return;
  ReadHost();
  tasks_.Spawn("look at the host's memory", KeepLooking());
  tasks_.Spawn("measure VMs", KeepMeasuring());
}

asio::awaitable<void> Admission::Stop() {
  tasks_.Cancel();
  co_await tasks_.Join();
}

Result<Admission::Place> Admission::Enter() {
  if (books_->waiting < settings_.waiting_acquires) return Place(books_);
  const auto empty_in = std::chrono::duration_cast<milliseconds>(
      books_->between_answers * static_cast<std::int64_t>(books_->waiting));
  return ResourceExhausted(std::to_string(books_->waiting) +
                               " acquires wait already, the most that may ([acquire] waiting)",
                           std::clamp(empty_in, kShortestRetry, kLongestRetry));
}

Task<std::shared_ptr<Grant>> Admission::Admit(std::string tenant, std::uint32_t vcpus, Bytes memory,
                                              Deadline deadline) {
  CO_RETURN_IF_ERROR(books_->quotas.Take(tenant, vcpus, memory));
  auto grant = std::make_shared<Grant>(books_, tenant, vcpus, memory);
  if (auto room = co_await MakeRoom(deadline); !room) {
    co_return Annotate(room.error(), "a VM of " + ToString(memory));
  }
  co_return grant;
}

void Admission::Give(VmEntry& vm, std::shared_ptr<Grant> grant) {
  if (vm.private_memory != Bytes()) grant->Measured(vm.private_memory);
  vm.grant = std::move(grant);
}

Task<Admission::Clone> Admission::AdmitClone(Deadline deadline) {
  ASSIGN_OR_CO_RETURN(Slots::Slot slot, co_await cloning_.Take(deadline));
  Clone clone(books_);
  clone.slot_.emplace(std::move(slot));
  if (auto room = co_await MakeRoom(deadline); !room) co_return Annotate(room.error(), "a clone");
  co_return clone;
}

Result<Admission::Clone> Admission::AdmitRefill() {
  if (books_->memory.accounts()) {
    const Bytes spare =
        std::min(Bytes(books_->limits.host_reserve.count() / kRefillPart), kMostSpare);
    const auto needed = (books_->memory.typical_clone() + spare).count();
    if (books_->memory.Room() < static_cast<std::int64_t>(needed)) {
      pools_wait_ = true;
      return TooLittle();
    }
  }
  return Clone(books_);
}

std::unexpected<Error> Admission::TooLittle() const {
  const auto& account = books_->memory;
  const HostMemory host = account.host().value_or(HostMemory{});
  return ResourceExhausted(
      "too little memory: of " + ToString(host.available) + " available, " +
          ToString(books_->limits.host_reserve) + " are kept for the host and " +
          ToString(Bytes(account.growth().count() / 100 * books_->limits.growth_percent)) +
          " for leased VMs to grow into ([limits] host_reserve, growth_percent)",
      kRetryMemory);
}

// What it is for is in the account already, so that two that wait do not count on the same memory.
Task<void> Admission::MakeRoom(Deadline deadline) {
  if (books_->memory.Room() >= 0) co_return Result<void>();
  if (SteadyClock::now() - last_read_ > kFreshEnough) ReadHost();
  if (books_->memory.Room() >= 0) co_return Result<void>();
  Evict(/*only_if_enough=*/true);
  const auto going = going_;
  if (going.empty()) co_return TooLittle();
  const Deadline by = Sooner(deadline, After(kEvictTimeout));
  for (const auto& vm : going) {
    if (auto gone = co_await vm->gone.Wait(by); !gone) break;
  }
  if (co_await IsCancelled()) co_return Cancelled("cancelled while memory was freed");
  ReadHost();
  if (books_->memory.Room() < 0) co_return TooLittle();
  co_return Result<void>();
}

Bytes Admission::CostOf(const VmEntry& vm) const {
  return vm.private_memory != Bytes() ? vm.private_memory : books_->memory.typical_clone();
}

void Admission::Evict(bool only_if_enough) {
  std::erase_if(going_, [](const VmPtr& vm) { return vm->gone.has_value(); });
  std::int64_t room = books_->memory.Room();
  for (const auto& vm : going_) room += static_cast<std::int64_t>(CostOf(*vm).count());
  std::vector<VmPtr> chosen;
  const auto idle = idle_ != nullptr ? idle_->Idle() : std::vector<VmPtr>();
  for (const auto& vm : idle) {
    if (room >= 0) break;
    room += static_cast<std::int64_t>(CostOf(*vm).count());
    chosen.push_back(vm);
  }
  if (chosen.empty() || (only_if_enough && room < 0)) return;
  log::Info({}, "memory is short: ending " + std::to_string(chosen.size()) + " idle VMs");
  for (const auto& vm : chosen) {
    idle_->Evict(vm);
    going_.push_back(vm);
    pools_wait_ = true;
  }
}

void Admission::ReadHost() {
  last_read_ = SteadyClock::now();
  auto now = host_memory_.Read();
  if (now) {
    books_->memory.HostIs(*now);
  } else if (!cannot_read_) {
    // What was last seen holds on; the host's memory does not change by much at once.
    log::Error({}, "reading how much memory there is: " + ToString(now.error()));
  }
  cannot_read_ = !now;
}

void Admission::Look() {
  ReadHost();
  if (books_->memory.Room() < 0) {
    Evict(/*only_if_enough=*/false);
  } else if (pools_wait_ && idle_ != nullptr) {
    pools_wait_ = false;  // it sets it again, if there still is none
    idle_->Retry();
  }
}

asio::awaitable<void> Admission::KeepLooking() {
  while (!co_await IsCancelled() && co_await SleepFor(kLookInterval)) Look();
}

asio::awaitable<void> Admission::KeepMeasuring() {
  // Asked anew each time: a wait that was cancelled further down is over, and the next is not.
  while (!co_await IsCancelled() && co_await SleepFor(kLookInterval)) {
    const auto count = std::clamp<std::size_t>(vms_.size() / kRounds, 1, kMostAtOnce);
    for (std::size_t i = 0; i < count && !co_await IsCancelled(); ++i) {
      co_await right_of_way_.WaitUntilFree({}, After(settings_.put_off.refill));
      const VmPtr vm = NextToMeasure();
      if (!vm) break;
      co_await Measure(vm);
    }
  }
}

VmPtr Admission::NextToMeasure() {
  for (std::size_t steps = vms_.size(); steps > 0; --steps) {
    VmPtr vm = vms_.Next(last_measured_);
    if (!vm) vm = vms_.Next(VmId());
    if (!vm) return nullptr;
    last_measured_ = vm->id();
    // One that is idle takes no more than it did when it was last measured.
    const bool idle = vm->phase() == record::VM_PHASE_WARM && vm->private_memory == Bytes();
    if (idle || vm->phase() == record::VM_PHASE_ASSIGNED) return vm;
  }
  return nullptr;
}

asio::awaitable<void> Admission::Measure(VmPtr vm) {
  const auto machine = vm->machine;
  if (!machine) co_return;
  const auto stats = co_await machine->vm->Stats(After(kMeasureTimeout));
  if (!stats) co_return;  // it has ended, or will be measured the next time
  vm->private_memory = stats->private_memory;
  if (vm->grant) vm->grant->Measured(stats->private_memory);
  if (vm->phase() == record::VM_PHASE_WARM) books_->memory.CloneMeasured(stats->private_memory);
}

std::optional<Admission::Memory> Admission::memory() const {
  const auto& account = books_->memory;
  if (!account.accounts() || !account.host()) return std::nullopt;
  Memory now{*account.host(), books_->limits.host_reserve, {}, account.growth()};
  std::set<const tmpl::LoadedTemplate*> templates;
  for (const auto& vm : vms_.List()) {
    if (!vm->machine) continue;
    now.private_memory += CostOf(*vm);
    const auto* from = vm->machine->from.get();
    if (from == nullptr || !templates.insert(from).second) continue;
    now.private_memory += from->ResidentSize().value_or(Bytes());
  }
  return now;
}

const std::map<std::string, Quotas::Held>& Admission::tenants() const {
  return books_->quotas.held();
}

std::size_t Admission::waiting() const { return books_->waiting; }

}  // namespace hatchery::cache
