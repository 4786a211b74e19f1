// Bad input, broken files, full disks and stopped processes, through the real programs: each gets a
// clear error, leaves nothing behind that nothing records, and the daemon still serves.
#include <gmock/gmock.h>
#include <sys/mount.h>

#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using testing::HasSubstr;
using testing::Not;

// The `hatchery` program against the daemon in `state_dir`.
CommandOutput Cli(const fs::path& state_dir, std::vector<std::string> args) {
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  std::vector<std::string> argv = {(BinDir() / "hatchery").string(), "--endpoint",
                                   (state_dir / "hatchery.sock").string()};
  argv.insert(argv.end(), args.begin(), args.end());
  auto done = RunUntilDone(io, RunCommand(spawner, argv, After(std::chrono::seconds(60))));
  EXPECT_TRUE(done.has_value()) << args[0] << ": does not end";
  return done.value_or(CommandOutput{});
}
// A hatcheryd that is expected to end by itself.
CommandOutput Hatcheryd(std::vector<std::string> args) {
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  args.insert(args.begin(), (BinDir() / "hatcheryd").string());
  auto done = RunUntilDone(io, RunCommand(spawner, args, After(std::chrono::seconds(20))));
  EXPECT_TRUE(done.has_value()) << "hatcheryd serves instead of refusing";
  return done.value_or(CommandOutput{});
}

api::TemplateSpec Spec(const std::string& name) {
  api::TemplateSpec spec;
  spec.set_name(name);
  spec.set_kernel((ImageDir() / "vmlinuz").string());
  spec.set_initrd((ImageDir() / "initrd.img").string());
  return spec;
}
grpc::Status Create(TestDaemon& daemon, const api::TemplateSpec& spec) {
  api::CreateTemplateRequest request;
  *request.mutable_template_spec() = spec;
  auto context = TestDaemon::Context();
  auto reader = daemon.factory->CreateTemplate(context.get(), request);
  for (api::CreateTemplateResponse step; reader->Read(&step);) {
  }
  return reader->Finish();
}

