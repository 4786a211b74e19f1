// What the host refuses while a VM is made: processes, files, descriptors, disk space. The VMM is
// QEMU's driver with a program that is none, so that each step up to its first word is the real
// one.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <optional>

#include "agent/fake/fake_agent.h"
#include "base/files.h"
#include "base/run.h"
#include "factory/factory.h"
#include "hypervisor/qemu/qemu_driver.h"
#include "template/memory.h"
#include "tests/base/limit.h"

namespace hatchery::factory {
namespace {

constexpr auto kLong = std::chrono::seconds(30);
constexpr Bytes kMemory = Bytes::MiB(128);

// Starts what it is asked to, unless told otherwise, and knows what it started.
class FaultySpawner final : public ProcessSpawner {
 public:
  explicit FaultySpawner(Executor executor) : plain_(std::move(executor)) {}
  Result<std::unique_ptr<Process>> Spawn(const SpawnRequest& request) override {
    if (refuse) return std::unexpected(*refuse);
    auto process = plain_.Spawn(request);
    if (process) started_.push_back((*process)->identity());
    return process;
  }
  std::size_t Alive() const {
    return static_cast<std::size_t>(std::ranges::count_if(started_, [](const auto& identity) {
      const auto now = IdentifyProcess(identity.pid);
      return now && *now == identity;
    }));
  }
  std::size_t started() const { return started_.size(); }

  std::optional<Error> refuse;

 private:
  PosixSpawner plain_;
  std::vector<ProcessIdentity> started_;
};

class HostFaults : public testing::Test {
 protected:
  HostFaults() {
    EXPECT_TRUE(MakeDirectories(vms_).has_value());
    tmpl::Manifest manifest;
    manifest.accelerator = hypervisor::Accelerator::kTcg;
    manifest.shape = {.vcpus = 1, .max_vcpus = 4, .memory = kMemory, .max_memory = Bytes::MiB(512)};
    UniqueFd memory = tmpl::CreateMemory(kMemory).value();
    EXPECT_TRUE(tmpl::SealMemory(memory.get()).has_value());
    template_ = std::make_shared<tmpl::LoadedTemplate>(manifest, std::move(memory),
                                                       tmpl::CreateSealed("state").value());
  }

  template <class T>
  T Run(asio::awaitable<T> body) {
    return RunUntilDone(io_, std::move(body));
  }
  // The error of a clone by a VMM `binary`, after which nothing is left; with no more than
  // `descriptors` while it is made.
  Error CloneWith(const std::string& binary, fs::path root = {},
                  std::optional<rlim_t> descriptors = {}) {
    hypervisor::qemu::QemuDriver driver(io_.get_executor(), spawner_, {.binary = binary});
    tmpl::Booter booter(driver, agents_, verdicts_, root.empty() ? vms_ : root);
    Factory factory(driver, agents_, booter, workers_, clock_);
    Machine machine;
    const auto made = [&] {
      std::optional<Limit> limit;
      if (descriptors) limit.emplace(RLIMIT_NOFILE, *descriptors);
      return Run(factory.Clone(
          machine, {VmId("vm-1"), template_, 1, kMemory},
          [](CloneStage, const hypervisor::Vm&) -> Result<void> { return {}; }, After(kLong)));
    }();
    EXPECT_FALSE(made.has_value());
    // Without a descriptor, not even a folder can be removed: it is handed back.
    EXPECT_TRUE(machine.vm == nullptr || descriptors);
    EXPECT_TRUE(Run(factory.Destroy(machine, After(kLong))).has_value());
    return made ? Error{} : made.error();
  }
  void ExpectNothingLeft() {
    EXPECT_TRUE(fs::is_empty(vms_));
    // What was killed without being watched ends on its own time.
    const Deadline end = After(kLong);
    while (spawner_.Alive() > 0 && std::chrono::steady_clock::now() < end) {
      (void)Run(SleepFor(std::chrono::milliseconds(1)));
    }
    EXPECT_EQ(spawner_.Alive(), 0u);
  }

