// The whole service on a real QEMU: templates, pools, acquire, exec, release, restart.
#include <gmock/gmock.h>

#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using testing::HasSubstr;

class ServiceTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    daemon_ = new TestDaemon();
    const auto status = daemon_->Init(2);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  static void TearDownTestSuite() {
    daemon_->ExpectDestroyLeavesNothing();
    EXPECT_EQ(daemon_->Stop(), 0);
    delete daemon_;
  }
  static TestDaemon& daemon() { return *daemon_; }
  static TestDaemon* daemon_;
};
TestDaemon* ServiceTest::daemon_ = nullptr;

TEST_F(ServiceTest, AcquiresAResizedVmAndRunsACommandInIt) {
  api::AcquireRequest request;
  request.set_vcpus(2);
  request.set_memory_bytes(Bytes::MiB(512).count());
  api::AcquireResponse acquired;
  const auto status = daemon().Acquire(&acquired, request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const auto& id = acquired.vm().vm_id();
  EXPECT_EQ(daemon().Shell(id, "nproc"), "2");
  const auto kib = std::stoul(daemon().Shell(id, "awk '/MemTotal/{print $2}' /proc/meminfo"));
  EXPECT_GT(kib, 440u << 10);
  EXPECT_LT(kib, 512u << 10);
  // Movable, so that it can be taken away again.
  EXPECT_EQ(
      daemon().Shell(id, "cat /sys/devices/system/memory/memory3*/valid_zones | sort -u | head -1"),
      "Movable");
  EXPECT_TRUE(daemon().Release(id).ok());
  EXPECT_FALSE(IdentifyProcess(static_cast<pid_t>(acquired.vm().pid())).has_value());
}

TEST_F(ServiceTest, ACommandWhoseCallerGoesAwayIsEnded) {
  api::AcquireResponse acquired;
  ASSERT_TRUE(daemon().Acquire(&acquired).ok());
  const auto& id = acquired.vm().vm_id();
  const auto until = [&id](const std::string& running) {
    std::string now;
    const Deadline end = After(std::chrono::seconds(30));
    do {
      now = daemon().Shell(id, "ps | grep -c '[s]leep 4321' || true");
    } while (now != running && std::chrono::steady_clock::now() < end);
    EXPECT_EQ(now, running);
  };
  auto context = TestDaemon::Context();
  grpc::Status ended;
  std::thread caller([&] {
    api::ExecRequest request;
    request.set_vm_id(id);
    request.add_argv("sleep");
    request.add_argv("4321");
    api::ExecResponse reply;
    ended = daemon().cache->Exec(context.get(), request, &reply);
  });
  until("1");
  context->TryCancel();
  caller.join();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::CANCELLED);
  until("0");
  EXPECT_TRUE(daemon().Release(id).ok());
}

