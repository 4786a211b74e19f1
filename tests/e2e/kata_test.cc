// Kata's VM cache protocol as its clients see it, on a real QEMU: kata_client.py, which knows
// nothing but the protocol, against a real daemon.
#include <gmock/gmock.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>

#include "base/json.h"
#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::AnyOf;
using testing::HasSubstr;
using testing::SizeIs;

// Debian's own python3: only that one has Debian's python3-grpcio, whatever else PATH leads to.
std::vector<std::string> ClientCommand(const std::vector<std::string>& args) {
  std::vector<std::string> argv = {"/usr/bin/python3", "-B", HATCHERY_KATA_CLIENT};
  argv.insert(argv.end(), args.begin(), args.end());
  return argv;
}

CommandOutput RunToEnd(const std::vector<std::string>& argv) {
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  auto done = RunUntilDone(io, RunCommand(spawner, argv, After(minutes(5))));
  EXPECT_TRUE(done.has_value()) << argv.back() << ": does not end";
  return done.value_or(CommandOutput{});
}

Json Parsed(const std::string& text) {
  auto json = ParseJson(text, "what the client printed");
  EXPECT_TRUE(json.has_value()) << text;
  return json ? *std::move(json) : Json();
}

std::string IdOf(const Json& vm) { return vm.at("id").get<std::string>(); }

