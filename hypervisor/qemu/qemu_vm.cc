#include "hypervisor/qemu/qemu_vm.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/files.h"
#include "hypervisor/qemu/handle.h"
#include "hypervisor/qemu/hotplug.h"
#include "hypervisor/qemu/proc.h"
#include "hypervisor/qemu/vsock.h"

namespace hatchery::hypervisor::qemu {

namespace {

using InstancePtr = std::shared_ptr<Instance>;
using std::chrono::seconds;

// Cleaning up after a failure has its own deadline: the verb's may have passed.
constexpr auto kCleanupTime = seconds(5);

Result<void> Require(const Instance& vm, std::string_view verb,
                     std::initializer_list<VmState> allowed) {
  for (const VmState state : allowed) {
    if (vm.state == state) return {};
  }
  return FailedPrecondition("VM " + vm.config.id.str() + " is " + std::string(Name(vm.state)) +
                            ": it cannot " + std::string(verb));
}

// A descriptor for QEMU to read from. A file's gets an offset of its own: QEMU moves it.
Result<UniqueFd> ForReading(int fd) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return ErrnoError(errno, "looking at the state's file");
  if (!S_ISREG(info.st_mode)) return Duplicate(fd);
  const off_t offset = ::lseek(fd, 0, SEEK_CUR);
  ASSIGN_OR_RETURN(UniqueFd own, Reopen(fd, O_RDONLY));
  if (offset < 0 || ::lseek(own.get(), offset, SEEK_SET) < 0) {
    return ErrnoError(errno, "seeking in the state's file");
  }
  return own;
}

constexpr unsigned kOwnerOnly = 0600;

// The files of a VM that runs as a user of its own, opened here and given to it.
struct OwnFiles {
  UniqueFd console, kernel, initrd, image;
};

Result<UniqueFd> OpenForVm(const Instance& vm, const std::filesystem::path& path) {
  if (path.empty()) return UniqueFd();
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "opening " + path.string());
  RETURN_IF_ERROR(vm.isolation->MayRead(*vm.cell, fd.get(), path));
  return fd;
}

Result<OwnFiles> OpenFiles(const Instance& vm) {
  OwnFiles files;
  if (!vm.cell->uid) return files;
  const auto path = ConsoleLog(vm.config);
  files.console =
      UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kOwnerOnly));
  if (!files.console || ::fchown(files.console.get(), *vm.cell->uid, *vm.cell->uid) != 0) {
    return ErrnoError(errno, "making " + path.string());
  }
  ASSIGN_OR_RETURN(files.kernel, OpenForVm(vm, vm.config.kernel));
  ASSIGN_OR_RETURN(files.initrd, OpenForVm(vm, vm.config.initrd));
  ASSIGN_OR_RETURN(files.image, OpenForVm(vm, vm.config.image));
  return files;
}

