#include "tests/torture/run.h"

#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/files.h"
#include "base/run.h"
#include "tests/torture/dice.h"
#include "tests/torture/world.h"

namespace hatchery::torture {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyClock = std::chrono::steady_clock;

constexpr auto kLookEvery = seconds(1);
// Boots of real guests take their time on a busy host.
constexpr auto kLong = seconds(240);
constexpr auto kToStop = seconds(120);
// How long a daemon may be kept from starting by what was done to its disk.
constexpr auto kToRestart = seconds(30);
constexpr auto kToEnd = seconds(20);

fs::path Beside(const char* program) { return ExecutablePath().parent_path() / program; }

// A small file system of its own for the state, so that it can be filled.
bool MountDisk(const fs::path& path, bool large) {
  if (!MakeDirectories(path)) return false;
  const char* const size = large ? "size=1536m" : "size=256m";
  return ::mount("tmpfs", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, size) == 0;
}

// Between two deeds, in milliseconds. Who counts kills is in a hurry.
std::int64_t LongestPause(const RunOptions& options) {
  if (options.real_vmms) return 4000;
  return options.kills > 0 ? 300 : 500;
}

void Say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

}  // namespace

std::vector<std::string> DaemonFlags(const RunOptions& options) {
  std::vector<std::string> flags;
  if (options.real_vmms) {
    flags = {"--guest-image-dir", options.image_dir, "--driver-accelerator", "tcg"};
  } else {
    flags = FakeVmmFlags(Beside("fake-qemu"));
  }
  // What the host has to spare is not the question here.
  for (const char* flag :
       {"--lease-grace", "1s", "--limits-host-reserve", "0B", "--health-agent-interval", "1s",
        "--health-agent-timeout", "2s", "--template-boot-timeout", "3m"}) {
    flags.emplace_back(flag);
  }
  return flags;
}

Run::Run(RunOptions options)
    : options_(std::move(options)),
      own_disk_(MountDisk(options_.root / "state", options_.real_vmms)),
      site_(options_.root, Beside("hatcheryd-torture"), DaemonFlags(options_)),
      operator_(site_.daemon().socket()),
      mischief_({.site = site_,
                 .pretended_vmms = !options_.real_vmms,
                 .own_disk = own_disk_,
                 .kill_client = [this](std::uint64_t which) { KillWorker(which); },
                 .run_in_guest = [this](const std::string& vm,
                                        const std::string& script) { RunInGuest(vm, script); }}) {
  AdoptOrphans();
}

Run::~Run() {
  for (Worker& worker : workers_) {
    if (worker.process) (void)worker.process->Signal(SIGKILL);
  }
  if (site_.daemon().started()) site_.daemon().Kill();
  for (const Vmm& vmm : FindVmms(site_.state_dir())) ::kill(vmm.process.pid, SIGKILL);
  if (own_disk_) ::umount2(site_.state_dir().c_str(), MNT_DETACH);
}

void Run::Found(const std::string& what) {
  Say("FOUND: " + what);
  site_.journal().Write({{"did", "found"}, {"left", {what}}});
}

std::vector<std::string> Run::Do() {
  Say("seed " + std::to_string(options_.seed) + ", " + std::to_string(options_.clients) +
      " clients, " + (options_.real_vmms ? "real VMMs" : "pretended VMMs") + ", in " +
      options_.root.string());
  if (!own_disk_) Say("the disk is not really filled: that takes root, to mount a small one");
  if (Prepare()) {
    begun_ = SteadyClock::now();
    for (std::uint64_t step = 1; !IsOver(deaths_); ++step) {
      Dice pace(options_.seed, "pace", step);
      Wait(milliseconds(pace.Between(20, LongestPause(options_))));
      mischief_.Do(options_.seed, step);
    }
    MakePeace();
    EndWorkers();
  }
  TearDown();
  return Report(site_.journals());
}

bool Run::Prepare() {
  if (!StartDaemon()) {
    Found("the daemon does not start: " + site_.daemon().said());
    return false;
  }
  if (const auto made = operator_.Init(options_.pool, kLong); !made.ok()) {
    Found("no template and pool to begin with: " + made.error_message());
    return false;
  }
  for (unsigned i = 0; i < options_.clients; ++i) {
    workers_.push_back({"c" + std::to_string(i), nullptr});
    StartWorker(workers_.back());
  }
  return true;
}

bool Run::IsOver(std::uint64_t deaths) const {
  if (options_.kills > 0) return deaths >= options_.kills;
  return SteadyClock::now() - begun_ >= options_.length;
}

void Run::StartWorker(Worker& worker) {
  SpawnRequest request;
  request.argv = {ExecutablePath(),
                  "--worker",
                  worker.name,
                  "--seed",
                  std::to_string(options_.seed),
                  "--socket",
                  site_.daemon().socket(),
                  "--journals",
                  site_.journals()};
  if (options_.real_vmms) request.argv.emplace_back("--real-guests");
  request.env = MinimalEnvironment();
  request.stdout_fd = request.stderr_fd = STDERR_FILENO;
  auto spawned = spawner_.Spawn(request);
  if (!spawned) return Found("a client cannot be started: " + spawned.error().message);
  worker.process = *std::move(spawned);
}

void Run::KillWorker(std::uint64_t which) {
  Worker& worker = workers_[which % workers_.size()];
  (void)RunUntilDone(io_, worker.process->Kill(After(kToStop)));
  site_.journal().Write({{"did", "client ends"}, {"client", worker.name}});
  StartWorker(worker);
}