// A client that has taken VMs and lives on, as a runtime does.
class Holder {
 public:
  explicit Holder(const std::string& socket) {
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    EXPECT_EQ(::pipe2(in, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    const UniqueFd its_stdin(in[0]), its_stdout(out[1]);
    stdin_ = UniqueFd(in[1]);
    stdout_ = UniqueFd(out[0]);
    SpawnRequest request;
    request.argv = ClientCommand({"take", socket, "--hold"});
    request.env = MinimalEnvironment();
    request.stdin_fd = its_stdin.get();
    request.stdout_fd = its_stdout.get();
    request.stderr_fd = STDERR_FILENO;  // what went wrong stands in the test's log
    process_ = spawner_.Spawn(request).value();
  }
  ~Holder() { End(); }

  pid_t pid() const { return process_->pid(); }
  // The VM that it got; waits for it.
  const Json& vm() {
    if (vm_.is_null()) vm_ = Parsed(ReadLine()).at("vms").at(0);
    return vm_;
  }
  // Closes its stdin, which is what it waits for.
  void End() {
    stdin_.Reset();
    EXPECT_TRUE(RunUntilDone(io_, process_->Wait(After(minutes(3)))).has_value());
  }
  void Kill() { EXPECT_TRUE(RunUntilDone(io_, process_->Kill(After(seconds(10)))).has_value()); }

 private:
  std::string ReadLine() {
    std::string line;
    char buffer[4096];
    pollfd ready{stdout_.get(), POLLIN, 0};
    while (!line.ends_with('\n') && ::poll(&ready, 1, 180'000) > 0) {
      const ssize_t n = ::read(stdout_.get(), buffer, sizeof(buffer));
      if (n <= 0) break;
      line.append(buffer, static_cast<std::size_t>(n));
    }
    return line;
  }

  asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};
  std::unique_ptr<Process> process_;
  UniqueFd stdin_, stdout_;
  Json vm_;
};

std::vector<api::Vm> Vms(TestDaemon& daemon, api::VmState state = api::VM_STATE_UNSPECIFIED) {
  api::ListVmsRequest request;
  request.set_state(state);
  api::ListVmsResponse all;
  EXPECT_TRUE(daemon.cache->ListVms(TestDaemon::Context().get(), request, &all).ok());
  return {all.vms().begin(), all.vms().end()};
}

// Nobody has a VM, the pool is full, and nothing else is there.
bool OnlyThePool(TestDaemon& daemon, std::size_t target) {
  const auto all = Vms(daemon);
  return all.size() == target && daemon.Vmms().size() == target &&
         daemon.VmFolders().size() == target && std::ranges::all_of(all, [](const api::Vm& vm) {
           return vm.state() == api::VM_STATE_WARM;
         });
}

std::size_t OpenDescriptors(pid_t pid) {
  const fs::directory_iterator all("/proc/" + std::to_string(pid) + "/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Sockets below a folder, but for those of VMs.
std::set<fs::path> SocketsIn(const fs::path& folder) {
  std::set<fs::path> sockets;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const auto name = entry.path().lexically_relative(folder);
    if (entry.is_socket() && *name.begin() != "vms") sockets.insert(name);
  }
  return sockets;
}

class KataTest : public testing::Test {
 protected:
  fs::path Socket() const { return run_.path() / "made" / "at-start" / "cache.sock"; }
  std::vector<std::string> Flags(const std::vector<std::string>& more = {}) const {
    // Twenty guests that may grow are no matter of this test's.
    std::vector<std::string> flags = {"--kata-endpoint", Socket().string(), "--limits-host-reserve",
                                      "0B"};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }

  CommandOutput Client(const std::vector<std::string>& args) const {
    return RunToEnd(ClientCommand(args));
  }
  // What a run that must succeed printed.
  Json Ask(const std::vector<std::string>& args) const {
    const auto done = Client(args);
    EXPECT_EQ(done.status.value, 0) << done.err;
    return Parsed(done.out);
  }
  Json Ask(const std::string& command) const { return Ask({command, Socket().string()}); }
  static CommandOutput Cli(const TestDaemon& daemon, const std::vector<std::string>& args) {
    std::vector<std::string> argv = {(BinDir() / "hatchery").string(), "--endpoint",
                                     (daemon.dir() / "hatchery.sock").string()};
    argv.insert(argv.end(), args.begin(), args.end());
    return RunToEnd(argv);
  }
  std::string WriteConfig(const std::string& name, const std::string& text) const {
    EXPECT_TRUE(WriteFileAtomically(run_.path() / name, text).has_value());
    return (run_.path() / name).string();
  }

  TempDir run_ = TempDir::Create("/tmp", "hatchery-kata-").value();
};

TEST_F(KataTest, AClientTakesVmsOverUsesThemAndEndsThem) {
  // Longer than the test, so that it is the VM's end that ends the lease, not the client's.
  TestDaemon daemon(Flags({"--lease-grace", "10m"}));
  ASSERT_TRUE(daemon.Init(1).ok());
  std::set<std::string> ids, boots, machines;
  for (const char* end : {"quit", "poweroff"}) {
    const Json seen = Ask({"takeover", Socket().string(), "--end", end});
    ids.insert(IdOf(seen.at("vm")));
    const Json& guest = seen.at("before");
    boots.insert(guest.at("boot_id").get<std::string>());
    machines.insert(guest.at("machine_id").get<std::string>());
    EXPECT_EQ(guest.at("hostname"), "warm");
    EXPECT_EQ(seen.at("vm").at("proxyPid"), 0);
    EXPECT_EQ(seen.at("vm").at("cpuDelta"), 0);
    EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 1); })) << end;
  }
  // Siblings are told apart by what was renewed while they were warmed.
  EXPECT_THAT(ids, SizeIs(2));
  EXPECT_THAT(boots, SizeIs(2));
  EXPECT_THAT(machines, SizeIs(2));
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, AHundredTakesLeaveNothingBehind) {
  TestDaemon daemon(Flags({"--lease-grace", "100ms"}));
  ASSERT_TRUE(daemon.Init(2).ok());
  std::set<std::string> ids;
  const auto take = [&](const std::vector<std::string>& how) {
    std::vector<std::string> args = {"take", Socket().string()};
    args.insert(args.end(), how.begin(), how.end());
    const Json taken = Ask(args);
    for (const auto& vm : taken.at("vms")) ids.insert(IdOf(vm));
    EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 2); }, seconds(60)));
  };
  take({});
  const auto sockets = SocketsIn(daemon.dir());
  const auto descriptors = OpenDescriptors(daemon.pid());
  // Half of them ended by the client, half by the end of the client.
  take({"--count", "50", "--end"});
  for (int i = 0; i < 10; ++i) take({"--count", "5"});
  EXPECT_EQ(ids.size(), 101u);
  // gRPC keeps a few at its own discretion; one or more for each take are a leak.
  EXPECT_LT(OpenDescriptors(daemon.pid()), descriptors + 50);
  daemon.ExpectDestroyLeavesNothing();
  EXPECT_EQ(SocketsIn(daemon.dir()), sockets);
}