Result<void> Spawn(Instance& vm, ProcessSpawner& spawner, const QemuOptions& options) {
  ASSIGN_OR_RETURN(vm.cell, vm.isolation->Enclose(vm.config));
  ASSIGN_OR_RETURN(const auto confined, vm.isolation->Confine(*vm.cell));
  ASSIGN_OR_RETURN(const OwnFiles files, OpenFiles(vm));
  ReservedCid vsock;
  if (options.vsock) {
    ASSIGN_OR_RETURN(vsock, ReserveCid(*options.vsock));
  }
  vm.config.cid = vsock.cid;
  ASSIGN_OR_RETURN(UniqueFd agent, ListenUnix(AgentSocket(vm.config), kOwnerOnly));
  ASSIGN_OR_RETURN(UniqueFd qmp, ListenUnix(QmpSocket(vm.config), kOwnerOnly));
  UniqueFd log(
      ::open(VmmLog(vm.config).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kOwnerOnly));
  if (!log) return ErrnoError(errno, "opening " + VmmLog(vm.config).string());
  // Connected before QEMU is there: it finds us in its backlog, and if it dies first, we find out.
  ASSIGN_OR_RETURN(UniqueFd control, ConnectUnix(QmpSocket(vm.config)));

  SpawnRequest request;
  request.argv = CommandLine(options, vm.config,
                             {.agent = agent.get(),
                              .qmp = qmp.get(),
                              .console = files.console.get(),
                              .kernel = files.kernel.get(),
                              .initrd = files.initrd.get(),
                              .image = files.image.get(),
                              .vsock = vsock.device.get()});
  request.env = MinimalEnvironment();
  // One heap for all of QEMU's threads, which allocate little: a second costs each VM 0.6 MiB.
  request.env.emplace_back("MALLOC_ARENA_MAX=1");
  // An emulated VM gains nothing from the huge page that QEMU's ACPI tables would take: 2 MiB of
  // the 19 that an idle clone costs. Under KVM, hot-added memory wants them.
  request.huge_pages = vm.config.accelerator != Accelerator::kTcg;
  for (const int fd :
       {agent.get(), qmp.get(), vm.config.template_memory_fd, files.console.get(),
        files.kernel.get(), files.initrd.get(), files.image.get(), vsock.device.get()}) {
    if (fd >= 0) request.inherit.push_back(fd);
  }
  request.stdout_fd = log.get();
  request.stderr_fd = log.get();
  request.confinement = confined.confinement;
  ASSIGN_OR_RETURN(auto process, spawner.Spawn(request));
  if (auto watched = vm.Watch(process); !watched) {
    vm.EndUnwatched(std::move(process));
    return watched;
  }
  vm.Connect(std::move(control));
  return {};
}

// Events for Load() and Save(), and leave out memory that is shared with a file.
Task<void> EnableMigration(InstancePtr vm, Deadline deadline) {
  Json wanted = Json::array();
  for (const char* capability : {"events", "x-ignore-shared"}) {
    wanted.push_back({{"capability", capability}, {"state", true}});
  }
  auto enabled =
      co_await vm->Execute("migrate-set-capabilities", {{"capabilities", wanted}}, deadline);
  if (!enabled) co_return std::unexpected(enabled.error());
  co_return Result<void>();
}

Task<void> Greet(InstancePtr vm, Deadline deadline) {
  CO_RETURN_IF_ERROR(co_await vm->qmp->Handshake(deadline));
  const VmConfig& config = vm->config;
  if (config.boot_to_be_template || config.boot_from_template) {
    CO_RETURN_IF_ERROR(co_await EnableMigration(vm, deadline));
  }
  vm->greeted = true;
  co_return Result<void>();
}

// Moves device state through `fd`, in the direction that `command` says.
Task<void> Migrate(InstancePtr vm, std::string command, int fd, Deadline deadline) {
  auto given = co_await vm->Execute("getfd", {{"fdname", "state"}}, deadline, fd);
  if (!given) co_return std::unexpected(given.error());
  vm->migration_status.clear();
  auto begun = co_await vm->Execute(command, {{"uri", "fd:state"}}, deadline);
  if (!begun) co_return std::unexpected(begun.error());
  CO_RETURN_IF_ERROR(co_await vm->WaitUntil(
      [&] {
        return vm->migration_status == "completed" || vm->migration_status == "failed" ||
               vm->migration_status == "cancelled";
      },
      deadline));
  if (vm->migration_status == "completed") co_return Result<void>();
  // An incoming one that fails ends QEMU, which says why on stderr.
  if (command == "migrate-incoming") co_return Unavailable("QEMU could not read the state");
  auto info = co_await vm->Execute("query-migrate", {}, deadline);
  const std::string why = info ? Text(*info, "error-desc") : info.error().message;
  co_return Internal(why.empty() ? "migration " + vm->migration_status : why);
}

