#include "template/boot.h"

#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <optional>

#include "base/files.h"
#include "base/log.h"
#include "base/notifier.h"
#include "base/shield.h"
#include "template/agent_wait.h"
#include "template/memory.h"

namespace hatchery::tmpl {

namespace {

using hypervisor::Accelerator;

// For killing a VMM and reaping it; far more than it takes.
constexpr auto kStopTimeout = std::chrono::seconds(10);
constexpr int kStopAttempts = 2;

}  // namespace

Booter::Booter(hypervisor::Driver& driver, agent::Connector& connector,
               AcceleratorVerdicts& verdicts, std::filesystem::path run_root)
    : driver_(driver), connector_(connector), verdicts_(verdicts), run_root_(std::move(run_root)) {}

Task<void> Booter::Destroy(std::unique_ptr<hypervisor::Vm> vm) {
  co_return co_await Shielded(DestroyNow(std::move(vm)));
}

Task<void> Booter::DestroyNow(std::unique_ptr<hypervisor::Vm> vm) {
  const std::filesystem::path folder = vm->config().run_dir;
  // Removing a folder tree deserves a look at where it is.
  if (folder.parent_path() != run_root_) {
    co_return Internal("the VM's folder " + folder.string() + " is not in " + run_root_.string());
  }
  Result<void> stopped;
  for (int attempt = 0; attempt < kStopAttempts; ++attempt) {
    stopped = co_await vm->Stop(After(kStopTimeout));
    if (stopped) break;
  }
  if (!stopped) co_return Annotate(stopped.error(), "ending VM " + vm->config().id.str());
  co_return RemoveAll(folder);
}

Task<BootedVm> Booter::Boot(hypervisor::VmConfig config, Deadline deadline) {
  config = hypervisor::WithDefaults(std::move(config));
  if (config.boot_to_be_template && config.template_memory_fd >= 0) {
    co_return Internal("whoever boots a VM to be a template leaves its memory to the booter");
  }
  if (config.accelerator == Accelerator::kAuto && !driver_.MayHave(Accelerator::kKvm)) {
    config.accelerator = Accelerator::kTcg;
  }
  if (config.accelerator != Accelerator::kAuto) {
    co_return co_await BootOne(std::move(config), deadline);
  }
  auto described = co_await driver_.Describe(config, deadline);
  if (!described) co_return std::unexpected(described.error());
  ASSIGN_OR_CO_RETURN(const std::string key, VerdictKey(config, (*described)["vmm.version"]));
  if (auto verdict = verdicts_.Find(key)) {
    config.accelerator = *verdict;
    co_return co_await BootOne(std::move(config), deadline);
  }
  auto winner = co_await Race(std::move(config), deadline);
  if (!winner) co_return winner;
  const auto& chosen = winner->vm->config();
  log::Info({.vm = chosen.id.str()},
            "guests of this kind run under " + std::string(Name(chosen.accelerator)) + " here");
  if (auto remembered = verdicts_.Remember(key, chosen.accelerator); !remembered) {
    log::Warning({}, "the accelerator will be tried again: " + remembered.error().message);
  }
  co_return winner;
}

Task<BootedVm> Booter::BootOne(hypervisor::VmConfig config, Deadline deadline) {
  CO_RETURN_IF_ERROR(ValidateName("id", config.id.str()));
  if (co_await IsCancelled()) co_return Cancelled("cancelled before the VM was started");
  CO_RETURN_IF_ERROR(MakeDirectories(run_root_, 0700));
  config.run_dir = run_root_ / config.id.str();
  if (::mkdir(config.run_dir.c_str(), 0700) != 0) {
    co_return ErrnoError(errno, "creating the VM's folder " + config.run_dir.string());
  }
  const std::filesystem::path folder = config.run_dir;
  auto create = [&]() -> Result<BootedVm> {
    BootedVm booted;
    if (config.boot_to_be_template) {
      ASSIGN_OR_RETURN(booted.memory, CreateMemory(config.memory));
      config.template_memory_fd = booted.memory.get();
    }
    ASSIGN_OR_RETURN(booted.vm, driver_.Create(config));
    return booted;
  };
  auto booted = create();
  if (!booted) {
    (void)RemoveAll(folder);
    co_return booted;
  }
  const auto begin = std::chrono::steady_clock::now();
  auto started = co_await booted->vm->Start(deadline);
  Result<std::unique_ptr<agent::Client>> agent;
  if (started) {
    agent = co_await WaitForAgent(*booted->vm, connector_, deadline);
  } else {
    agent = std::unexpected(started.error());
  }
  if (!agent) {
    if (auto gone = co_await Destroy(std::move(booted->vm)); !gone) {
      log::Error({.vm = config.id.str()},
                 "a VM that did not boot is left: " + gone.error().message);
    }
    co_return std::unexpected(agent.error());
  }
  booted->agent = *std::move(agent);
  booted->boot_time = std::chrono::steady_clock::now() - begin;
  co_return booted;
}

Task<BootedVm> Booter::Race(hypervisor::VmConfig config, Deadline deadline) {
  const Executor executor = co_await asio::this_coro::executor;
  struct Runner {
    Accelerator accelerator;
    std::optional<Result<BootedVm>> result = {};
  };
  std::array<Runner, 2> runners = {{{Accelerator::kTcg}, {Accelerator::kKvm}}};
  Runner* winner = nullptr;
  Notifier changed(executor);
  TaskScope scope(executor);
  auto run = [&](Runner& runner) -> asio::awaitable<void> {
    hypervisor::VmConfig own = config;
    own.accelerator = runner.accelerator;
    if (runner.accelerator == Accelerator::kKvm) own.id = VmId(config.id.str() + "-kvm");
    runner.result = co_await BootOne(std::move(own), deadline);
    if (*runner.result && !winner) winner = &runner;
    changed.NotifyAll();
  };
  for (Runner& runner : runners) {
    scope.Spawn("boot under " + std::string(Name(runner.accelerator)), run(runner));
  }
  bool cancelled = co_await IsCancelled();
  while (!winner && !cancelled && !(runners[0].result && runners[1].result)) {
    cancelled = !co_await changed.Wait(Deadline::max());
  }
  scope.Cancel();
  co_await scope.Join();
  for (Runner& runner : runners) {
    if (!runner.result->has_value() || (&runner == winner && !cancelled)) continue;
    (*runner.result)->agent.reset();
    if (auto gone = co_await Destroy(std::move((*runner.result)->vm)); !gone) {
      log::Error({}, "a VM that lost the race is left: " + gone.error().message);
    }
  }
  if (cancelled) co_return Cancelled("cancelled while the guest was booting");
  if (winner) co_return *std::move(winner->result);
  const Error& tcg = runners[0].result->error();
  co_return MakeError(
      tcg.code, "under tcg: " + tcg.message + "; under kvm: " + runners[1].result->error().message);
}

}  // namespace hatchery::tmpl
