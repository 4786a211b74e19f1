#include "cache/cache.h"

#include "base/log.h"

namespace hatchery::cache {

Cache::Cache(Dependencies d, Settings settings)
    : deps_(std::move(d)),
      settings_(std::move(settings)),
      right_of_way_(deps_.executor),
      vms_(deps_.executor, deps_.store, deps_.factory, right_of_way_, settings_, deps_.clock,
           std::string(deps_.driver.name()), deps_.host_boot_id),
      admission_(deps_.executor, vms_, right_of_way_, deps_.host_memory, settings_),
      catalog_(deps_.executor, deps_.store, deps_.templates, deps_.builder, vms_, settings_,
               deps_.clock, deps_.default_guest),
      pools_(deps_.executor, deps_.store, catalog_, vms_, admission_, right_of_way_, settings_,
             deps_.clock),
      onlining_(deps_.executor, vms_),
      lease_ends_(deps_.executor, deps_.store, vms_, settings_, deps_.clock),
      leases_(deps_.executor, deps_.store, deps_.factory, catalog_, pools_, vms_, admission_,
              onlining_, lease_ends_, right_of_way_, settings_, deps_.clock) {
  admission_.Attach(pools_);
  catalog_.OnChanged([this](const std::string& name) { pools_.OnTemplateChanged(name); });
  vms_.OnDied([this](const VmPtr& vm) { pools_.Remove(vm); });
  vms_.OnGone([this](const VmEntry& vm) {
    leases_.OnVmGone(vm);
    catalog_.Collect();
  });
}

Cache::~Cache() = default;

Task<void> Cache::Start(Deadline deadline) {
  if (auto recovered = co_await Recover(deadline); !recovered) {
    co_await lease_ends_.Stop();
    co_await onlining_.Stop();
    co_await vms_.Stop();  // those that were taken over are watched
    co_await catalog_.Stop();
    co_return recovered;
  }
  catalog_.Collect();
  admission_.Start();
  pools_.Start();
  co_return Result<void>();
}

asio::awaitable<void> Cache::Drain(Deadline deadline) {
  if (auto drained = co_await leases_.Drain(deadline); !drained) {
    log::Warning({}, "stopping while acquires still run: " + ToString(drained.error()));
  }
  co_await pools_.Stop();
}

asio::awaitable<void> Cache::Stop(Deadline deadline) {
  if (!settings_.keep_warm_on_stop) {
    auto ended = co_await vms_.EndAll(
        [](const VmEntry& vm) { return vm.phase() != record::VM_PHASE_ASSIGNED; },
        "the service stops", deadline);
    if (!ended) log::Warning({}, "stopping: " + ToString(ended.error()));
  }
  co_await lease_ends_.Stop();
  co_await admission_.Stop();
  co_await onlining_.Stop();
  co_await vms_.Stop();
  co_await catalog_.Stop();
}

Task<Cache::Initialised> Cache::Init(InitParams params, Say say, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const std::string name, TemplateNameOrDefault(params.spec.name));
  Initialised result;
  ASSIGN_OR_CO_RETURN(result.created,
                      co_await catalog_.Create(
                          std::move(params.spec), false,
                          [&](std::string step) { say({std::move(step)}); }, deadline));
  const auto started = std::chrono::steady_clock::now();
  std::uint32_t target = params.pool_target.value_or(settings_.pool_size);
  const auto& shape = result.created.info.manifest->shape;
  if (!params.pool_target) {
    for (const auto& pool : pools_.List()) {
      const bool same =
          pool.template_name == name && pool.vcpus == shape.vcpus && pool.memory == shape.memory;
      if (same) target = pool.target;
    }
  }
  ASSIGN_OR_CO_RETURN(const auto key,
                      co_await pools_.Set(name, std::nullopt, std::nullopt, target, deadline));
  result.pool.template_name = name;
  if (target > 0) {
    auto filled = co_await pools_.WaitFilled(
        key,
        [&](const PoolInfo& pool) {
          result.pool = pool;
          say({"filling the pool", pool.warm, pool.target, "vms"});
        },
        deadline);
    CO_RETURN_IF_ERROR(filled);
  }
  result.fill_time = std::chrono::steady_clock::now() - started;
  co_return result;
}

Task<void> Cache::DeleteTemplate(std::string name, bool drain, Say say, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const auto info, catalog_.Get(name));
  if (info.name.empty()) {
    co_return FailedPrecondition("template " + info.digest.str() +
                                 " is an old version; it goes with its last VM");
  }
  // Those of older versions too: they would be ended as well.
  std::size_t clones = 0, leased = 0;
  for (const auto& vm : vms_.List()) {
    if (vm->record.template_name() != info.name) continue;
    ++clones;
    if (vm->phase() == record::VM_PHASE_ASSIGNED) ++leased;
  }
  if (clones > 0 && !drain) {
    co_return FailedPrecondition("template '" + info.name + "' has " + std::to_string(clones) +
                                 " VMs, " + std::to_string(leased) +
                                 " of them leased; drain it with --drain");
  }
  // No new clones from here on, or a busy service would never be drained.
  struct Closed {
    Catalog& catalog;
    const std::string& name;
    ~Closed() { catalog.Reopen(name); }
  };
  catalog_.Close(info.name);
  const Closed closed{catalog_, info.name};
  CO_RETURN_IF_ERROR(pools_.RemoveAllOf(info.name));
  say({"draining " + std::to_string(clones) + " VMs of '" + info.name + "'"});
  auto ended = co_await vms_.EndAll(
      [&](const VmEntry& vm) { return vm.record.template_name() == info.name; },
      "its template is deleted", deadline);
  CO_RETURN_IF_ERROR(ended);
  say({"deleting '" + info.name + "'"});
  co_return co_await catalog_.Delete(info.name);
}

Task<void> Cache::DestroyAll(Say say, Deadline deadline) {
  std::string failures;
  for (const auto& name : catalog_.Names()) {
    auto deleted = co_await DeleteTemplate(name, true, say, deadline);
    if (!deleted) failures += "; " + deleted.error().message;
  }
  auto ended =
      co_await vms_.EndAll([](const VmEntry&) { return true; }, "factory destroyed", deadline);
  if (!ended) failures += "; " + ended.error().message;
  if (!failures.empty()) co_return Unavailable("not all could be destroyed" + failures);
  co_return Result<void>();
}

}  // namespace hatchery::cache