TEST_F(ServiceTest, AnAcquireNeedNotWaitForTheGuestsResize) {
  api::AcquireRequest request;
  request.set_request_id("resize-in-background");
  request.set_vcpus(2);
  request.set_memory_bytes(Bytes::MiB(512).count());
  request.set_resize_in_background(true);
  api::AcquireResponse acquired;
  const auto status = daemon().Acquire(&acquired, request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const auto& vm = acquired.vm();
  EXPECT_EQ(vm.vcpus() + vm.pending_vcpus(), 2u);
  EXPECT_EQ(vm.memory_bytes() + vm.pending_memory_bytes(), Bytes::MiB(512).count());
  // It is unique by then.
  EXPECT_EQ(daemon().Shell(vm.vm_id(), "cat /proc/sys/kernel/random/boot_id"), vm.boot_id());
  api::GetVmRequest get;
  get.set_vm_id(vm.vm_id());
  api::GetVmResponse now;
  do {
    const auto got = daemon().cache->GetVm(TestDaemon::Context().get(), get, &now);
    ASSERT_TRUE(got.ok()) << got.error_message();
    ASSERT_EQ(now.vm().pending_problem(), "");
  } while (now.vm().pending_vcpus() > 0 || now.vm().pending_memory_bytes() > 0);
  EXPECT_EQ(now.vm().vcpus(), 2u);
  EXPECT_EQ(now.vm().memory_bytes(), Bytes::MiB(512).count());
  EXPECT_EQ(daemon().Shell(vm.vm_id(), "nproc"), "2");
  EXPECT_TRUE(daemon().Release(vm.vm_id()).ok());
  // The other way to wait: the same request again, without that wish.
  request.set_request_id("resize-in-background-2");
  ASSERT_TRUE(daemon().Acquire(&acquired, request).ok());
  request.set_resize_in_background(false);
  api::AcquireResponse again;
  const auto repeated = daemon().Acquire(&again, request);
  ASSERT_TRUE(repeated.ok()) << repeated.error_message();
  EXPECT_EQ(again.vm().vm_id(), acquired.vm().vm_id());
  EXPECT_EQ(again.vm().vcpus(), 2u);
  EXPECT_EQ(again.vm().pending_memory_bytes(), 0u);
  EXPECT_EQ(daemon().Shell(again.vm().vm_id(), "nproc"), "2");
  EXPECT_TRUE(daemon().Release(again.vm().vm_id()).ok());
}

TEST_F(ServiceTest, TwentyClonesShareNothingThatTellsThemApart) {
  std::set<std::string> random, boot_ids, machine_ids, hostnames;
  for (int i = 0; i < 20; ++i) {
    api::AcquireResponse acquired;
    const auto status = daemon().Acquire(&acquired);
    ASSERT_TRUE(status.ok()) << status.error_message();
    const auto& id = acquired.vm().vm_id();
    const auto before = std::chrono::system_clock::now();
    const auto clock = daemon().Shell(id, "date +%s");
    const auto after = std::chrono::system_clock::now();
    const auto seconds = std::chrono::seconds(std::stoll(clock));
    EXPECT_GE(seconds, std::chrono::floor<std::chrono::seconds>(before.time_since_epoch()) -
                           std::chrono::seconds(1));
    EXPECT_LE(seconds, after.time_since_epoch() + std::chrono::seconds(1));
    random.insert(daemon().Shell(id, "head -c 32 /dev/urandom | hexdump -ve '1/1 \"%02x\"'"));
    boot_ids.insert(daemon().Shell(id, "cat /proc/sys/kernel/random/boot_id"));
    machine_ids.insert(daemon().Shell(id, "cat /etc/machine-id"));
    hostnames.insert(daemon().Shell(id, "hostname"));
    EXPECT_EQ(daemon().Shell(id, "cat /proc/sys/kernel/random/boot_id"), acquired.vm().boot_id());
    EXPECT_EQ(daemon().Shell(id, "cat /etc/machine-id"), acquired.vm().machine_id());
    EXPECT_EQ(daemon().Shell(id, "hostname"), acquired.vm().hostname());
    EXPECT_TRUE(daemon().Release(id).ok());
  }
  EXPECT_EQ(random.size(), 20u);
  EXPECT_EQ(boot_ids.size(), 20u);
  EXPECT_EQ(machine_ids.size(), 20u);
  EXPECT_EQ(hostnames.size(), 20u);
}

TEST_F(ServiceTest, CommandsThatMisbehave) {
  api::AcquireResponse acquired;
  ASSERT_TRUE(daemon().Acquire(&acquired).ok());
  const auto& id = acquired.vm().vm_id();
  api::ExecResponse reply;
  EXPECT_EQ(daemon().Exec(id, {"no-such-command"}, &reply).error_code(),
            grpc::StatusCode::NOT_FOUND);

  api::ExecRequest limited;
  limited.set_output_limit(1000);
  ASSERT_TRUE(
      daemon().Exec(id, {"sh", "-c", "yes | head -c 5000000; exit 7"}, &reply, limited).ok());
  EXPECT_EQ(reply.out().size(), 1000u);
  EXPECT_TRUE(reply.out_truncated());
  EXPECT_EQ(reply.exit_code(), 7);

  api::ExecRequest timed;
  timed.mutable_timeout()->set_nanos(100'000'000);
  ASSERT_TRUE(daemon().Exec(id, {"sh", "-c", "while :; do :; done"}, &reply, timed).ok());
  EXPECT_TRUE(reply.timed_out());
  EXPECT_EQ(reply.signal(), SIGKILL);

  api::ExecRequest with_input;
  with_input.set_stdin_data("through and through");
  ASSERT_TRUE(daemon().Exec(id, {"cat"}, &reply, with_input).ok());
  EXPECT_EQ(reply.out(), "through and through");
  EXPECT_TRUE(daemon().Release(id).ok());
}

TEST_F(ServiceTest, AVmThatPowersOffEndsItsLease) {
  api::AcquireResponse acquired;
  ASSERT_TRUE(daemon().Acquire(&acquired).ok());
  const auto& id = acquired.vm().vm_id();
  api::ExecResponse reply;
  (void)daemon().Exec(id, {"sh", "-c", "poweroff -f"}, &reply);
  api::GetVmRequest get;
  get.set_vm_id(id);
  for (;;) {
    api::GetVmResponse got;
    const auto status = daemon().cache->GetVm(TestDaemon::Context().get(), get, &got);
    if (status.error_code() == grpc::StatusCode::NOT_FOUND) break;
    std::this_thread::yield();
  }
  EXPECT_FALSE(IdentifyProcess(static_cast<pid_t>(acquired.vm().pid())).has_value());
}

TEST_F(ServiceTest, VerifiesATemplateAndNamesACorruptedOne) {
  api::VerifyTemplateRequest request;
  request.set_name("default");
  auto verify = [&] {
    auto context = TestDaemon::Context();
    auto reader = daemon().factory->VerifyTemplate(context.get(), request);
    for (api::VerifyTemplateResponse step; reader->Read(&step);) {
    }
    return reader->Finish();
  };
  EXPECT_TRUE(verify().ok());
  const auto folder = daemon().dir() / "templates" / daemon().init.template_info().digest();
  const auto state = ReadFile(folder / "state").value();
  auto broken = state;
  broken[broken.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(folder / "state", broken).has_value());
  const auto status = verify();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_THAT(status.error_message(), HasSubstr("state"));
  ASSERT_TRUE(WriteFileAtomically(folder / "state", state).has_value());
  EXPECT_TRUE(verify().ok());
}

TEST_F(ServiceTest, AKernelThatIsNoneIsAnErrorThatLeavesNothing) {
  const auto folders = daemon().VmFolders();
  api::CreateTemplateRequest request;
  auto* spec = request.mutable_template_spec();
  spec->set_name("broken");
  spec->set_kernel((BinDir() / "hatchery").string());
  spec->set_initrd((ImageDir() / "initrd.img").string());
  spec->mutable_boot_timeout()->set_seconds(20);
  auto context = TestDaemon::Context();
  auto reader = daemon().factory->CreateTemplate(context.get(), request);
  for (api::CreateTemplateResponse step; reader->Read(&step);) {
  }
  const auto status = reader->Finish();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.error_message(), HasSubstr("broken"));
  api::ListTemplatesResponse all;
  ASSERT_TRUE(daemon().factory->ListTemplates(TestDaemon::Context().get(), {}, &all).ok());
  EXPECT_EQ(all.templates_size(), 1);
}

