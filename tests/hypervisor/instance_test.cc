// What becomes of a VM whose QEMU cannot go on: its process is a sleep(1), its QMP is played by
// hand.
#include "hypervisor/qemu/instance.h"

#include <gmock/gmock.h>
#include <sys/socket.h>

#include "base/files.h"
#include "base/run.h"

namespace hatchery::hypervisor::qemu {
namespace {

using testing::HasSubstr;

class InstanceTest : public testing::Test {
 protected:
  InstanceTest() {
    VmConfig config;
    config.id = VmId("vm-1");
    config.run_dir = dir_.path();
    instance_ = std::make_shared<Instance>(io_.get_executor(), std::move(config),
                                           std::make_shared<Isolation>());
    PosixSpawner spawner(io_.get_executor());
    SpawnRequest request;
    request.argv = {"sleep", "1000"};
    request.env = MinimalEnvironment();
    auto process = spawner.Spawn(request).value();
    EXPECT_TRUE(instance_->Watch(process).has_value());
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    qemu_ = UniqueFd(fds[1]);
    instance_->Connect(UniqueFd(fds[0]));
    instance_->state = VmState::kPaused;
  }
  ~InstanceTest() override {
    (void)RunUntilDone(io_, instance_->End(After(std::chrono::seconds(30))));
    instance_->Detach();
  }

  void Say(std::string_view text) {
    ASSERT_EQ(::send(qemu_.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // Answers the one command that is asked next.
  void Answer(const std::string& result) {
    char asked[512];
    ssize_t n = 0;
    while ((n = ::recv(qemu_.get(), asked, sizeof asked, MSG_DONTWAIT)) <= 0) io_.run_one();
    const auto id = Json::parse(std::string(asked, static_cast<std::size_t>(n))).at("id");
    Say(Json{{"return", Json::parse(result)}, {"id", id}}.dump() + "\r\n");
  }
  Result<ExitReason> Exit() {
    return RunUntilDone(io_, instance_->exit.Wait(After(std::chrono::seconds(30))));
  }

  asio::io_context io_;
  TempDir dir_ = TempDir::Create("/tmp", "hatchery-instance-").value();
  std::shared_ptr<Instance> instance_;
  UniqueFd qemu_;
};

constexpr auto kStop = R"({"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}})"
                       "\r\n";

// It would look like a paused VM for ever: a warm one too.
TEST_F(InstanceTest, AGuestThatQemuStoppedByItselfIsEndedWithTheReason) {
  Say(kStop);
  Answer(R"({"status": "internal-error", "running": false, "singlestep": false})");
  const auto reason = Exit();
  ASSERT_TRUE(reason.has_value()) << ToString(reason.error());
  EXPECT_EQ(reason->kind, ExitReason::Kind::kVmmExited);
  EXPECT_THAT(reason->detail, HasSubstr("internal-error"));
}

TEST_F(InstanceTest, AnOrdinaryPauseIsNoFailure) {
  Say(kStop);
  Answer(R"({"status": "paused", "running": false, "singlestep": false})");
  (void)RunUntilDone(io_, instance_->changed.Wait(After(std::chrono::milliseconds(50))));
  EXPECT_EQ(instance_->state, VmState::kPaused);
  EXPECT_FALSE(instance_->exit.has_value());
}

TEST_F(InstanceTest, AQemuThatLivesButSpeaksNoQmpHasFailed) {
  Say("this is no JSON\r\n");
  while (instance_->state != VmState::kFailed) io_.run_one();
  EXPECT_FALSE(instance_->exit.has_value()) << "its guest may be of use still";
}

TEST_F(InstanceTest, AQemuThatEndsIsNoFailureOfItsChannel) {
  qemu_.Reset();
  ASSERT_TRUE(instance_->process->Signal(SIGKILL).has_value());
  const auto reason = Exit();
  ASSERT_TRUE(reason.has_value());
  EXPECT_THAT(reason->detail, HasSubstr("Killed"));
  EXPECT_EQ(instance_->state, VmState::kStopped);
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
