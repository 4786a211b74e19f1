#include "cache/pools.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "cache/backoff.h"

namespace hatchery::cache {

namespace {

// After a clone failed, its pool waits before the next: doubling from the first to the last. If
// they keep failing it is the template's quarantine that says how long (quarantine.h).
constexpr auto kFirstBackoff = std::chrono::milliseconds(250);
constexpr auto kLastBackoff = std::chrono::seconds(30);
// How many clones may fail in a row before a caller that waits for the pool is told.
constexpr int kFailuresToGiveUp = 3;

// How often learned pools are looked at, to end those that nobody asks for any more.
constexpr auto kLearnInterval = std::chrono::seconds(10);

record::PoolRecord MakeRecord(const std::string& name, std::uint32_t vcpus, Bytes memory,
                              std::uint32_t target) {
  record::PoolRecord r;
  r.set_template_name(name);
  r.set_vcpus(vcpus);
  r.set_memory_bytes(memory.count());
  r.set_target(target);
  return r;
}

// What was learned can be learned again.
Durability DurabilityOf(const record::PoolRecord& r) {
  return r.learned() ? Durability::kProcess : Durability::kHost;
}

PooledShape ShapeOf(const record::PoolRecord& r) {
  return {r.template_name(), r.vcpus(), Bytes(r.memory_bytes())};
}

}  // namespace

struct Pools::Pool {
  Pool(Executor executor, record::PoolRecord r)
      : record(std::move(r)), key(PoolKey(record)), hatchers(executor) {}
  record::PoolRecord record;
  std::string key;
  std::deque<VmPtr> warm;  // oldest first
  std::uint32_t filling = 0;
  std::uint64_t hits = 0, misses = 0;
  std::string last_error;
  std::string too_little;  // memory for another clone, as Admission says
  Backoff backoff{kFirstBackoff, kLastBackoff};
  bool removed = false;
  bool put_off = false;  // MaintainLater() runs
  bool overdue = false;  // was put off for as long as may be, and not full since
  TaskScope hatchers;