void Run::RunInGuest(const std::string& vm, const std::string& script) {
  const auto cache = api::Cache::NewStub(Connect(site_.daemon().socket()));
  api::ExecRequest request;
  request.set_vm_id(vm);
  for (const std::string& word : {std::string("/bin/sh"), std::string("-c"), script}) {
    request.add_argv(word);
  }
  api::ExecResponse response;
  // The agent that is killed or stopped does not answer.
  (void)cache->Exec(Within(milliseconds(500)).get(), request, &response);
}

std::set<pid_t> Run::Known() {
  std::set<pid_t> known = {site_.daemon().pid()};
  for (const Worker& worker : workers_) {
    if (worker.process) known.insert(worker.process->pid());
  }
  return known;
}

void Run::LookAround() {
  if (SteadyClock::now() - looked_ < kLookEvery) return;
  looked_ = SteadyClock::now();
  ReapOrphans(Known());
  site_.Look();
}

void Run::Wait(milliseconds time) {
  const auto until = SteadyClock::now() + time;
  do {
    constexpr auto kTick = milliseconds(20);
    if (auto status = site_.daemon().WaitEnd(kTick)) OnDeath(*status);
    mischief_.Undo();
    LookAround();
  } while (SteadyClock::now() < until);
}

void Run::OnDeath(const ExitStatus& status) {
  ++deaths_;
  site_.NoteEnds(ToString(status));
  if (!mischief_.expects_death()) {
    Found("the daemon died by itself, " + ToString(status) + ": " + site_.daemon().said());
  }
  mischief_.DaemonStarted();
  site_.controls().crash_in = 0;
  // Now and then, a look into the store that it left. With a full disk it cannot be opened.
  Dice dice(options_.seed, "store", deaths_);
  if (dice.Chance(20)) {
    auto read = site_.ReadStore();
    if (!read && read.error().code != Code::kResourceExhausted) {
      Found("the store cannot be read: " + ToString(read.error()));
    }
  }
  Restart();
}

bool Run::StartDaemon() {
  std::vector<std::string> environment;
  if (!options_.drop.empty()) environment = {std::string(kDropVariable) + "=" + options_.drop};
  return site_.Start(std::move(environment));
}

void Run::Restart() {
  const auto until = SteadyClock::now() + kToRestart;
  while (!StartDaemon()) {
    // A full disk keeps it from starting; that passes.
    const auto status = site_.daemon().WaitEnd(seconds(1));
    if (!status) {
      Found("the daemon hangs in its start: " + site_.daemon().said());
      site_.daemon().Kill();
    }
    if (SteadyClock::now() >= until) return Found("no daemon starts any more");
    mischief_.Undo();
  }
}

void Run::MakePeace() {
  mischief_.EndAll();
  Wait(milliseconds(100));
  site_.journal().Write({{"did", "make peace"}});
  const auto full = operator_.SetPool(options_.pool, /*wait=*/true, kLong);
  if (!full.ok()) Found("the pool does not get full again: " + full.error_message());
}

void Run::EndWorkers() {
  for (Worker& worker : workers_) (void)worker.process->Signal(SIGTERM);
  for (Worker& worker : workers_) {
    auto status = RunUntilDone(io_, worker.process->Wait(After(kToStop)));
    if (!status || status->how != ExitStatus::How::kExited || status->value != 0) {
      Found(worker.name +
            " did not end well: " + (status ? ToString(*status) : ToString(status.error())));
      (void)worker.process->Signal(SIGKILL);
    }
    site_.journal().Write({{"did", "client ends"}, {"client", worker.name}});
  }
  // What was given back goes now, if it has not gone yet.
  const auto granted = CheckJournals(site_.journals(), {.grace = seconds(1)}).vms();
  const auto until = SteadyClock::now() + kToEnd;
  const auto lives = [&](const Vmm& vmm) { return granted.contains(vmm.vm); };
  while (SteadyClock::now() < until && std::ranges::any_of(FindVmms(site_.state_dir()), lives)) {
    Wait(milliseconds(50));
  }
  site_.Look();
}

void Run::StopDaemon() {
  site_.NoteEnds("stop");
  (void)site_.daemon().Signal(SIGTERM);
  const auto status = site_.daemon().WaitEnd(kToStop);
  if (status && ToString(*status) == "exit code 0") return;
  Found("the daemon does not stop as it should: " + site_.daemon().said());
  if (!status) site_.daemon().Kill();
}

void Run::TearDown() {
  if (!site_.daemon().started()) return Found("there is no daemon at the end");
  if (const auto destroyed = operator_.Destroy(kLong); !destroyed.ok()) {
    Found("the factory cannot be destroyed: " + destroyed.error_message());
  }
  StopDaemon();
  // What could not be written down while the disk was full, the next daemon finds out.
  if (StartDaemon()) {
    StopDaemon();
  } else {
    Found("the daemon does not start on what it left: " + site_.daemon().said());
  }
  ReapOrphans({});
  const auto vms = CheckJournals(site_.journals(), {.grace = seconds(1)}).vms();
  auto looked = site_.LookForLeftOvers(vms, {});
  if (!looked) Found("the store does not open at the end: " + ToString(looked.error()));
}

}  // namespace hatchery::torture
