#include "cmd/hatcheryd/daemon.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <thread>

#include "agent/client/ttrpc_client.h"
#include "agent/fake/fake_agent.h"
#include "base/files.h"
#include "base/log.h"
#include "base/run.h"
#include "base/without_throwing.h"
#include "cache/cache.h"
#include "cache/kata/config.h"
#include "cache/rpc/kata_server.h"
#include "cache/rpc/server.h"
#include "cache/rpc/unix_listener.h"
#include "hypervisor/fake/fake_driver.h"
#include "hypervisor/isolation.h"
#include "hypervisor/qemu/proc.h"
#include "hypervisor/qemu/qemu_driver.h"
#include "hypervisor/qemu/vsock.h"
#include "hypervisor/qemu/zygote.h"
#include "image/image.h"

namespace hatchery::daemon {

namespace {

// Recovery looks at every VM of the last daemon; each has its own, shorter deadline.
constexpr auto kStartTimeout = std::chrono::minutes(5);
constexpr auto kStopTimeout = std::chrono::seconds(60);
// How long calls that are not acquires may go on once we stop.
constexpr auto kLastCalls = std::chrono::milliseconds(500);

// The longest name below vms/: "vm-" and 16 digits, "-kvm", "/console.sock".
constexpr std::size_t kLongestSocketSuffix = 5 + 19 + 4 + 14;
constexpr std::size_t kMaxSocketPath = 107;

// A VM costs a handful of descriptors; the usual soft limit of 1024 would end a pool of 200.
void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

Result<std::string> HostBootId() {
  ASSIGN_OR_RETURN(std::string id, ReadFile("/proc/sys/kernel/random/boot_id"));
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

Result<void> PrepareStateDir(const StatePaths& paths) {
  if (paths.root.string().size() + kLongestSocketSuffix > kMaxSocketPath) {
    return MakeError(Code::kInvalidArgument,
                     "state_dir: '" + paths.root.string() +
                         "' is too long for unix sockets below " + "it; at most " +
                         std::to_string(kMaxSocketPath - kLongestSocketSuffix) + " bytes");
  }
  RETURN_IF_ERROR(MakeDirectories(paths.root, 0755));
  // They hold guests' memory: nobody else's to read.
  for (const auto& path : {paths.metadata, paths.templates, paths.vms}) {
    RETURN_IF_ERROR(MakeDirectories(path, 0700));
  }
  return {};
}

cache::Settings CacheSettings(const Config& config) {
  cache::Settings s;
  const std::size_t cpus = std::max(1u, std::thread::hardware_concurrency());
  s.parallel_clones = config.pool.parallel_clones > 0 ? config.pool.parallel_clones : cpus;
  s.parallel_acquires = config.acquire.parallel > 0 ? config.acquire.parallel : 2 * cpus;
  s.clone_timeout = config.pool.clone_timeout;
  s.pool_size = config.pool.size;
  s.learn.enabled = config.pool.learn;
  s.learn.after = config.pool.learn_after;
  s.learn.window = config.pool.learn_window;
  s.learn.size = config.pool.learned_size;
  s.learn.pools = config.pool.learned_pools;
  s.learn.memory = config.pool.learned_memory;
  s.acquire_timeout = config.acquire.timeout;
  s.personalize_timeout = config.acquire.personalize_timeout;
  s.waiting_acquires = config.acquire.waiting;
  s.lease_grace = config.lease.grace;
  s.longest_ttl = config.lease.longest_ttl;
  // Fake VMs take no memory of the host's.
  if (config.driver.name != DriverName::kFake) s.limits.host_reserve = config.limits.host_reserve;
  s.limits.growth_percent = config.limits.growth_percent;
  s.limits.tenant_leases = config.limits.tenant_leases;
  s.limits.tenant_vcpus = config.limits.tenant_vcpus;
  s.limits.tenant_memory = config.limits.tenant_memory;
  s.health.agent_interval = config.health.agent_interval;
  s.health.agent_timeout = config.health.agent_timeout;
  s.health.end_silent_after = config.health.end_silent_after;
  s.health.quarantine_after = config.health.quarantine_after;
  s.health.events = config.health.events;
  s.keep_warm_on_stop = config.stop.warm == OnStop::kKeep;
  s.shape.vcpus = config.tmpl.vcpus;
  s.shape.max_vcpus = config.tmpl.max_vcpus;
  s.shape.memory = config.tmpl.memory;
  s.shape.max_memory = config.tmpl.max_memory;
  s.boot_timeout = config.tmpl.boot_timeout;
  s.accelerator = config.driver.accelerator;
  s.kernel_params = config.guest.kernel_params;
  return s;
}

std::optional<cache::rpc::TlsOptions> TlsOptionsOf(const Config& config) {
  const auto& tls = config.tls;
  if (tls.listen.empty()) return std::nullopt;
  return cache::rpc::TlsOptions{tls.listen, tls.certificate, tls.key, tls.client_ca};
}

// The guest for templates whose caller named none, if it need not be built first: the configured
// one, or the one that was built before.
std::optional<cache::GuestFiles> GuestAtHand(const Config& config) {
  if (!config.guest.kernel.empty()) {
    return cache::GuestFiles{config.guest.kernel, config.guest.initrd, config.guest.image};
  }
  const auto found = image::Find(ImageDir(config));
  if (!found) return std::nullopt;
  return cache::GuestFiles{found->kernel, found->initrd, {}};
}

Result<cache::kata::Options> KataOptionsOf(const Config& config) {
  const auto& kata = config.kata;
  cache::kata::Options options;
  options.template_name = kata.template_name;
  if (kata.vcpus > 0) options.vcpus = kata.vcpus;
  if (kata.memory > Bytes()) options.memory = kata.memory;
  if (!kata.vm_config.empty()) {
    ASSIGN_OR_RETURN(options.vm_config, cache::kata::ReadJson("kata.vm_config", kata.vm_config));
  }
  if (!kata.agent_config.empty()) {
    ASSIGN_OR_RETURN(options.agent_config,
                     cache::kata::ReadJson("kata.agent_config", kata.agent_config));
  }
  if (config.driver.name == DriverName::kQemu) {
    options.vmm = hypervisor::qemu::FindProgram(config.qemu.binary).value_or("");
  }
  options.default_guest = [&config] { return GuestAtHand(config); };
  return options;
}

// " and tcp://HOST:PORT", with the port that it really is.
std::string TcpEndpoint(const Config& config, int port) {
  if (port == 0) return {};
  return " and tcp://" + config.tls.listen.substr(0, config.tls.listen.rfind(':') + 1) +
         std::to_string(port);
}

// A second signal: whoever sends it does not want to wait. That is as good as a crash, which the
// next start makes good.
void EndAtOnce(const boost::system::error_code& error, int signal) {
  if (error) return;
  log::Warning({}, std::string("ending at once: ") + strsignal(signal) +
                       " again; what is half done is seen to at the next start");
  std::_Exit(1);
}

Result<std::shared_ptr<hypervisor::Isolation>> MakeIsolation(const Config& config) {
  if (config.driver.name == DriverName::kFake) return std::make_shared<hypervisor::Isolation>();
  return hypervisor::Isolation::Create({.uids = config.vmm.uids,
                                        .cgroup = config.vmm.cgroup,
                                        .memory_overhead = config.vmm.memory_overhead,
                                        .pids = config.vmm.pids,
                                        .owner = std::filesystem::absolute(config.state_dir)});
}

// Everything that the daemon consists of, in the order in which it stands on what is above it.
class Daemon {
 public:
  Daemon(asio::io_context& io, const Config& config, cache::Access access,
         std::unique_ptr<cache::KvStore> store, std::unique_ptr<WorkerPool> workers,
         std::unique_ptr<tmpl::Store> templates, std::shared_ptr<hypervisor::Isolation> isolation,
         cache::kata::Options kata, std::string host_boot_id, const Clock* clock)
      : executor_(io.get_executor()),
        config_(config),
        access_(std::move(access)),
        paths_(config.state_dir),
        clock_(clock != nullptr ? *clock : system_clock_),
        workers_(std::move(workers)),
        spawner_(executor_),
        store_(std::move(store)),
        templates_(std::move(templates)),
        vmm_spawner_(MakeVmmSpawner()),
        isolation_(std::move(isolation)),
        driver_(MakeDriver()),
        connector_(MakeConnector()),
        verdicts_(paths_.accelerator),
        booter_(*driver_, *connector_, verdicts_, paths_.vms),
        builder_(*driver_, booter_, *templates_, *workers_),
        factory_(*driver_, *connector_, booter_, *workers_, clock_, config.pool.rehearse_command),
        cache_(
            {
                .executor = executor_,
                .store = *store_,
                .templates = *templates_,
                .builder = builder_,
                .booter = booter_,
                .factory = factory_,
                .driver = *driver_,
                .connector = *connector_,
                .clock = clock_,
                .host_memory = host_memory_,
                .default_guest = [this](auto say, Deadline at) { return DefaultGuest(say, at); },
                .host_boot_id = std::move(host_boot_id),
            },
            CacheSettings(config)),
        kata_(cache_.catalog(), *workers_, std::move(kata)) {}

  Task<void> Run() {
    asio::signal_set signals(executor_, SIGTERM, SIGINT);
    // Before any VM is touched: nothing is wrong with them if we cannot serve.
    for (const auto& socket : {SocketPath(config_), config_.kata.endpoint}) {
      if (!socket.empty()) CO_RETURN_IF_ERROR(cache::rpc::UnixListener::CheckUnused(socket));
    }
    CO_RETURN_IF_ERROR(co_await cache_.Start(After(kStartTimeout)));
    cache::rpc::DaemonInfo info{HATCHERY_VERSION, paths_.root.string(),
                                std::string(driver_->name()), std::chrono::steady_clock::now(),
                                driver_->DescribeIsolation()};
    log::Info({}, "VMMs: " + info.isolation);
    auto server = cache::rpc::Server::Start(
        executor_, cache_, std::move(info),
        {SocketPath(config_), config_.socket_mode, access_, TlsOptionsOf(config_), &kata_});
    std::unique_ptr<cache::rpc::KataServer> kata_server;
    auto serving = server ? StartKata(kata_server) : std::unexpected(server.error());
    if (serving) {
      log::Info({}, "ready on unix://" + SocketPath(config_).string() +
                        TcpEndpoint(config_, (*server)->tcp_port()));
      auto [error, signal] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
      log::Info({}, std::string("stopping: ") + (error ? error.message() : strsignal(signal)));
      signals.async_wait(EndAtOnce);
      (*server)->StopAccepting();
      if (kata_server) kata_server->StopAccepting();
    }
    const auto deadline = After(kStopTimeout);
    co_await cache_.Drain(deadline);
    if (kata_server) co_await kata_server->Stop(After(kLastCalls));
    if (server) co_await (*server)->Stop(After(kLastCalls));
    co_await cache_.Stop(deadline, /*leave_all=*/!serving);
    CO_RETURN_IF_ERROR(serving);
    log::Info({}, "stopped");
    co_return Result<void>();
  }

 private:
  // Null where Kata's protocol is not spoken.
  Result<void> StartKata(std::unique_ptr<cache::rpc::KataServer>& server) {
    if (config_.kata.endpoint.empty()) return {};
    ASSIGN_OR_RETURN(server,
                     cache::rpc::KataServer::Start(executor_, cache_, kata_,
                                                   {config_.kata.endpoint, access_, [this] {
                                                      // As an operator would.
                                                      if (config_.kata.quit == OnQuit::kDaemon)
                                                        ::raise(SIGTERM);
                                                    }}));
    log::Info({}, "Kata's VM cache protocol on unix://" + config_.kata.endpoint.string());
    return {};
  }

  // Null where VMMs are started as any other process.
  std::unique_ptr<ProcessSpawner> MakeVmmSpawner() {
    if (config_.driver.name == DriverName::kFake || !config_.qemu.zygote) return nullptr;
    const auto library = hypervisor::qemu::FindZygoteLibrary();
    if (library.empty()) {
      log::Warning({}, "libhatchery-zygote.so is not beside hatcheryd: VMs start slower");
      return nullptr;
    }
    return std::make_unique<hypervisor::qemu::ZygoteSpawner>(executor_, spawner_, library,
                                                             config_.qemu.binary);
  }

  std::unique_ptr<hypervisor::Driver> MakeDriver() {
    if (config_.driver.name == DriverName::kFake) {
      return std::make_unique<hypervisor::fake::FakeDriver>(fake_host_);
    }
    hypervisor::qemu::QemuOptions options;
    options.binary = config_.qemu.binary;
    options.sandbox = config_.qemu.sandbox;
    options.tb_size = config_.qemu.tb_size;
    options.workers = workers_.get();
    options.console = config_.vmm.console;
    const auto vsock = config_.qemu.vsock;
    if (vsock == UseVsock::kAlways ||
        (vsock == UseVsock::kAuto && !config_.kata.endpoint.empty())) {
      options.vsock = hypervisor::qemu::IfUsable(hypervisor::qemu::KernelVhostVsock());
    }
    return std::make_unique<hypervisor::qemu::QemuDriver>(
        executor_, vmm_spawner_ ? *vmm_spawner_ : spawner_, options, isolation_);
  }

  std::unique_ptr<agent::Connector> MakeConnector() {
    if (config_.driver.name == DriverName::kFake)
      return std::make_unique<agent::FakeAgents>(executor_);
    return std::make_unique<agent::TtrpcConnector>(executor_);
  }

  // The guest for templates whose caller named none: the configured one, the one that was built
  // before, or one built now.
  Task<cache::GuestFiles> DefaultGuest(std::function<void(std::string)> say, Deadline deadline) {
    if (auto guest = GuestAtHand(config_)) co_return *std::move(guest);
    const auto dir = ImageDir(config_);
    say("building the default guest image in " + dir.string());
    image::BuildOptions options;
    options.out_dir = dir;
    options.agent = ExecutablePath().parent_path() / "hatchery-agent";
    auto built = co_await image::Build(spawner_, *workers_, std::move(options), say, deadline);
    if (!built) co_return Annotate(built.error(), "building the default guest image");
    co_return cache::GuestFiles{built->kernel, built->initrd, {}};
  }

  Executor executor_;
  const Config& config_;
  const cache::Access access_;
  StatePaths paths_;
  SystemClock system_clock_;
  const Clock& clock_;
  cache::KernelHostMemory host_memory_;
  std::unique_ptr<WorkerPool> workers_;
  PosixSpawner spawner_;
  hypervisor::fake::FakeHost fake_host_{executor_};
  std::unique_ptr<cache::KvStore> store_;
  std::unique_ptr<tmpl::Store> templates_;
  std::unique_ptr<ProcessSpawner> vmm_spawner_;
  std::shared_ptr<hypervisor::Isolation> isolation_;
  std::unique_ptr<hypervisor::Driver> driver_;
  std::unique_ptr<agent::Connector> connector_;
  tmpl::AcceleratorVerdicts verdicts_;
  tmpl::Booter booter_;
  tmpl::Builder builder_;
  factory::Factory factory_;
  cache::Cache cache_;
  cache::kata::Configuration kata_;
};

}  // namespace

StatePaths::StatePaths(const std::filesystem::path& state_dir)
    : root(state_dir),
      lock(state_dir / "lock"),
      metadata(state_dir / "metadata"),
      templates(state_dir / "templates"),
      vms(state_dir / "vms"),
      accelerator(state_dir / "accelerator.json") {}

Result<void> RunDaemon(const Config& config, const Seams& seams) {
  RaiseFileLimit();
  std::signal(SIGPIPE, SIG_IGN);  // a client that goes away is an error code, not our end
  // What cannot be is said before anything is touched.
  ASSIGN_OR_RETURN(auto access, cache::Access::Create({config.access.read, config.access.acquire,
                                                       config.access.administer},
                                                      ::geteuid()));
  if (const auto tls = TlsOptionsOf(config)) {
    RETURN_IF_ERROR(cache::rpc::MakeServerCredentials(*tls));
  }
  ASSIGN_OR_RETURN(auto kata, KataOptionsOf(config));
  const StatePaths paths(config.state_dir);
  RETURN_IF_ERROR(PrepareStateDir(paths));
  ASSIGN_OR_RETURN(const UniqueFd lock,
                   LockFile(paths.lock, "the state directory " + paths.root.string()));
  ASSIGN_OR_RETURN(const std::string host_boot_id, HostBootId());

  asio::io_context io(1);
  auto workers = std::make_unique<WorkerPool>(std::max(2u, std::thread::hardware_concurrency()));
  ASSIGN_OR_RETURN(auto store, cache::OpenRocksDb(paths.metadata));
  if (seams.wrap_store) store = seams.wrap_store(std::move(store));
  ASSIGN_OR_RETURN(auto templates, tmpl::Store::Open(paths.templates, *workers));
  ASSIGN_OR_RETURN(auto isolation, MakeIsolation(config));
  Daemon daemon(io, config, std::move(access), std::move(store), std::move(workers),
                std::move(templates), std::move(isolation), std::move(kata), host_boot_id,
                seams.clock);
  return RunUntilDone(io, WithoutThrowing(daemon.Run()));
}

}  // namespace hatchery::daemon