Result<VmState> StateOf(std::string_view run_state) {
  if (run_state == "running") return VmState::kRunning;
  if (run_state == "inmigrate") return VmState::kLoading;
  // A template is in "postmigrate" once it has been saved.
  if (run_state == "paused" || run_state == "postmigrate") return VmState::kPaused;
  return Unavailable("QEMU is in run state " + std::string(run_state));
}

Task<void> ConnectAgain(InstancePtr vm, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(UniqueFd control, ConnectUnix(QmpSocket(vm->config)));
  vm->Connect(std::move(control));
  CO_RETURN_IF_ERROR(co_await vm->qmp->Handshake(deadline));
  ASSIGN_OR_CO_RETURN(const Json status, co_await vm->Execute("query-status", {}, deadline));
  const std::string run_state = Text(status, "status");
  // It did so while nobody was there to hear of it.
  if (vm->EndIfBroken(run_state)) co_return Unavailable("QEMU stopped the guest: " + run_state);
  ASSIGN_OR_CO_RETURN(const VmState state, StateOf(run_state));
  CO_RETURN_IF_ERROR(co_await LearnHotAdded(vm, deadline));
  if (vm->exit.has_value()) co_return Unavailable("QEMU has ended");
  vm->state = state;
  vm->greeted = true;
  co_return Result<void>();
}

}  // namespace

QemuVm::QemuVm(ProcessSpawner& spawner, QemuOptions options, InstancePtr vm)
    : spawner_(spawner), options_(std::move(options)), vm_(std::move(vm)) {}

QemuVm::~QemuVm() { vm_->Detach(); }

Result<std::unique_ptr<QemuVm>> QemuVm::Find(Executor executor, ProcessSpawner& spawner,
                                             QemuOptions options,
                                             std::shared_ptr<Isolation> isolation,
                                             const std::string& handle) {
  ASSIGN_OR_RETURN(HandleData data, DecodeHandle(handle));
  auto process = Process::Adopt(executor, data.process);
  if (!process) {
    // Nobody else remembers where its groups are. One that has members stays.
    (void)RemoveCgroup(data.cell.cgroup);
    return std::unexpected(process.error());
  }
  auto instance = std::make_shared<Instance>(executor, std::move(data.config), isolation);
  isolation->Claim(data.cell);
  instance->cell = std::move(data.cell);
  instance->state = data.handed_over ? VmState::kHandedOver : VmState::kFailed;
  RETURN_IF_ERROR(instance->Watch(*process));
  return std::make_unique<QemuVm>(spawner, std::move(options), std::move(instance));
}

bool QemuVm::reachable() const {
  return vm_->greeted && vm_->qmp && vm_->qmp->open() && !vm_->exit.has_value();
}

Task<void> QemuVm::Reconnect(Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(
      Require(*vm, "be reached again",
              {VmState::kLoading, VmState::kRunning, VmState::kPaused, VmState::kFailed}));
  if (!vm->process) co_return FailedPrecondition("it has no VMM");
  vm->greeted = false;
  auto again = co_await ConnectAgain(vm, deadline);
  if (again) co_return again;
  // QEMU serves one connection at a time: a dead one must not be in the way of the next.
  if (vm->qmp) vm->qmp->Close();
  co_return again;
}

Endpoints QemuVm::endpoints() const {
  Endpoints found = {.pid = vm_->process ? vm_->process->pid() : -1,
                     .agent = UnixEndpoint{AgentSocket(vm_->config)},
                     .control = QmpSocket(vm_->config),
                     .console_log = ConsoleLog(vm_->config)};
  if (vm_->config.cid != 0 && !vm_->exit.has_value()) {
    found.agent_vsock = VsockEndpoint{.cid = vm_->config.cid};
  }
  return found;
}