TEST_F(KataTest, WithoutATemplateOrAPoolTheAnswerSaysSo) {
  TestDaemon daemon(Flags({"--lease-grace", "100ms"}));
  const std::vector<std::string> take = {"--timeout", "20", "take", Socket().string(), "--end"};
  const auto no_template = Client(take);
  EXPECT_EQ(no_template.status.value, 1);
  EXPECT_THAT(no_template.err, AnyOf(HasSubstr("NOT_FOUND"), HasSubstr("FAILED_PRECONDITION")));
  EXPECT_THAT(no_template.err, HasSubstr("'default'"));

  ASSERT_TRUE(daemon.Init(0).ok());
  const auto no_pool = Client(take);
  EXPECT_EQ(no_pool.status.value, 1);
  EXPECT_THAT(no_pool.err, HasSubstr("FAILED_PRECONDITION"));
  EXPECT_THAT(no_pool.err, HasSubstr("pool"));
  EXPECT_THAT(Ask("status").at("vmstatus"), SizeIs(0));
  EXPECT_THAT(daemon.Vmms(), SizeIs(0));

  // As soon as there is one, the same client is served.
  ASSERT_TRUE(daemon.Init(1).ok());
  EXPECT_THAT(Ask(take).at("vms"), SizeIs(1));
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, TwentyClientsAtOnceNeverGetTheSameVm) {
  TestDaemon daemon(Flags({"--lease-grace", "100ms"}));
  ASSERT_TRUE(daemon.Init(4).ok());
  std::vector<std::unique_ptr<Holder>> clients;
  for (int i = 0; i < 20; ++i) clients.push_back(std::make_unique<Holder>(Socket().string()));
  std::map<std::string, pid_t> holders;
  std::set<std::string> monitors, agents;
  for (const auto& client : clients) {
    const Json& vm = client->vm();
    holders.emplace(IdOf(vm), client->pid());
    monitors.insert(vm.at("hypervisor").at("QmpChannelpath").get<std::string>());
    agents.insert(vm.at("proxyURL").get<std::string>());
  }
  EXPECT_THAT(holders, SizeIs(20));
  EXPECT_THAT(monitors, SizeIs(20));
  EXPECT_THAT(agents, SizeIs(20));
  std::map<std::string, pid_t> listed;
  for (const auto& vm : Vms(daemon, api::VM_STATE_ASSIGNED)) {
    listed.emplace(vm.vm_id(), static_cast<pid_t>(vm.holder_pid()));
  }
  EXPECT_EQ(listed, holders);
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 4); }, seconds(60)));
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, AHandedOverVmIsItsHoldersAlone) {
  TestDaemon daemon(Flags({"--lease-grace", "100ms"}));
  ASSERT_TRUE(daemon.Init(1).ok());
  {
    Holder holder(Socket().string());
    const std::string id = IdOf(holder.vm());
    const auto leased = Vms(daemon, api::VM_STATE_ASSIGNED);
    ASSERT_THAT(leased, SizeIs(1));
    EXPECT_EQ(leased[0].vm_id(), id);
    EXPECT_EQ(leased[0].lease_term(), api::LEASE_TERM_CALLER);
    EXPECT_EQ(leased[0].holder_pid(), holder.pid());
    EXPECT_EQ(leased[0].problem(), "");
    api::ExecResponse ran;
    const auto exec = daemon.Exec(id, {"true"}, &ran);
    EXPECT_EQ(exec.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(exec.error_message(), HasSubstr("handed over"));
    holder.Kill();
    EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 1); })) << "its holder is gone";
  }
  {
    Holder holder(Socket().string());
    const auto released = Cli(daemon, {"vm", "release", IdOf(holder.vm())});
    EXPECT_EQ(released.status.value, 0) << released.err;
    EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 1); })) << "it was released";
  }
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, ClientsThatDieOnTheWayLeaveNothing) {
  TestDaemon daemon(Flags({"--lease-grace", "100ms"}));
  ASSERT_TRUE(daemon.Init(2).ok());
  std::vector<std::unique_ptr<Holder>> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(std::make_unique<Holder>(Socket().string()));
  // Some have theirs by now, some are being served, some have yet to ask.
  EXPECT_NE(IdOf(clients.front()->vm()), "");
  for (const auto& client : clients) client->Kill();
  EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 2); }, seconds(60)));
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, AHandedOverVmOutlivesTheDaemonUntouched) {
  TestDaemon daemon(Flags({"--lease-grace", "100ms"}));
  ASSERT_TRUE(daemon.Init(1).ok());
  Holder holder(Socket().string()), other(Socket().string());
  const std::string kept = IdOf(holder.vm()), lost = IdOf(other.vm());
  daemon.Kill();
  other.Kill();
  daemon.Start();
  // The holder that went while nobody looked is missed now, the other is not.
  EXPECT_TRUE(Eventually([&] { return Vms(daemon, api::VM_STATE_ASSIGNED).size() == 1; }));
  // QEMU serves one monitor client at a time, and the agent's port one host: were the new daemon
  // either of them, this would not get far.
  const Json used = Ask({"use", DumpJson(holder.vm()), "--end", "none"});
  EXPECT_EQ(used.at("run_state"), "paused");
  const auto leased = Vms(daemon, api::VM_STATE_ASSIGNED);
  ASSERT_THAT(leased, SizeIs(1));
  EXPECT_EQ(leased[0].vm_id(), kept);
  EXPECT_EQ(leased[0].holder_pid(), holder.pid());
  EXPECT_EQ(leased[0].problem(), "");
  api::ExecResponse ran;
  EXPECT_THAT(daemon.Exec(kept, {"true"}, &ran).error_message(), HasSubstr("handed over"));
  holder.End();
  EXPECT_TRUE(Eventually([&] { return OnlyThePool(daemon, 1); }));
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, ConfigAndStatusTellOfThePool) {
  TestDaemon daemon(Flags());
  ASSERT_TRUE(daemon.Init(2).ok());
  const auto& made = daemon.init.template_info();
  const auto mib = made.memory_bytes() >> 20;

  const Json config = Ask("config");
  const Json data = Parsed(config.at("Data").get<std::string>());
  EXPECT_EQ(data.at("HypervisorType"), "qemu");
  EXPECT_EQ(data.at("HypervisorConfig").at("NumVCPUs"), made.vcpus());
  EXPECT_EQ(data.at("HypervisorConfig").at("MemorySize"), mib);
  EXPECT_TRUE(Parsed(config.at("AgentConfig").get<std::string>()).is_object());
  const auto checked = Cli(daemon, {"kata", "config"});
  EXPECT_EQ(checked.status.value, 0) << checked.out << checked.err;
  EXPECT_THAT(checked.out, HasSubstr("HypervisorConfig"));

  const Json status = Ask("status");
  EXPECT_EQ(status.at("pid"), daemon.pid());
  std::set<pid_t> pids;
  for (const auto& vm : status.at("vmstatus")) {
    pids.insert(vm.at("pid").get<pid_t>());
    EXPECT_EQ(vm.at("cpu"), made.vcpus());
    EXPECT_EQ(vm.at("memory"), mib);
  }
  EXPECT_EQ(pids, daemon.Vmms());
  daemon.ExpectDestroyLeavesNothing();
}