  asio::io_context io_;
  TempDir dir_ = TempDir::Create("/tmp", "hatchery-faults-").value();
  fs::path vms_ = dir_.path() / "vms";
  FakeClock clock_;
  FaultySpawner spawner_{io_.get_executor()};
  agent::FakeAgents agents_{io_.get_executor()};
  tmpl::AcceleratorVerdicts verdicts_{dir_.path() / "accelerator.json"};
  WorkerPool workers_{1};
  std::shared_ptr<const tmpl::LoadedTemplate> template_;
};

TEST_F(HostFaults, AProcessThatCannotBeStarted) {
  for (const int number : {EAGAIN, ENOMEM, EMFILE, ENOENT, EACCES}) {
    spawner_.refuse = ErrnoError(number, "starting it").error();
    const Error error = CloneWith("/bin/cat");
    EXPECT_EQ(error.code, spawner_.refuse->code) << number;
    EXPECT_NE(error.message.find("starting it"), std::string::npos) << error.message;
    ExpectNothingLeft();
  }
  EXPECT_EQ(spawner_.started(), 0u);
}

TEST_F(HostFaults, AProgramThatIsMissingOrEndsAtOnce) {
  EXPECT_EQ(CloneWith("/no/such/vmm").code, Code::kNotFound);
  EXPECT_EQ(CloneWith("/etc/passwd").code, Code::kPermissionDenied);
  EXPECT_NE(CloneWith("/bin/true").message.find("exit code 0"), std::string::npos);
  EXPECT_NE(CloneWith("/bin/cat").message.find("exit code 1"), std::string::npos);
  ExpectNothingLeft();
}

TEST_F(HostFaults, AFolderThatCannotBeMade) {
  const fs::path file = dir_.path() / "file";
  ASSERT_TRUE(WriteFileAtomically(file, "").has_value());
  EXPECT_NE(CloneWith("/bin/cat", file).message.find(file.string()), std::string::npos);
  // Sockets' names have an end.
  const fs::path deep = vms_ / std::string(100, 'x');
  EXPECT_EQ(CloneWith("/bin/cat", deep).code, Code::kInvalidArgument);
  EXPECT_EQ(spawner_.started(), 0u);
  EXPECT_TRUE(RemoveAll(deep).has_value());
  ExpectNothingLeft();
}

// At each number of descriptors that are left, from none to enough.
TEST_F(HostFaults, DescriptorsThatRunOut) {
  CloneWith("/bin/cat");  // what is opened once is open
  bool enough = false;
  std::size_t refused = 0;
  for (rlim_t left = 0; left < 64 && !enough; ++left) {
    SCOPED_TRACE(std::to_string(left) + " descriptors left");
    const auto used = DescriptorsInUse();
    const Error error = CloneWith("/bin/cat", {}, used + left);
    enough = error.message.find("exit code 1") != std::string::npos;
    refused += enough ? 0 : 1;
    EXPECT_FALSE(error.message.empty());
    ExpectNothingLeft();
    EXPECT_EQ(DescriptorsInUse(), used) << "descriptors leak: " << error.message;
    if (HasFailure()) return;
  }
  EXPECT_TRUE(enough);
  EXPECT_GT(refused, 3u);
}

// At each size that a file may have, up to what a template takes: a disk that is full.
TEST_F(HostFaults, ADiskThatIsFullWhileATemplateIsWritten) {
  ::signal(SIGXFSZ, SIG_IGN);
  const fs::path root = dir_.path() / "templates";
  const auto store = tmpl::Store::Open(root, workers_).value();
  const auto publish = [&](std::optional<rlim_t> size) {
    UniqueFd memory = tmpl::CreateMemory(kMemory).value();
    EXPECT_TRUE(tmpl::WriteSparse(memory.get(), 0, std::string(8 << 10, 'x')).has_value());
    UniqueFd state = tmpl::CreateMemory(Bytes()).value();
    EXPECT_TRUE(WriteAll(state.get(), std::string(3000, 's')).has_value());
    // Memfds have sizes as well: theirs were set before.
    std::optional<Limit> limit;
    if (size) limit.emplace(RLIMIT_FSIZE, *size);
    return Run(store->Publish(template_->manifest(), std::move(memory), std::move(state)));
  };
  for (const rlim_t size : {rlim_t{0}, rlim_t{1000}, rlim_t{4096}, rlim_t{1 << 20}}) {
    SCOPED_TRACE(size);
    const auto published = publish(size);
    ASSERT_FALSE(published.has_value());
    EXPECT_FALSE(published.error().message.empty());
    EXPECT_TRUE(fs::is_empty(root));
    EXPECT_TRUE(store->List().empty());
  }
  const auto published = publish({});
  EXPECT_TRUE(published.has_value()) << ToString(published.error());
}

}  // namespace
}  // namespace hatchery::factory