Task<void> QemuVm::Start(Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "be started", {VmState::kCreated}));
  vm->starting = true;
  auto started = Spawn(*vm, spawner_, options_);
  if (started) started = co_await Greet(vm, deadline);
  if (started && !vm->stop_requested) {
    vm->starting = false;
    vm->state = vm->config.boot_from_template ? VmState::kLoading : VmState::kRunning;
    co_return Result<void>();
  }
  auto failed = started ? Result<void>(Cancelled("the VM was stopped")) : started;
  failed = co_await vm->Fail("starting " + options_.binary, failed.error());
  if (vm->process) {
    (void)co_await vm->End(After(kCleanupTime));
  } else {
    vm->LeaveCell();
    for (const auto& socket : {AgentSocket(vm->config), QmpSocket(vm->config)}) {
      (void)RemoveAll(socket);
    }
    vm->exit.Set({ExitReason::Kind::kVmmExited, failed.error().message});
    vm->changed.NotifyAll();
  }
  vm->starting = false;
  co_return failed;
}

Task<void> QemuVm::Load(int state_fd, Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "load a state", {VmState::kLoading}));
  auto loaded = Result<void>();
  if (auto own = ForReading(state_fd)) {
    loaded = co_await Migrate(vm, "migrate-incoming", own->get(), deadline);
  } else {
    loaded = std::unexpected(own.error());
  }
  if (!loaded) co_return co_await vm->Fail("loading the saved state", loaded.error());
  vm->state = VmState::kPaused;
  co_return Result<void>();
}

Task<void> QemuVm::Pause(Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "be paused", {VmState::kRunning, VmState::kPaused}));
  if (vm->state == VmState::kPaused) co_return Result<void>();
  auto stopped = co_await vm->Execute("stop", {}, deadline);
  if (!stopped) co_return co_await vm->Fail("pausing the VM", stopped.error());
  if (vm->state == VmState::kRunning) vm->state = VmState::kPaused;
  co_return Result<void>();
}

Task<void> QemuVm::Resume(Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "be resumed", {VmState::kRunning, VmState::kPaused}));
  if (vm->state == VmState::kRunning) co_return Result<void>();
  auto resumed = co_await vm->Execute("cont", {}, deadline);
  if (!resumed) co_return co_await vm->Fail("resuming the VM", resumed.error());
  if (vm->state == VmState::kPaused) vm->state = VmState::kRunning;
  co_return Result<void>();
}

Task<void> QemuVm::Save(int state_fd, Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "be saved", {VmState::kPaused}));
  if (!vm->config.boot_to_be_template) {
    co_return FailedPrecondition("only a VM with boot_to_be_template can be saved");
  }
  auto saved = co_await Migrate(vm, "migrate", state_fd, deadline);
  if (!saved) co_return co_await vm->Fail("saving the state", saved.error());
  co_return Result<void>();
}

bool QemuVm::Supports(Resource resource, Operation operation) const {
  // QEMU 7.2 does not forget a removed vCPU's address space under TCG: the next change of the
  // memory map, such as a DIMM that leaves, may crash it (seen in 2 of 3 tries).
  return resource != Resource::kVcpu || operation != Operation::kHotRemove ||
         vm_->config.accelerator != Accelerator::kTcg;
}

Task<void> QemuVm::AddVcpus(std::uint32_t count, Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "get vCPUs", {VmState::kRunning, VmState::kPaused}));
  bool broken = false;
  auto added = co_await qemu::AddVcpus(vm, count, deadline, &broken);
  if (!added && broken) co_return co_await vm->Fail("adding vCPUs", added.error());
  co_return added;
}

Task<void> QemuVm::AddMemory(Bytes size, Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "get memory", {VmState::kRunning, VmState::kPaused}));
  bool broken = false;
  auto added = co_await qemu::AddMemory(vm, size, deadline, &broken);
  if (!added && broken) co_return co_await vm->Fail("adding memory", added.error());
  co_return added;
}