class RestartTest : public testing::Test {};

TEST_F(RestartTest, VmsOutliveTheDaemonAndAreTakenOver) {
  TestDaemon daemon;
  ASSERT_TRUE(daemon.Init(2).ok());
  api::AcquireResponse acquired;
  ASSERT_TRUE(daemon.Acquire(&acquired).ok());
  const auto& id = acquired.vm().vm_id();
  daemon.Shell(id, "echo still here > /tmp/mark");
  daemon.Kill();
  EXPECT_TRUE(IdentifyProcess(static_cast<pid_t>(acquired.vm().pid())).has_value());
  daemon.Start();
  EXPECT_EQ(daemon.Shell(id, "cat /tmp/mark"), "still here");
  api::AcquireResponse another;
  const auto status = daemon.Acquire(&another);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_NE(another.vm().vm_id(), id);
  EXPECT_TRUE(daemon.Release(id).ok());
  EXPECT_TRUE(daemon.Release(another.vm().vm_id()).ok());
  EXPECT_EQ(daemon.Stop(), 0);
  daemon.ExpectNothingLeft();
}

TEST_F(RestartTest, SigtermDuringABuildLeavesNothing) {
  TestDaemon daemon;
  api::InitRequest request;
  auto context = TestDaemon::Context();
  auto reader = daemon.factory->Init(context.get(), request);
  api::InitResponse step;
  while (reader->Read(&step) && daemon.Vmms().empty()) {
  }
  EXPECT_EQ(daemon.Stop(), 0);
  while (reader->Read(&step)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  daemon.ExpectNothingLeft();
}

TEST_F(RestartTest, ASecondDaemonOnTheSameStateDirectoryIsRefused) {
  TestDaemon daemon;
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  auto second = RunUntilDone(
      io,
      RunCommand(spawner, {(BinDir() / "hatcheryd").string(), "--state-dir", daemon.dir().string()},
                 After(std::chrono::seconds(30))));
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->status.value, 1);
  EXPECT_THAT(second->err, HasSubstr(daemon.dir().string()));
  api::StatusResponse status;
  EXPECT_TRUE(daemon.factory->Status(TestDaemon::Context().get(), {}, &status).ok());
}

}  // namespace
}  // namespace hatchery::e2e
