#include "cache/cache.h"

#include <algorithm>

#include "base/log.h"

namespace hatchery::cache {

namespace {

// Tells `say` how far a drain of `total` VMs has come.
Vms::Waiting Waiting(std::string step, std::size_t total, Say say) {
  return
      [step = std::move(step), total, say = std::move(say)](std::size_t left, const VmEntry* slow) {
        if (!slow) return say({step, total - std::min(left, total), total, "vms"});
        say({step + ": waiting for VM " + slow->record.id() + ", which is " +
             std::string(PhaseName(slow->phase()))});
      };
}

}  // namespace

Cache::Cache(Dependencies d, Settings settings)
    : deps_(std::move(d)),
      settings_(std::move(settings)),
      right_of_way_(deps_.executor),
      events_(deps_.executor, deps_.store, right_of_way_, settings_, deps_.clock,
              deps_.host_boot_id),
      vms_(deps_.executor, deps_.store, events_, deps_.factory, right_of_way_, settings_,
           deps_.clock, std::string(deps_.driver.name()), deps_.host_boot_id),
      admission_(deps_.executor, vms_, right_of_way_, deps_.host_memory, settings_),
      catalog_(deps_.executor, deps_.store, deps_.templates, deps_.builder, vms_, settings_,
               deps_.clock, deps_.default_guest),
      pools_(deps_.executor, deps_.store, catalog_, vms_, admission_, right_of_way_, settings_,
             deps_.clock),
      onlining_(deps_.executor, vms_),
      lease_ends_(deps_.executor, deps_.store, vms_, settings_, deps_.clock),
      health_(deps_.executor, vms_, settings_),
      leases_(deps_.executor, deps_.store, deps_.factory, catalog_, pools_, vms_, admission_,
              onlining_, lease_ends_, right_of_way_, settings_, deps_.clock),
      adoption_(deps_.executor, deps_.driver, deps_.connector, vms_, pools_, onlining_,
                deps_.host_boot_id),
      strays_(deps_.executor, deps_.driver, vms_, deps_.booter.run_root()) {
  admission_.Attach(pools_);
  catalog_.OnChanged([this](const std::string& name) { pools_.OnTemplateChanged(name); });
  vms_.OnDied([this](const VmPtr& vm) { pools_.Remove(vm); });
  vms_.OnGone([this](const VmEntry& vm) {
    leases_.OnVmGone(vm);
    catalog_.Collect();
  });
  deps_.templates.SetHolders([this](const TemplateDigest& digest) {
    std::vector<pid_t> pids;
    for (const auto& vm : vms_.List()) {
      if (vm->record.template_digest() != digest.str() || !vm->machine) continue;
      if (const auto pid = vm->machine->vm->endpoints().pid; pid > 0) pids.push_back(pid);
    }
    return pids;
  });
}

Cache::~Cache() { deps_.templates.SetHolders(nullptr); }

Task<void> Cache::Start(Deadline deadline) {
  if (auto recovered = co_await Recover(deadline); !recovered) {
    co_await StopTasks();
    co_return recovered;
  }
  catalog_.Collect();
  admission_.Start();
  pools_.Start();
  health_.Start();
  co_return Result<void>();
}

asio::awaitable<void> Cache::Drain(Deadline deadline) {
  if (auto drained = co_await leases_.Drain(deadline); !drained) {
    log::Warning({}, "stopping while acquires still run: " + ToString(drained.error()));
  }
  co_await pools_.Stop();
  events_.Close();  // who watches would not let the server end
}

asio::awaitable<void> Cache::Stop(Deadline deadline, bool leave_all) {
  if (!settings_.keep_warm_on_stop && !leave_all) {
    auto ended = co_await vms_.EndAll(
        [](const VmEntry& vm) { return vm.phase() != record::VM_PHASE_ASSIGNED; },
        "the service stops", deadline,
        Waiting("stopping", vms_.size(), [](const StepProgress& step) {
          if (step.total == 0) log::Info({}, step.step);
        }));
    if (!ended) log::Warning({}, "stopping: " + ToString(ended.error()));
  }
  co_await StopTasks();
}

asio::awaitable<void> Cache::StopTasks() {
  co_await health_.Stop();
  co_await strays_.Stop();
  co_await adoption_.Stop();
  co_await lease_ends_.Stop();
  co_await admission_.Stop();
  co_await onlining_.Stop();
  co_await vms_.Stop();
  co_await catalog_.Stop();
  co_await events_.Stop();
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
  auto ended = co_await vms_.EndAll(
      [&](const VmEntry& vm) { return vm.record.template_name() == info.name; },
      "its template is deleted", deadline, Waiting("draining '" + info.name + "'", clones, say));
  CO_RETURN_IF_ERROR(ended);
  say({"deleting '" + info.name + "'"});
  co_return co_await catalog_.Delete(info.name);
}

Task<void> Cache::DestroyAll(Say say, Deadline deadline) {
  // A template that is being made would otherwise be there afterwards.
  catalog_.CloseAll();
  struct Closed {
    Catalog& catalog;
    ~Closed() { catalog.ReopenAll(); }
  } const closed{catalog_};
  std::string failures;
  for (const auto& name : catalog_.Names()) {
    auto deleted = co_await DeleteTemplate(name, true, say, deadline);
    if (!deleted) failures += "; " + deleted.error().message;
  }
  auto built = co_await catalog_.AwaitBuilds(
      [&](const std::string& name) { say({"waiting for the build of '" + name + "' to end"}); },
      deadline);
  if (!built) failures += "; " + built.error().message;
  auto ended = co_await vms_.EndAll([](const VmEntry&) { return true; }, "factory destroyed",
                                    deadline, Waiting("ending VMs", vms_.size(), say));
  if (!ended) failures += "; " + ended.error().message;
  if (!failures.empty()) co_return Unavailable("not all could be destroyed" + failures);
  co_return Result<void>();
}

}  // namespace hatchery::cache