Task<void> QemuVm::RemoveVcpus(std::uint32_t count, Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "give up vCPUs", {VmState::kRunning}));
  if (!Supports(Resource::kVcpu, Operation::kHotRemove)) {
    co_return Unimplemented("QEMU cannot safely remove vCPUs under TCG");
  }
  auto removed = co_await qemu::RemoveVcpus(vm, count, deadline);
  if (!removed && removed.error().code == Code::kUnavailable) {
    co_return co_await vm->Fail("removing vCPUs", removed.error());
  }
  co_return removed;
}

Task<void> QemuVm::RemoveMemory(Bytes size, Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "give up memory", {VmState::kRunning}));
  auto removed = co_await qemu::RemoveMemory(vm, size, deadline);
  if (!removed && removed.error().code == Code::kUnavailable) {
    co_return co_await vm->Fail("removing memory", removed.error());
  }
  co_return removed;
}

std::uint32_t QemuVm::vcpus() const { return vm_->config.vcpus + vm_->hot_vcpus; }
Bytes QemuVm::memory() const { return vm_->config.memory + HotAddedMemory(*vm_); }

Task<Handover> QemuVm::HandOver(Deadline deadline) {
  const InstancePtr vm = vm_;
  CO_RETURN_IF_ERROR(Require(*vm, "be handed over", {VmState::kPaused}));
  // What we remember is what QEMU has, or the next one would plug devices into each other.
  CO_RETURN_IF_ERROR(co_await LearnHotAdded(vm, deadline));
  if (vm->state != VmState::kPaused) co_return Unavailable("QEMU has ended");
  Handover handover;
  handover.uuid = UuidOf(vm->config.id);
  handover.vcpus = vm->config.vcpus;
  handover.max_vcpus = vm->config.max_vcpus;
  for (std::uint32_t i = 0; i < vm->hot_vcpus; ++i) {
    handover.hot_vcpus.push_back(DeviceId("cpu", i));
  }
  handover.bridges.push_back({std::string(kBridge), kBridgeAddr, kBridgeSlots});
  vm->LetGo();
  co_return handover;
}

Task<VmStats> QemuVm::Stats(Deadline) {
  const InstancePtr vm = vm_;
  if (!vm->process || vm->process->ended()) co_return FailedPrecondition("the VM does not run");
  const pid_t pid = vm->process->pid();
  auto read = options_.workers == nullptr
                  ? ReadProcessStats(pid)
                  : co_await options_.workers->Run([pid] { return ReadProcessStats(pid); });
  if (!vm->process || vm->process->ended()) co_return FailedPrecondition("the VM has ended");
  ASSIGN_OR_CO_RETURN(VmStats stats, std::move(read));
  stats.assigned = vm->config.memory + HotAddedMemory(*vm);
  co_return stats;
}

std::string QemuVm::ConsoleTail(Bytes size) const {
  return ReadTail(ConsoleLog(vm_->config), size).value_or("");
}

Task<ExitReason> QemuVm::Wait(Deadline deadline) {
  const InstancePtr vm = vm_;
  while (!vm->exit.has_value()) {
    if (vm->detached) co_return Cancelled("the VM's object is gone");
    CO_RETURN_IF_ERROR(co_await vm->changed.Wait(deadline));
  }
  co_return *vm->exit.value();
}

Task<void> QemuVm::Stop(Deadline deadline) {
  const InstancePtr vm = vm_;
  vm->stop_requested = true;
  if (!vm->process) {
    // Never started, or there was nothing to start.
    vm->exit.Set({ExitReason::Kind::kStopped, "never started"});
    vm->changed.NotifyAll();
  } else {
    CO_RETURN_IF_ERROR(co_await vm->End(deadline));
  }
  vm->state = VmState::kStopped;
  co_return Result<void>();
}

std::string QemuVm::Handle() const {
  return EncodeHandle({.process = vm_->process ? vm_->process->identity() : ProcessIdentity{},
                       .config = vm_->config,
                       .cell = vm_->cell.value_or(Cell{}),
                       .handed_over = vm_->state == VmState::kHandedOver});
}

}  // namespace hatchery::hypervisor::qemu
