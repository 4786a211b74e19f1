#include "bench/local.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <vector>

#include "base/files.h"
#include "base/shield.h"
#include "bench/measure.h"
#include "hypervisor/qemu/qmp.h"
#include "hypervisor/qemu/zygote.h"

namespace hatchery::bench {

namespace {

using factory::CloneStage;
using factory::Machine;
using hypervisor::qemu::QemuOptions;
using hypervisor::qemu::QmpClient;

constexpr auto kBootTimeout = std::chrono::seconds(90);
constexpr auto kStartTimeout = std::chrono::seconds(20);
constexpr auto kCallTimeout = std::chrono::seconds(30);

QemuOptions WithBinary(const std::string& binary) {
  QemuOptions options;
  options.binary = binary;
  return options;
}

// As the daemon starts VMMs.
std::unique_ptr<ProcessSpawner> MakeVmmSpawner(const Executor& executor, ProcessSpawner& plain,
                                               const std::string& qemu) {
  const auto library = hypervisor::qemu::FindZygoteLibrary();
  if (library.empty()) return nullptr;
  return std::make_unique<hypervisor::qemu::ZygoteSpawner>(executor, plain, library, qemu);
}

// Returns when `socket`, which stays the caller's, has something to read. Shared with the timer,
// whose handler may run after this has returned.
Task<void> AwaitReadable(int socket, Deadline deadline) {
  using Descriptor = asio::posix::stream_descriptor;
  const auto executor = co_await asio::this_coro::executor;
  const auto descriptor = std::make_shared<Descriptor>(executor, socket);
  asio::steady_timer timer(executor, deadline);
  timer.async_wait([descriptor](boost::system::error_code cancelled) {
    boost::system::error_code ignored;
    if (!cancelled) descriptor->cancel(ignored);
  });
  const auto [error] =
      co_await descriptor->async_wait(Descriptor::wait_read, asio::as_tuple(asio::use_awaitable));
  descriptor->release();
  if (!error) co_return Result<void>();
  if (co_await IsCancelled()) co_return Cancelled("cancelled while QEMU started");
  co_return DeadlineExceeded("QEMU does not greet");
}

// Runs `again()`, which answers with an error once it is to end, until then.
asio::awaitable<void> Repeat(std::function<Task<void>()> again) {
  while (co_await again()) {
  }
}

}  // namespace

struct Local::Bare {
  explicit Bare(fs::path where) : folder(std::move(where)) {}
  fs::path folder;
  std::unique_ptr<Process> process;
  std::unique_ptr<QmpClient> qmp;
};

Local::Local(asio::io_context& io, LocalOptions options)
    : options_(std::move(options)),
      executor_(io.get_executor()),
      workers_(2),
      spawner_(executor_),
      vmm_spawner_(MakeVmmSpawner(executor_, spawner_, options_.qemu)),
      driver_(executor_, vmm_spawner_ ? *vmm_spawner_ : spawner_, WithBinary(options_.qemu)),
      connector_(executor_),
      verdicts_(options_.root / "accelerator.json"),
      booter_(driver_, connector_, verdicts_, options_.root / "vms"),
      factory_(driver_, connector_, booter_, workers_, clock_) {}

Task<void> Local::UseTemplate(fs::path folder) {
  const auto root = options_.root / "templates";
  CO_RETURN_IF_ERROR(MakeDirectories(root, 0700));
  std::error_code error;
  fs::copy(folder, root / folder.filename(),
           fs::copy_options::recursive | fs::copy_options::create_hard_links, error);
  if (error) co_return Internal("linking " + folder.string() + ": " + error.message());
  ASSIGN_OR_CO_RETURN(store_, tmpl::Store::Open(root, workers_));
  ASSIGN_OR_CO_RETURN(template_, co_await store_->Load(TemplateDigest(folder.filename().string())));
  co_return Result<void>();
}

hypervisor::VmConfig Local::ConfigOf(const char* prefix) const {
  hypervisor::VmConfig config;
  config.id = VmId(NewId(prefix));
  config.accelerator = options_.accelerator;
  config.vcpus = options_.shape.vcpus;
  config.max_vcpus = options_.shape.max_vcpus;
  config.memory = options_.shape.memory;
  config.max_memory = options_.shape.max_memory;
  return config;
}

Task<std::unique_ptr<Machine>> Local::BootCold() {
  auto config = ConfigOf("cold");
  config.kernel = options_.image.kernel;
  config.initrd = options_.image.initrd;
  co_return co_await factory_.ColdBoot(std::move(config), After(kBootTimeout));
}

Task<Local::CloneTimes> Local::Clone(Machine& machine) {
  CloneTimes times;
  factory::CloneRequest request{VmId(NewId("clone")), template_, options_.shape.vcpus,
                                options_.shape.memory, /*rehearse=*/false};
  const auto start = SteadyClock::now();
  const auto observe = [&](CloneStage stage, const hypervisor::Vm& vm) -> Result<void> {
    if (stage != CloneStage::kLoaded) return {};
    times.loaded = SecondsSince(start);
    ASSIGN_OR_RETURN(times.loaded_cpu, CpuSeconds(vm.endpoints().pid));
    return {};
  };
  CO_RETURN_IF_ERROR(
      co_await factory_.Clone(machine, std::move(request), observe, After(kStartTimeout)));
  times.warm = SecondsSince(start);
  ASSIGN_OR_CO_RETURN(times.warm_cpu, CpuSeconds(machine.vm->endpoints().pid));
  co_return times;
}

Task<void> Local::Assign(Machine& machine) {
  factory::Assignment assignment;
  assignment.vcpus = machine.vm->vcpus();
  assignment.memory = machine.vm->memory();
  assignment.hostname = machine.vm->config().id.str();
  assignment.machine_id = factory::NewMachineId();
  auto assigned = co_await factory_.Assign(machine, std::move(assignment), After(kCallTimeout));
  if (!assigned) co_return std::unexpected(assigned.error());
  co_return Result<void>();
}

Task<double> Local::Exec(Machine& machine) {
  const agent::ExecRequest request{.argv = {"/bin/true"}};
  const auto start = SteadyClock::now();
  ASSIGN_OR_CO_RETURN(const auto ran, co_await machine.agent->Exec(request, After(kCallTimeout)));
  const double took = SecondsSince(start);
  if (ran.exit_code != 0) co_return Internal("/bin/true failed in the VM");
  co_return took;
}

Task<double> Local::HotAdd(Machine& machine, std::uint32_t vcpus, Bytes memory) {
  const Deadline deadline = After(kCallTimeout);
  agent::Identity wanted;
  wanted.seed = RandomBytes(64);
  wanted.renew_boot_id = false;
  wanted.vcpus = machine.vm->vcpus() + vcpus;
  wanted.memory = machine.vm->memory() + memory;
  wanted.had_vcpus = machine.vm->vcpus();
  wanted.had_memory = machine.vm->memory();
  const auto start = SteadyClock::now();
  if (vcpus > 0) CO_RETURN_IF_ERROR(co_await machine.vm->AddVcpus(vcpus, deadline));
  if (memory > Bytes()) CO_RETURN_IF_ERROR(co_await machine.vm->AddMemory(memory, deadline));
  wanted.time = clock_.Now();
  ASSIGN_OR_CO_RETURN(const auto report, co_await machine.agent->Personalize(wanted, deadline));
  const double took = SecondsSince(start);
  if (report.online_vcpus < wanted.vcpus || report.online_memory < wanted.memory) {
    co_return Internal("the guest has not brought online what was added");
  }
  co_return took;
}

Task<void> Local::Destroy(Machine& machine) {
  auto destroyed = co_await factory_.Destroy(machine, After(kStartTimeout));
  machine = Machine();
  co_return destroyed;
}

Task<Local::BareTimes> Local::StartBare() {
  Bare bare(options_.root / NewId("bare"));
  auto times = co_await Spawn(bare);
  CO_RETURN_IF_ERROR(co_await Shielded(End(bare)));
  co_return times;
}

Task<double> Local::StartBares(std::uint32_t count, std::size_t at_once) {
  std::vector<std::unique_ptr<Bare>> bares;
  Result<void> all;
  TaskScope scope(executor_);
  const auto start = SteadyClock::now();
  const auto next = [&]() -> Task<void> {
    if (!all || bares.size() == count) co_return Cancelled("no more");
    bares.push_back(std::make_unique<Bare>(options_.root / NewId("bare")));
    const auto times = co_await Spawn(*bares.back());
    if (!times && all) all = std::unexpected(times.error());
    co_return all;
  };
  for (std::size_t i = 0; i < at_once; ++i) scope.Spawn("bare QEMUs", Repeat(next));
  co_await Shielded(scope.Join());
  const double took = SecondsSince(start);
  for (const auto& bare : bares) {
    if (auto ended = co_await Shielded(End(*bare)); !ended && all) all = ended;
  }
  if (!all) co_return std::unexpected(all.error());
  co_return took;
}

Task<Local::BareTimes> Local::Spawn(Bare& bare) {
  CO_RETURN_IF_ERROR(MakeDirectories(bare.folder, 0700));
  ASSIGN_OR_CO_RETURN(const UniqueFd socket, ListenUnix(bare.folder / "qmp.sock", 0600));
  ASSIGN_OR_CO_RETURN(UniqueFd control, ConnectUnix(bare.folder / "qmp.sock"));
  SpawnRequest request;
  request.argv = {
      options_.qemu, "-S",
      "-machine",    "q35",
      "-accel",      std::string(hypervisor::Name(options_.accelerator)),
      "-nodefaults", "-nographic",
      "-chardev",    "socket,id=qmp,fd=" + std::to_string(socket.get()) + ",server=on,wait=off",
      "-mon",        "chardev=qmp,mode=control"};
  request.env = MinimalEnvironment();
  request.inherit = {socket.get()};
  BareTimes times;
  const auto start = SteadyClock::now();
  ASSIGN_OR_CO_RETURN(bare.process, spawner_.Spawn(request));
  CO_RETURN_IF_ERROR(co_await AwaitReadable(control.get(), After(kStartTimeout)));
  times.greeting = SecondsSince(start);
  bare.qmp = std::make_unique<QmpClient>(executor_, std::move(control), QmpClient::Handlers());
  CO_RETURN_IF_ERROR(co_await bare.qmp->Handshake(After(kStartTimeout)));
  times.answer = SecondsSince(start);
  ASSIGN_OR_CO_RETURN(times.cpu, CpuSeconds(bare.process->pid()));
  co_return times;
}

Task<void> Local::End(Bare& bare) {
  bare.qmp.reset();
  if (bare.process) {
    auto ended = co_await bare.process->Kill(After(kStartTimeout));
    if (!ended) co_return std::unexpected(ended.error());
  }
  co_return RemoveAll(bare.folder);
}

}  // namespace hatchery::bench
