#include "factory/factory.h"

#include "base/both.h"
#include "base/files.h"
#include "base/shield.h"

namespace hatchery::factory {

namespace {

constexpr std::size_t kSeedBytes = 64;
constexpr auto kDestroyRetry = std::chrono::milliseconds(100);
constexpr auto kStopTimeout = std::chrono::seconds(5);
// The second finds what the first had still to touch and translate: under emulation it costs a
// clone one millisecond of 40, and halves the time that an acquire takes.
constexpr int kRehearsals = 2;
// Between the two, an emulated guest has time to go idle, since what it does then, and when it
// wakes up, has to be translated as well: 90 blocks, 0.3 ms, that the acquire would otherwise find.
constexpr auto kIdle = std::chrono::milliseconds(5);

using SteadyClock = std::chrono::steady_clock;

}  // namespace

std::string NewMachineId() {
  std::string bytes = RandomBytes(16);
  // As a version 4 UUID, which is what systemd makes and some readers check.
  bytes[6] = static_cast<char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<char>((bytes[8] & 0x3f) | 0x80);
  return ToHex(bytes);
}

Factory::Factory(hypervisor::Driver& driver, agent::Connector& connector, tmpl::Booter& booter,
                 WorkerPool& workers, const Clock& clock, RehearseCommand rehearse_command)
    : driver_(driver),
      connector_(connector),
      booter_(booter),
      workers_(workers),
      clock_(clock),
      rehearse_command_(rehearse_command) {}

Task<void> Factory::Clone(Machine& machine, CloneRequest request, StageObserver observer,
                          Deadline deadline) {
  machine.from = request.from;
  auto made = co_await Spawn(machine, request, observer, deadline);
  if (made) made = observer(CloneStage::kWarming, *machine.vm);
  if (made) made = co_await Warm(machine, request.rehearse, deadline);
  if (made && co_await IsCancelled()) made = Cancelled("cancelled");
  if (!made) {
    Error error = made.error();
    if (machine.vm) {
      const auto tail = machine.vm->ConsoleTail(Bytes::KiB(1));
      if (!tail.empty()) error.message += "; the guest's console ends with: " + tail;
    }
    if (auto gone = co_await Destroy(machine, After(kStopTimeout)); gone) {
      machine = Machine();
    } else {
      error.message += "; and it could not be removed yet: " + gone.error().message;
    }
    co_return Annotate(std::move(error), "cloning " + request.id.str());
  }
  co_return made;
}

Task<void> Factory::Spawn(Machine& machine, const CloneRequest& request,
                          const StageObserver& observer, Deadline deadline) {
  const auto& manifest = request.from->manifest();
  hypervisor::VmConfig config;
  config.id = request.id;
  config.run_dir = booter_.run_root() / request.id.str();
  config.accelerator = manifest.accelerator;
  config.vcpus = manifest.shape.vcpus;
  config.max_vcpus = manifest.shape.max_vcpus;
  config.memory = manifest.shape.memory;
  config.max_memory = manifest.shape.max_memory;
  config.boot_from_template = true;
  // A root disk is not in memory: clones read the template's own.
  if (const auto image = manifest.inputs.find("image_path"); image != manifest.inputs.end()) {
    config.image = image->second;
  }
  config.template_memory_fd = request.from->memory_fd();
  CO_RETURN_IF_ERROR(MakeDirectories(config.run_dir, 0700));
  auto created = driver_.Create(config);
  if (!created) {
    (void)RemoveAll(config.run_dir);
    co_return std::unexpected(created.error());
  }
  machine.vm = *std::move(created);
  CO_RETURN_IF_ERROR(observer(CloneStage::kSpawning, *machine.vm));
  CO_RETURN_IF_ERROR(co_await machine.vm->Start(deadline));
  ASSIGN_OR_CO_RETURN(UniqueFd state, request.from->OpenState());
  CO_RETURN_IF_ERROR(co_await machine.vm->Load(state.get(), deadline));
  CO_RETURN_IF_ERROR(observer(CloneStage::kLoaded, *machine.vm));
  // As it was saved; what is added from here on is new to it.
  machine.online_vcpus = machine.vm->vcpus();
  machine.online_memory = machine.vm->memory();
  co_return co_await Resize(*machine.vm, request.vcpus, request.memory, deadline);
}

Task<void> Factory::Warm(Machine& machine, bool rehearse, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(machine.agent,
                      co_await connector_.Connect(machine.vm->endpoints().agent, deadline));
  if (rehearse) {
    CO_RETURN_IF_ERROR(co_await Rehearse(machine, deadline));
  } else {
    CO_RETURN_IF_ERROR(co_await machine.vm->Resume(deadline));
    CO_RETURN_IF_ERROR(co_await machine.agent->Check(deadline));
  }
  co_return co_await machine.vm->Pause(deadline);
}

Task<void> Factory::Rehearse(Machine& machine, Deadline deadline) {
  const bool translated = machine.vm->config().accelerator == hypervisor::Accelerator::kTcg;
  // Full assignments under a throw-away identity: they touch every page and translate every
  // instruction that the real one will need.
  for (int i = 0; i < kRehearsals; ++i) {
    if (i > 0 && translated) CO_RETURN_IF_ERROR(co_await SleepFor(kIdle));
    Assignment rehearsal;
    rehearsal.vcpus = machine.vm->vcpus();
    rehearsal.memory = machine.vm->memory();
    rehearsal.hostname = "warm";
    rehearsal.machine_id = NewMachineId();
    CO_RETURN_IF_ERROR(co_await Assign(machine, std::move(rehearsal), deadline));
  }
  // A command, too, the first of which takes ten times as long as the second. Under emulation that
  // costs each warm VM 8 MiB of translated code, and its hatching twice the time, to save a first
  // command some 70 ms: there it is left out unless asked for.
  const bool wanted = rehearse_command_ == RehearseCommand::kAlways ||
                      (rehearse_command_ == RehearseCommand::kAuto && !translated);
  if (!wanted) co_return Result<void>();
  // A guest without `true` is none the worse: what counts is that the path has run.
  auto ran = co_await machine.agent->Exec({.argv = {"true"}}, deadline);
  if (!ran && !machine.agent->usable()) co_return std::unexpected(ran.error());
  co_return Result<void>();
}

Task<std::unique_ptr<Machine>> Factory::ColdBoot(hypervisor::VmConfig config, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(auto booted, co_await booter_.Boot(std::move(config), deadline));
  auto machine = std::make_unique<Machine>();
  machine->vm = std::move(booted.vm);
  machine->agent = std::move(booted.agent);
  co_return machine;
}

Task<void> Factory::Resize(hypervisor::Vm& vm, std::uint32_t vcpus, Bytes memory,
                           Deadline deadline) {
  if (vcpus > vm.vcpus()) {
    CO_RETURN_IF_ERROR(co_await vm.AddVcpus(vcpus - vm.vcpus(), deadline));
  }
  if (memory > vm.memory()) {
    CO_RETURN_IF_ERROR(co_await vm.AddMemory(memory - vm.memory(), deadline));
  }
  co_return Result<void>();
}

Task<Assigned> Factory::Assign(Machine& machine, Assignment assignment, Deadline deadline) {
  Assigned assigned;
  const auto start = SteadyClock::now();
  agent::Identity identity;
  identity.had_vcpus = machine.online_vcpus > 0 ? machine.online_vcpus : machine.vm->vcpus();
  identity.had_memory =
      machine.online_memory > Bytes() ? machine.online_memory : machine.vm->memory();
  CO_RETURN_IF_ERROR(co_await Resize(*machine.vm, assignment.vcpus, assignment.memory, deadline));
  const auto resized = SteadyClock::now();
  assigned.resize = resized - start;

  identity.seed = RandomBytes(kSeedBytes);
  identity.time = clock_.Now();
  identity.hostname = std::move(assignment.hostname);
  identity.machine_id = std::move(assignment.machine_id);
  if (assignment.await_resize) {
    identity.vcpus = machine.vm->vcpus();
    identity.memory = machine.vm->memory();
  }
  // Sent before the guest runs, so that it wakes up with the request before it.
  auto [report, resumed] =
      co_await Both(machine.agent->Personalize(identity, deadline), machine.vm->Resume(deadline));
  CO_RETURN_IF_ERROR(resumed);
  ASSIGN_OR_CO_RETURN(assigned.report, std::move(report));
  if (!assigned.report.reseeded) {
    co_return Internal("the agent did not confirm the reseed of " + machine.vm->config().id.str());
  }
  machine.online_vcpus = assigned.report.online_vcpus;
  machine.online_memory = assigned.report.online_memory;
  assigned.personalize = SteadyClock::now() - resized;
  co_return assigned;
}

Task<void> Factory::Destroy(Machine& machine, Deadline deadline) {
  co_return co_await Shielded(DestroyNow(machine, deadline));
}

Task<void> Factory::DestroyNow(Machine& machine, Deadline deadline) {
  if (!machine.vm) co_return Result<void>();
  for (;;) {
    auto stopped = co_await machine.vm->Stop(Sooner(deadline, After(kStopTimeout)));
    // A file system may take milliseconds to free blocks (with `discard`, say): not on the loop.
    if (stopped) {
      stopped =
          co_await workers_.Run([dir = machine.vm->config().run_dir] { return RemoveAll(dir); });
    }
    if (stopped || std::chrono::steady_clock::now() >= deadline) co_return stopped;
    (void)co_await SleepFor(kDestroyRetry);
  }
}

}  // namespace hatchery::factory