// A file system of its own over a folder, so that a test can fill it.
class SmallDisk {
 public:
  SmallDisk(fs::path folder, const std::string& size) : folder_(std::move(folder)) {
    mounted_ = ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
    EXPECT_TRUE(mounted_) << "mounting a tmpfs takes root";
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  void Fill() {
    const UniqueFd fd(::open((folder_ / "fill").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    const std::string block(1 << 16, 'x');
    while (::write(fd.get(), block.data(), block.size()) > 0) {
    }
  }
  void Free() { fs::remove(folder_ / "fill"); }

 private:
  fs::path folder_;
  bool mounted_ = false;
};

class BadInputTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    daemon_ = new TestDaemon({"--acquire-personalize-timeout", "500ms"});
    const auto status = daemon_->Init(2);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  static void TearDownTestSuite() {
    EXPECT_EQ(Cli(daemon_->dir(), {"factory", "destroy"}).status.value, 0);
    daemon_->ExpectNothingLeft();
    EXPECT_EQ(daemon_->Stop(), 0);
    delete daemon_;
  }
  // After whatever a test did, the next client is served.
  void TearDown() override {
    const auto run = Cli(daemon().dir(), {"run", "--", "echo", "fine"});
    EXPECT_EQ(run.status.value, 0) << run.err;
    EXPECT_EQ(run.out, "fine\n");
  }
  static TestDaemon& daemon() { return *daemon_; }
  static TestDaemon* daemon_;

  std::string Acquire() {
    api::AcquireResponse acquired;
    const auto status = daemon().Acquire(&acquired);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return acquired.vm().vm_id();
  }
  std::vector<pid_t> WarmVms() {
    api::ListVmsRequest request;
    request.set_state(api::VM_STATE_WARM);
    api::ListVmsResponse all;
    EXPECT_TRUE(daemon().cache->ListVms(TestDaemon::Context().get(), request, &all).ok());
    std::vector<pid_t> pids;
    for (const auto& vm : all.vms()) pids.push_back(static_cast<pid_t>(vm.pid()));
    return pids;
  }
  void FillPool() {
    const auto filled = Cli(daemon().dir(), {"pool", "set", "--size", "2"});
    EXPECT_EQ(filled.status.value, 0) << filled.err;
  }
};
TestDaemon* BadInputTest::daemon_ = nullptr;

TEST_F(BadInputTest, ValuesThatCannotBe) {
  const std::string long_name(64, 'a');
  const struct {
    std::vector<std::string> args;
    int exit_code;
    std::string says;
  } kCases[] = {
      {{"tmplate"}, 2, "tmplate"},
      {{"vm", "acquire", "--template", "nope"}, 1, "no template named 'nope'; make one with"},
      {{"vm", "acquire", "--vcpus", "0"}, 1, "vcpus: must be at least 1"},
      {{"vm", "acquire", "--vcpus", "10000"}, 1, "vcpus: 10000 is more than"},
      {{"vm", "acquire", "--memory", "1MiB"}, 1, "memory_bytes: 1 MiB is less than"},
      {{"vm", "acquire", "--memory", "1EiB"}, 1, "memory_bytes: 1 EiB is more than"},
      {{"vm", "acquire", "--memory", "300MiB"}, 1, "not a multiple of 128 MiB"},
      {{"vm", "acquire", "--memory", "lots"}, 2, "'lots' is not a size"},
      {{"vm", "release", "nope"}, 1, "no VM 'nope'"},
      {{"vm", "exec", "nope", "--", "true"}, 125, "no VM 'nope'"},
      {{"vm", "exec", "nope"}, 2, "no command given"},
      {{"template", "create", ""}, 2, "NAME"},
      {{"template", "create", "../x"}, 1, "'../x' must start with"},
      {{"template", "create", "a/b"}, 1, "'a/b' may hold only"},
      {{"template", "create", long_name}, 1, "longer than 63"},
      {{"template", "create", "q", "--vcpus", "0"}, 1, "vcpus: must be at least 1"},
      {{"template", "create", "q", "--vcpus", "10000"}, 1, "10000 is more than 240"},
      {{"template", "create", "q", "--memory", "1MiB"}, 1, "memory_bytes: 1 MiB is not a multiple"},
      {{"template", "create", "q", "--memory", "1EiB"}, 1, "memory_bytes: 1 EiB is more than"},
      {{"template", "create", "q", "--kernel", "/nope", "--initrd", "/nope"}, 1, "/nope"},
      {{"template", "delete", ".."}, 1, "'..' must start with"},
      {{"template", "delete", "default"}, 1, "--drain"},
      {{"template", "verify", "../../etc"}, 1, "'../../etc' must start with"},
      {{"pool", "set", "nope", "--size", "2"}, 1, "no template named 'nope'"},
      {{"pool", "set", "--size", "100000"}, 1, "target: 100000 is more than 10000"},
  };
  for (const auto& c : kCases) {
    const auto ran = Cli(daemon().dir(), c.args);
    EXPECT_EQ(ran.status.value, c.exit_code) << testing::PrintToString(c.args) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(c.says)) << testing::PrintToString(c.args);
  }
}

TEST_F(BadInputTest, CommandsThatAreNoneFloodOrNeverEnd) {
  const auto id = Acquire();
  auto exec = [&](std::vector<std::string> args) {
    args.insert(args.begin(), {"vm", "exec", id});
    return Cli(daemon().dir(), args);
  };
  EXPECT_THAT(exec({"--", "no-such"}).err, HasSubstr("no program 'no-such'"));
  EXPECT_THAT(exec({"--", ""}).err, HasSubstr("argv"));
  EXPECT_EQ(exec({"--", "echo", std::string(100'000, 'a')}).out.size(), 100'001u);
  const auto flood = exec({"--", "sh", "-c", "yes | head -c 2000000"});
  EXPECT_EQ(flood.status.value, 0) << flood.err;
  EXPECT_EQ(flood.out.size(), 1u << 20);
  EXPECT_THAT(flood.err, HasSubstr("stdout was cut off after 1 MiB"));
  // How much it says by then is the host's affair.
  const auto endless = exec({"--timeout", "300ms", "--", "yes"});
  EXPECT_EQ(endless.status.value, 124);
  EXPECT_LE(endless.out.size(), 1u << 20);
  EXPECT_THAT(endless.err, HasSubstr("did not end within 300ms and was killed"));
  EXPECT_TRUE(daemon().Release(id).ok());
}

TEST_F(BadInputTest, AnEnormousArgvIsRefusedAndTheVmLives) {
  const auto id = Acquire();
  api::ExecResponse reply;
  const auto status = daemon().Exec(id, {"echo", std::string(3 << 20, 'a')}, &reply);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(daemon().Shell(id, "echo alive"), "alive");
  EXPECT_TRUE(daemon().Release(id).ok());
}

TEST_F(BadInputTest, AVmThatEndsUnderItsCommandIsNotTakenForTheDaemonsEnd) {
  const auto run = Cli(daemon().dir(), {"run", "--", "poweroff", "-f"});
  EXPECT_EQ(run.status.value, 125);
  EXPECT_THAT(run.err, HasSubstr("VM vm-"));
  EXPECT_THAT(run.err, Not(HasSubstr("the daemon at")));
}

TEST_F(BadInputTest, FrozenAndKilledWarmVmsAreReplaced) {
  FillPool();
  const auto frozen = WarmVms();
  ASSERT_EQ(frozen.size(), 2u);
  for (const pid_t pid : frozen) ::kill(pid, SIGSTOP);
  const auto id = Acquire();
  EXPECT_TRUE(daemon().Release(id).ok());
  for (const pid_t pid : frozen) EXPECT_FALSE(IdentifyProcess(pid).has_value());
  FillPool();
  for (const pid_t pid : WarmVms()) ::kill(pid, SIGKILL);
  EXPECT_TRUE(daemon().Release(Acquire()).ok());
}

TEST_F(BadInputTest, AGuestThatNeverAnswersEndsAtItsDeadlineWithItsConsole) {
  auto spec = Spec("mute");
  spec.set_kernel_params("rdinit=/bin/sh");  // a shell that waits for ever, and no agent
  spec.mutable_boot_timeout()->set_seconds(4);
  const auto status = Create(daemon(), spec);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("template 'mute'"));
  EXPECT_THAT(status.error_message(), HasSubstr("Booting from ROM"));
}

TEST_F(BadInputTest, BrokenTemplateFilesAreNamedAndMadeAgain) {
  const auto folder = daemon().dir() / "templates" / daemon().init.template_info().digest();
  for (const std::string file : {"manifest", "memory", "state"}) {
    ASSERT_EQ(daemon().Stop(), 0);
    const auto size = fs::file_size(folder / file);
    const bool keep = file != "state";
    if (keep) fs::rename(folder / file, folder / "kept");
    // Half of it, and nothing in there.
    {
      const UniqueFd made(::open((folder / file).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    fs::resize_file(folder / file, size / 2);
    daemon().Start();
    const auto acquire = Cli(daemon().dir(), {"vm", "acquire"});
    EXPECT_EQ(acquire.status.value, 1);
    EXPECT_THAT(acquire.err, HasSubstr(file));
    EXPECT_THAT(acquire.err, HasSubstr("hatchery template create default"));
    EXPECT_EQ(Cli(daemon().dir(), {"template", "verify", "default"}).status.value, 1);
    if (keep) fs::rename(folder / "kept", folder / file);
  }
  const auto status = daemon().Init(2);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_FALSE(fs::exists(folder)) << "the broken version stayed";
}

TEST_F(BadInputTest, SigtermWithWorkInFlightStopsCleanly) {
  const auto id = Acquire();
  api::ExecRequest exec;
  exec.set_vm_id(id);
  exec.mutable_argv()->Add("sleep");
  exec.mutable_argv()->Add("1000");
  grpc::CompletionQueue queue;
  auto exec_context = TestDaemon::Context();
  auto hanging = daemon().cache->AsyncExec(exec_context.get(), exec, &queue);
  api::ExecResponse reply;
  grpc::Status ended;
  hanging->Finish(&reply, &ended, nullptr);

  api::SetPoolRequest fill;
  fill.set_target(6);
  fill.set_wait(true);
  auto fill_context = TestDaemon::Context();
  auto filling = daemon().factory->SetPool(fill_context.get(), fill);
  api::SetPoolResponse step;
  ASSERT_TRUE(filling->Read(&step));
  EXPECT_EQ(daemon().Stop(), 0);
  while (filling->Read(&step)) {
  }
  EXPECT_FALSE(filling->Finish().ok());
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_FALSE(ended.ok());
  // The lease is all that is left.
  EXPECT_EQ(daemon().VmFolders(), std::set<std::string>{id});
  EXPECT_EQ(daemon().Vmms().size(), 1u);
  daemon().Start();
  EXPECT_EQ(daemon().Shell(id, "echo alive"), "alive");
  EXPECT_TRUE(daemon().Release(id).ok());
  FillPool();
}

TEST(BadDaemonTest, AQemuThatIsNoneIsNamed) {
  for (const std::string binary : {"/bin/true", "/bin/cat", "/etc/passwd", "/no-such-qemu"}) {
    TestDaemon daemon({"--qemu-binary", binary});
    const auto status = daemon.Init(1);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.error_message(), HasSubstr(binary));
    EXPECT_EQ(daemon.Stop(), 0);
    daemon.ExpectNothingLeft();
  }
}

TEST(BadDaemonTest, FullDisksRefuseWorkAndNothingIsLost) {
  TestDaemon daemon;
  ASSERT_EQ(daemon.Stop(), 0);
  SmallDisk metadata(daemon.dir() / "metadata", "40m");
  daemon.Start();
  {
    SmallDisk templates(daemon.dir() / "templates", "20m");
    const auto status = Create(daemon, Spec("default"));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr("No space left"));
    daemon.ExpectNothingLeft();
  }
  auto status = daemon.Init(1);
  ASSERT_TRUE(status.ok()) << status.error_message();
  metadata.Fill();
  api::AcquireResponse acquired;
  status = daemon.Acquire(&acquired);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr((daemon.dir() / "metadata").string()));
  metadata.Free();
  status = daemon.Acquire(&acquired);
  EXPECT_TRUE(status.ok()) << status.error_message();
  metadata.Fill();
  EXPECT_TRUE(daemon.Release(acquired.vm().vm_id()).ok());
  EXPECT_EQ(daemon.Stop(), 0);
  const auto refused = Hatcheryd({"--state-dir", daemon.dir().string()});
  EXPECT_EQ(refused.status.value, 1);
  EXPECT_THAT(refused.err, HasSubstr("is full"));
  metadata.Free();
  daemon.Start();
  EXPECT_EQ(daemon.Stop(), 0);
  daemon.ExpectNothingLeft();
}

TEST(BadDaemonTest, SettingsThatCannotBe) {
  const auto dir = TempDir::Create("/tmp", "hatchery-bad-").value();
  const auto config = (dir.path() / "c.toml").string();
  ASSERT_TRUE(WriteFileAtomically(config, "[qemu]\nbinari = 'x'\n").has_value());
  EXPECT_THAT(Hatcheryd({"--config", config}).err, HasSubstr(":2: there is no setting"));
  ASSERT_TRUE(WriteFileAtomically(config, "state_dir = 5\n").has_value());
  EXPECT_THAT(Hatcheryd({"--config", config}).err, HasSubstr(":1: state_dir must be a string"));
  EXPECT_EQ(Hatcheryd({"--state-dir", "/tmp/" + std::string(100, 'a')}).status.value, 2);
  EXPECT_THAT(Hatcheryd({"--state-dir", config}).err, HasSubstr("Not a directory"));
  // An endpoint that is somebody's file is not ours to replace.
  const auto refused =
      Hatcheryd({"--state-dir", (dir.path() / "state").string(), "--endpoint", config});
  EXPECT_EQ(refused.status.value, 1);
  EXPECT_THAT(refused.err, HasSubstr("is not a socket"));
  EXPECT_EQ(ReadFile(config).value(), "state_dir = 5\n");
}

}  // namespace
}  // namespace hatchery::e2e
