#include "bench/local.h"

#include <boost/asio/io_context.hpp>
#include <chrono>

#include "base/files.h"
#include "base/shield.h"
#include "hypervisor/qemu/qmp.h"

namespace hatchery::bench {

namespace {

using Clock = std::chrono::steady_clock;
using hypervisor::qemu::QemuOptions;
using hypervisor::qemu::QmpClient;

constexpr auto kBootTimeout = std::chrono::seconds(90);
constexpr auto kStartTimeout = std::chrono::seconds(20);

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

QemuOptions WithBinary(const std::string& binary) {
  QemuOptions options;
  options.binary = binary;
  return options;
}

}  // namespace

Local::Local(asio::io_context& io, LocalOptions options)
    : options_(std::move(options)),
      executor_(io.get_executor()),
      workers_(2),
      spawner_(executor_),
      driver_(executor_, spawner_, WithBinary(options_.qemu)),
      connector_(executor_),
      verdicts_(options_.root / "accelerator.json"),
      booter_(driver_, connector_, verdicts_, options_.root / "vms") {}

Task<std::string> Local::QemuVersion() {
  ASSIGN_OR_CO_RETURN(
      const CommandOutput said,
      co_await RunCommand(spawner_, {options_.qemu, "--version"}, After(kStartTimeout)));
  co_return said.out.substr(0, said.out.find('\n'));
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

Task<Local::ColdBoots> Local::BootCold(int samples) {
  ColdBoots boots;
  for (int i = 0; i < samples; ++i) {
    auto config = ConfigOf("cold");
    config.kernel = options_.image.kernel;
    config.initrd = options_.image.initrd;
    ASSIGN_OR_CO_RETURN(tmpl::BootedVm booted,
                        co_await booter_.Boot(std::move(config), After(kBootTimeout)));
    auto stats = co_await booted.vm->Stats(After(kStartTimeout));
    booted.agent.reset();
    CO_RETURN_IF_ERROR(co_await booter_.Destroy(std::move(booted.vm)));
    if (!stats) co_return std::unexpected(stats.error());
    boots.seconds.push_back(std::chrono::duration<double>(booted.boot_time).count());
    boots.private_bytes.push_back(static_cast<double>(stats->private_memory.count()));
  }
  co_return boots;
}

Task<std::shared_ptr<const tmpl::LoadedTemplate>> Local::LoadLinked(std::filesystem::path folder) {
  const auto root = options_.root / "templates";
  CO_RETURN_IF_ERROR(MakeDirectories(root, 0700));
  std::error_code error;
  fs::copy(folder, root / folder.filename(),
           fs::copy_options::recursive | fs::copy_options::create_hard_links, error);
  if (error) co_return Internal("linking " + folder.string() + ": " + error.message());
  ASSIGN_OR_CO_RETURN(store_, tmpl::Store::Open(root, workers_));
  co_return co_await store_->Load(TemplateDigest(folder.filename().string()));
}

Task<Local::Starts> Local::StartInTurn(std::filesystem::path folder, int samples) {
  ASSIGN_OR_CO_RETURN(const auto from, co_await LoadLinked(std::move(folder)));
  Starts starts;
  for (int i = 0; i <= samples; ++i) {
    ASSIGN_OR_CO_RETURN(const double clone, co_await StartClone(from));
    ASSIGN_OR_CO_RETURN(const double bare, co_await StartBare());
    if (i == 0) continue;
    starts.clone.push_back(clone);
    starts.bare.push_back(bare);
  }
  co_return starts;
}

Task<double> Local::StartClone(std::shared_ptr<const tmpl::LoadedTemplate> from) {
  auto config = ConfigOf("clone");
  config.run_dir = booter_.run_root() / config.id.str();
  config.boot_from_template = true;
  config.template_memory_fd = from->memory_fd();
  CO_RETURN_IF_ERROR(MakeDirectories(config.run_dir, 0700));
  ASSIGN_OR_CO_RETURN(const UniqueFd state, from->OpenState());
  const auto start = Clock::now();
  ASSIGN_OR_CO_RETURN(auto vm, driver_.Create(std::move(config)));
  auto loaded = co_await vm->Start(After(kStartTimeout));
  if (loaded) loaded = co_await vm->Load(state.get(), After(kStartTimeout));
  const double took = SecondsSince(start);
  CO_RETURN_IF_ERROR(co_await booter_.Destroy(std::move(vm)));
  if (!loaded) co_return std::unexpected(loaded.error());
  co_return took;
}

Task<double> Local::StartBare() {
  const auto folder = options_.root / NewId("bare");
  CO_RETURN_IF_ERROR(MakeDirectories(folder, 0700));
  auto took = co_await GreetBare(folder);
  CO_RETURN_IF_ERROR(RemoveAll(folder));
  co_return took;
}

Task<double> Local::GreetBare(const std::filesystem::path& folder) {
  ASSIGN_OR_CO_RETURN(const UniqueFd qmp, ListenUnix(folder / "qmp.sock", 0600));
  ASSIGN_OR_CO_RETURN(UniqueFd control, ConnectUnix(folder / "qmp.sock"));
  SpawnRequest request;
  request.argv = {
      options_.qemu, "-S",
      "-machine",    "q35",
      "-accel",      std::string(hypervisor::Name(options_.accelerator)),
      "-nodefaults", "-nographic",
      "-chardev",    "socket,id=qmp,fd=" + std::to_string(qmp.get()) + ",server=on,wait=off",
      "-mon",        "chardev=qmp,mode=control"};
  request.env = MinimalEnvironment();
  request.inherit = {qmp.get()};
  const auto start = Clock::now();
  ASSIGN_OR_CO_RETURN(const auto process, spawner_.Spawn(request));
  QmpClient client(executor_, std::move(control), {});
  const auto greeted = co_await client.Handshake(After(kStartTimeout));
  const double took = SecondsSince(start);
  auto ended = co_await Shielded(process->Kill(After(kStartTimeout)));
  if (!greeted) co_return std::unexpected(greeted.error());
  if (!ended) co_return std::unexpected(ended.error());
  co_return took;
}

}  // namespace hatchery::bench