TEST_F(KataTest, ConfigIsTheOperatorsVerbatim) {
  // Not as any program would write it.
  const std::string vm =
      "{ \"HypervisorType\":\"qemu\",\n\t\"AgentType\" : \"kata\", \"Own\": \"\xc3\xa4\",\n"
      "  \"HypervisorConfig\": {\"MemorySize\": 256, \"NumVCPUs\": 64} }\n\n";
  const std::string agent = "{\"LongLiveConn\": true}  ";
  TestDaemon daemon(Flags({"--kata-vm-config", WriteConfig("vm.json", vm), "--kata-agent-config",
                           WriteConfig("agent.json", agent)}));
  const Json config = Ask("config");
  EXPECT_EQ(config.at("Data"), vm);
  EXPECT_EQ(config.at("AgentConfig"), agent);

  ASSERT_TRUE(daemon.Init(0).ok());
  const auto checked = Cli(daemon, {"kata", "config"});
  EXPECT_EQ(checked.status.value, 1);
  EXPECT_THAT(checked.out + checked.err, HasSubstr("NumVCPUs"));
  EXPECT_THAT(checked.err, testing::Not(HasSubstr("MemorySize")));
}

TEST_F(KataTest, TheSocketIsItsOwnersAndAStaleOneIsReplaced) {
  ASSERT_FALSE(fs::exists(Socket().parent_path()));
  TestDaemon daemon(Flags());
  struct stat info{};
  ASSERT_EQ(::stat(Socket().c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 07777, 0600u);
  daemon.Kill();
  ASSERT_TRUE(fs::exists(Socket()));
  daemon.Start();
  EXPECT_EQ(Ask("status").at("pid"), daemon.pid());
  EXPECT_EQ(daemon.Stop(), 0);
  EXPECT_FALSE(fs::exists(Socket()));
}

TEST_F(KataTest, QuitStopsTheListenerOnly) {
  TestDaemon daemon(Flags());
  Ask("quit");
  EXPECT_TRUE(Eventually([&] { return !fs::exists(Socket()); }));
  EXPECT_EQ(Client({"--timeout", "5", "status", Socket().string()}).status.value, 1);
  api::StatusResponse status;
  EXPECT_TRUE(daemon.factory->Status(TestDaemon::Context().get(), {}, &status).ok());
  EXPECT_EQ(daemon.Stop(), 0);
}

TEST_F(KataTest, QuitStopsTheDaemonWhereThatIsConfigured) {
  TestDaemon daemon(Flags({"--kata-quit", "daemon"}));
  Ask("quit");
  EXPECT_EQ(daemon.WaitForEnd(), 0);
  EXPECT_FALSE(fs::exists(Socket()));
}

}  // namespace
}  // namespace hatchery::e2e