  bool IsFull() const { return warm.size() >= record.target(); }
};

Pools::Pools(Executor executor, KvStore& store, Catalog& catalog, Vms& vms, Admission& admission,
             RightOfWay& right_of_way, const Settings& settings, const Clock& clock)
    : executor_(executor),
      store_(store),
      catalog_(catalog),
      vms_(vms),
      admission_(admission),
      right_of_way_(right_of_way),
      settings_(settings),
      clock_(clock),
      popular_(settings.learn),
      changed_(executor),
      asked_often_(executor),
      hatchers_(executor),
      learner_(executor) {}

Pools::~Pools() = default;

void Pools::Restore(const std::vector<record::PoolRecord>& pools) {
  for (const auto& r : pools) {
    if (r.learned()) popular_.Restore(ShapeOf(r), r.target(), clock_.Now());
    auto pool = std::make_shared<Pool>(executor_, r);
    pools_.emplace(pool->key, std::move(pool));
  }
}

bool Pools::TakeIn(const VmPtr& vm) {
  const auto found = pools_.find(vm->record.pool_key());
  if (found == pools_.end()) return false;
  Pool& pool = *found->second;
  const auto current = catalog_.DigestOf(pool.record.template_name());
  if (!current || current->str() != vm->record.template_digest()) return false;
  if (pool.IsFull()) return false;
  pool.warm.push_back(vm);
  return true;
}

void Pools::Start() {
  Learn();  // first: it may end some
  running_ = true;
  MaintainAll();
  learner_.Spawn("learn pools", KeepLearning());
}

Task<std::string> Pools::Set(const std::string& template_name, std::optional<std::uint32_t> vcpus,
                             std::optional<Bytes> memory, std::uint32_t target, Deadline deadline) {
  if (target > kMaxPoolTarget) {
    co_return InvalidArgument(
        "target", std::to_string(target) + " is more than " + std::to_string(kMaxPoolTarget));
  }
  ASSIGN_OR_CO_RETURN(const auto loaded, co_await catalog_.Current(template_name, deadline));
  const auto& shape = loaded->manifest().shape;
  auto record =
      MakeRecord(template_name, vcpus.value_or(shape.vcpus), memory.value_or(shape.memory), target);
  CO_RETURN_IF_ERROR(CheckShape(shape, record.vcpus(), Bytes(record.memory_bytes())));
  record.set_follows_template(!vcpus && !memory);
  const std::string key = PoolKey(record);
  popular_.Forget(ShapeOf(record));
  if (target == 0) {
    CO_RETURN_IF_ERROR(Erase(key));
    co_return key;
  }
  RecordBatch batch(WritePoint::kPoolSet);
  batch.Put(record);
  CO_RETURN_IF_ERROR(batch.Commit(store_, Durability::kHost));
  auto& pool = pools_[key];
  if (!pool) pool = std::make_shared<Pool>(executor_, record);
  pool->record = std::move(record);
  pool->backoff.Forgive();
  vms_.quarantine().Hurry(loaded->manifest().digest.str());
  Maintain(*pool);
  co_return key;
}

Result<void> Pools::Erase(const std::string& key) {
  const auto found = pools_.find(key);
  if (found == pools_.end()) return {};
  RecordBatch batch(WritePoint::kPoolErased);
  const auto pool = found->second;
  batch.DeletePool(pool->record);
  RETURN_IF_ERROR(batch.Commit(store_, DurabilityOf(pool->record)));
  Drop(pool);
  return {};
}

void Pools::Drop(const std::shared_ptr<Pool>& pool) {
  if (pool->record.learned()) popular_.Forget(ShapeOf(pool->record));
  pools_.erase(pool->key);
  pool->removed = true;
  pool->hatchers.Cancel();
  for (const auto& vm : pool->warm) vms_.End(vm, record::VM_PHASE_RELEASED, "its pool was removed");
  pool->warm.clear();
  changed_.NotifyAll();
  // Somebody has to wait for the clones that are being undone.
  hatchers_.Spawn("drain pool " + pool->key, [](std::shared_ptr<Pool> p) -> asio::awaitable<void> {
    co_await p->hatchers.Join();
  }(pool));
}

Result<void> Pools::RemoveAllOf(const std::string& template_name) {
  std::vector<std::string> keys;
  for (const auto& [key, pool] : pools_) {
    if (pool->record.template_name() == template_name) keys.push_back(key);
  }
  for (const auto& key : keys) RETURN_IF_ERROR(Erase(key));
  return {};
}

void Pools::MaintainAll() {
  for (const bool learned : {false, true}) {
    for (auto& [key, pool] : pools_) {
      if (pool->record.learned() == learned) Maintain(*pool);
    }
  }
}

void Pools::Maintain(Pool& pool) {
  while (pool.warm.size() > pool.record.target()) {
    const VmPtr surplus = pool.warm.front();
    pool.warm.pop_front();
    vms_.End(surplus, record::VM_PHASE_RELEASED, "its pool was made smaller");
  }
  while (running_ && !pool.removed && !pool.backoff.waits() &&
         pool.warm.size() + pool.filling < pool.record.target() &&
         hatching_ < settings_.parallel_clones) {
    if (!pool.overdue && !right_of_way_.IsFree(settings_.put_off.quiet)) {
      MaintainLater(pools_.at(pool.key));
      break;
    }
    auto clone = admission_.AdmitRefill();
    pool.too_little = clone ? "" : clone.error().message;
    if (!clone) break;  // Retry() follows
    ++pool.filling;
    ++hatching_;
    pool.hatchers.Spawn("fill pool " + pool.key, Hatch(pools_.at(pool.key), *std::move(clone)));
  }
  if (pool.IsFull()) {
    pool.overdue = false;
    pool.too_little.clear();
  }
  changed_.NotifyAll();
}

void Pools::MaintainLater(const std::shared_ptr<Pool>& pool) {
  if (std::exchange(pool->put_off, true)) return;
  auto wait = [](Pools& self, std::shared_ptr<Pool> p) -> asio::awaitable<void> {
    const Deadline at_latest = After(self.settings_.put_off.refill);
    co_await self.right_of_way_.WaitUntilFree(self.settings_.put_off.quiet, at_latest);
    p->put_off = false;
    p->overdue = std::chrono::steady_clock::now() >= at_latest;
    if (!p->removed) self.Maintain(*p);
  };
  pool->hatchers.Spawn("put off pool " + pool->key, wait(*this, pool));
}

asio::awaitable<void> Pools::Hatch(std::shared_ptr<Pool> pool, Admission::Clone) {
  const Deadline deadline = After(settings_.clone_timeout);
  const std::string name = pool->record.template_name();
  auto hatch = [&]() -> Task<VmPtr> {
    ASSIGN_OR_CO_RETURN(auto from, co_await catalog_.Current(name, deadline));
    co_return co_await vms_.Hatch({name, std::move(from), pool->record.vcpus(),
                                   Bytes(pool->record.memory_bytes()), pool->key},
                                  deadline);
  };
  auto vm = co_await hatch();
  --pool->filling;
  --hatching_;
  if (vm) {
    pool->backoff.Succeeded();
    pool->last_error.clear();
    const auto current = catalog_.DigestOf(name);
    const bool wanted = running_ && !pool->removed && current &&
                        current->str() == (*vm)->record.template_digest() &&
                        (*vm)->phase() == record::VM_PHASE_WARM;
    if (wanted) {
      pool->warm.push_back(*vm);
    } else {
      vms_.End(*vm, record::VM_PHASE_RELEASED, "nobody wants it any more");
    }
    MaintainAll();
    co_return;
  }
  if (pool->removed || !running_) {
    MaintainAll();  // others may have waited for its place
    co_return;
  }
  pool->last_error = vm.error().message;
  log::Warning({.tmpl = name}, "filling pool " + pool->key + ": " + ToString(vm.error()));
  const auto retry_after = vm.error().retry_after;
  // In quarantine: who waits for the pool need not see it fail more often.
  const bool hopeless = retry_after.count() > 0 && retry_after != Quarantine::kWhileProbing;
  const auto wait = pool->backoff.Failed(retry_after, hopeless ? kFailuresToGiveUp : 0);
  MaintainAll();  // the others need not wait
  if (!wait) co_return;
  (void)co_await SleepFor(*wait);
  MaintainAll();
}

Task<void> Pools::WaitFilled(std::string key, std::function<void(const PoolInfo&)> progress,
                             Deadline deadline) {
  std::uint32_t told = ~0u;
  for (;;) {
    const auto found = pools_.find(key);
    if (found == pools_.end()) co_return NotFound("pool " + key + " was removed");
    const Pool& pool = *found->second;
    const PoolInfo info = InfoOf(pool);
    if (info.warm != told) progress(info);
    told = info.warm;
    if (info.warm >= info.target) co_return Result<void>();
    if (!pool.too_little.empty() && pool.filling == 0) {
      co_return ResourceExhausted("pool " + key + " has " + std::to_string(info.warm) + " of " +
                                  std::to_string(info.target) + " VMs: " + pool.too_little);
    }
    if (pool.backoff.failures() >= kFailuresToGiveUp) {
      co_return Unavailable("pool " + key + " has " + std::to_string(info.warm) + " of " +
                            std::to_string(info.target) +
                            " VMs and its clones keep failing: " + pool.last_error);
    }
    if (!running_) co_return Unavailable("the service is stopping");
    CO_RETURN_IF_ERROR(co_await changed_.Wait(deadline));
  }
}

VmPtr Pools::Take(const std::string& template_name, const tmpl::Manifest& manifest,
                  std::uint32_t vcpus, Bytes memory) {
  const auto& shape = manifest.shape;
  const auto exact = pools_.find(PoolKey(MakeRecord(template_name, vcpus, memory, 0)));
  const auto base = pools_.find(PoolKey(MakeRecord(template_name, shape.vcpus, shape.memory, 0)));
  const bool own = vcpus == shape.vcpus && memory == shape.memory;
  const bool learnable = !own && (exact == pools_.end() || exact->second->record.learned());
  if (learnable && popular_.Asked({template_name, vcpus, memory}, clock_.Now())) {
    asked_often_.NotifyAll();
  }
  for (const auto found : {exact, base}) {
    if (found == pools_.end()) continue;
    Pool& pool = *found->second;
    if (pool.warm.empty()) continue;
    // The youngest: its pages are the likeliest to be in the caches.
    VmPtr vm = pool.warm.back();
    pool.warm.pop_back();
    ++pool.hits;
    return vm;
  }
  const auto missed = exact != pools_.end() ? exact : base;
  if (missed != pools_.end()) ++missed->second->misses;
  return nullptr;
}

void Pools::Refill(const std::string& key) {
  const auto found = pools_.find(key);
  if (running_ && found != pools_.end()) MaintainLater(found->second);
}

void Pools::Remove(const VmPtr& vm) {
  const auto found = pools_.find(vm->record.pool_key());
  if (found == pools_.end()) return;
  std::erase(found->second->warm, vm);
  Maintain(*found->second);
}

void Pools::OnTemplateChanged(const std::string& name) {
  const auto current = catalog_.DigestOf(name);
  if (!current) {
    if (auto removed = RemoveAllOf(name); !removed) {
      log::Error({.tmpl = name}, "removing pools: " + ToString(removed.error()));
    }
    return;
  }
  if (const auto loaded = catalog_.IfLoaded(name)) Refit(name, loaded->manifest().shape);
  for (auto& [key, pool] : pools_) {
    if (pool->record.template_name() != name) continue;
    std::erase_if(pool->warm, [&](const VmPtr& vm) {
      if (vm->record.template_digest() == current->str()) return false;
      vms_.End(vm, record::VM_PHASE_RELEASED, "its template has a new version");
      return true;
    });
    pool->backoff.Forgive();
  }
  MaintainAll();
}

void Pools::Refit(const std::string& name, const tmpl::Shape& shape) {
  std::vector<std::shared_ptr<Pool>> misfits;
  for (const auto& [key, pool] : pools_) {
    const auto& r = pool->record;
    if (r.template_name() != name) continue;
    const bool own = r.vcpus() == shape.vcpus && Bytes(r.memory_bytes()) == shape.memory;
    const bool fits = CheckShape(shape, r.vcpus(), Bytes(r.memory_bytes())).has_value() &&
                      (!r.follows_template() || own);
    if (!fits) misfits.push_back(pool);
  }
  // Those that go make room for those that move.
  std::ranges::partition(misfits,
                         [](const auto& pool) { return !pool->record.follows_template(); });
  for (const auto& pool : misfits) {
    const bool moves = pool->record.follows_template();
    auto refitted = moves ? Move(pool, shape) : Erase(pool->key);
    if (!moves && refitted) {
      log::Warning({.tmpl = name}, "pool " + pool->key +
                                       " is removed: the template's new version " +
                                       "cannot have its shape");
    }
    if (!refitted) {
      log::Error({.tmpl = name}, "refitting pools: " + ToString(refitted.error()));
    }
  }
}

Result<void> Pools::Move(const std::shared_ptr<Pool>& pool, const tmpl::Shape& shape) {
  auto record =
      MakeRecord(pool->record.template_name(), shape.vcpus, shape.memory, pool->record.target());
  record.set_follows_template(true);
  const auto there = pools_.find(PoolKey(record));
  if (there != pools_.end()) {
    record.set_target(std::max(record.target(), there->second->record.target()));
  }
  // In one write: a daemon that dies here has the pool in one place or the other.
  RecordBatch batch(WritePoint::kPoolRefitted);
  batch.DeletePool(pool->record);
  batch.Put(record);
  RETURN_IF_ERROR(batch.Commit(store_, Durability::kHost));
  Drop(pool);
  auto& moved = pools_[PoolKey(record)];
  if (!moved) moved = std::make_shared<Pool>(executor_, record);
  moved->record = record;
  return {};
}

void Pools::Learn() {
  const auto wanted = popular_.Wanted(clock_.Now());
  std::vector<std::string> unwanted;
  for (const auto& [key, pool] : pools_) {
    if (pool->record.learned() && !wanted.contains(ShapeOf(pool->record))) unwanted.push_back(key);
  }
  for (const auto& key : unwanted) {
    const auto erased = Erase(key);
    log::Write(erased ? log::Level::kInfo : log::Level::kError, {},
               "pool " + key + " is not asked for any more" +
                   (erased ? "" : ", but cannot be removed: " + ToString(erased.error())));
  }
  for (const auto& [shape, target] : wanted) SetLearned(shape, target);
}

void Pools::SetLearned(const PooledShape& shape, std::uint32_t target) {
  auto record = MakeRecord(shape.template_name, shape.vcpus, shape.memory, target);
  record.set_learned(true);
  const std::string key = PoolKey(record);
  const auto found = pools_.find(key);
  const bool is_new = found == pools_.end();
  if (!is_new) {
    const auto& known = found->second->record;
    if (!known.learned() || known.target() == target) return;
  } else {
    // Since it was asked for, its template may have changed, or gone.
    const auto loaded = catalog_.IfLoaded(shape.template_name);
    if (!loaded || !CheckShape(loaded->manifest().shape, shape.vcpus, shape.memory)) {
      return popular_.Forget(shape);
    }
  }
  RecordBatch batch(WritePoint::kPoolLearned);
  batch.Put(record);
  if (auto written = batch.Commit(store_, DurabilityOf(record)); !written) {
    return log::Error({.tmpl = shape.template_name},
                      "learning pool " + key + ": " + ToString(written.error()));
  }
  auto& pool = pools_[key];
  if (is_new) pool = std::make_shared<Pool>(executor_, record);
  pool->record = record;
  log::Info({.tmpl = shape.template_name},
            "pool " + key + " is asked for often: it keeps " + std::to_string(target));
  Maintain(*pool);
}

asio::awaitable<void> Pools::KeepLearning() {
  while (settings_.learn.enabled && !co_await IsCancelled()) {
    Learn();
    (void)co_await asked_often_.Wait(After(kLearnInterval));
  }
}

PoolInfo Pools::InfoOf(const Pool& pool) const {
  PoolInfo info;
  info.key = pool.key;
  info.template_name = pool.record.template_name();
  info.vcpus = pool.record.vcpus();
  info.memory = Bytes(pool.record.memory_bytes());
  info.target = pool.record.target();
  info.warm = static_cast<std::uint32_t>(pool.warm.size());
  info.filling = pool.filling;
  info.leased = static_cast<std::uint32_t>(vms_.LeasedOf(pool.key));
  info.hits = pool.hits;
  info.misses = pool.misses;
  info.last_error = pool.too_little.empty() ? pool.last_error : pool.too_little;
  info.learned = pool.record.learned();
  return info;
}

std::vector<VmPtr> Pools::Idle() const {
  std::vector<std::pair<const Pool*, std::size_t>> left;
  for (const auto& [key, pool] : pools_) left.emplace_back(pool.get(), pool->warm.size());
  std::vector<VmPtr> all;
  for (;;) {
    const auto next = std::ranges::max_element(left, {}, [](const auto& of) {
      const bool learned = of.first->record.learned() && of.second > 0;
      return std::pair(learned, of.second);
    });
    if (next == left.end() || next->second == 0) return all;
    const auto& warm = next->first->warm;
    all.push_back(warm[warm.size() - next->second]);  // the oldest that is left
    --next->second;
  }
}

void Pools::Evict(const VmPtr& vm) {
  vms_.End(vm, record::VM_PHASE_RELEASED, "memory is short");
  Remove(vm);
}

std::vector<PoolInfo> Pools::List() const {
  std::vector<PoolInfo> all;
  for (const auto& [key, pool] : pools_) all.push_back(InfoOf(*pool));
  return all;
}

asio::awaitable<void> Pools::Stop() {
  running_ = false;
  learner_.Cancel();
  co_await learner_.Join();
  changed_.NotifyAll();
  for (auto& [key, pool] : pools_) pool->hatchers.Cancel();
  const auto pools = pools_;  // may change while we wait
  for (const auto& [key, pool] : pools) co_await pool->hatchers.Join();
  co_await hatchers_.Join();
}

}  // namespace hatchery::cache
