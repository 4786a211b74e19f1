#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "agent/client/dial.h"
#include "agent/client/ttrpc_client.h"
#include "base/files.h"
#include "base/run.h"

namespace hatchery::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class DialTest : public testing::Test {
 public:
  DialTest() : path_(dir_.path() / "s") {}

  // Dials the hybrid endpoint and says what came of it. The listener's peer gets `answer` once it
  // has sent its greeting, then the socket is closed if `close`.
  Result<UniqueFd> DialHybrid(std::string answer, bool close = false,
                              std::chrono::nanoseconds timeout = seconds(20)) {
    UniqueFd listener = ListenUnix(path_, 0600).value();
    // Accepting blocks until the dialer has connected, which is what a thread is for.
    std::thread vmm([&] {
      peer_ = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      char c = 0;
      while (c != '\n' && ::recv(peer_.get(), &c, 1, 0) == 1) greeting_ += c;
      (void)WriteAll(peer_.get(), answer);
      if (close) peer_.Reset();
    });
    auto socket = RunUntilDone(io_, Dial(HybridVsockEndpoint{path_, 1024}, After(timeout)));
    vmm.join();
    return socket;
  }

  asio::io_context io_;
  TempDir dir_ = TempDir::Create("/tmp", "dial-").value();
  std::filesystem::path path_;
  UniqueFd peer_;
  std::string greeting_;
};

TEST_F(DialTest, SaysThatNobodyListens) {
  auto socket = RunUntilDone(io_, Dial(UnixEndpoint{path_}, After(seconds(1))));
  EXPECT_EQ(socket.error().code, Code::kUnavailable);
  EXPECT_THAT(socket.error().message, HasSubstr(path_.string()));
  ListenUnix(path_, 0600).value();  // and is gone again, leaving its file
  socket = RunUntilDone(io_, Dial(UnixEndpoint{path_}, After(seconds(1))));
  EXPECT_EQ(socket.error().code, Code::kUnavailable);
}

TEST_F(DialTest, GreetsTheHybridVsockAndLeavesWhatFollowsUnread) {
  auto socket = DialHybrid("OK 1073741824\nttrpc");
  ASSERT_TRUE(socket.has_value()) << ToString(socket.error());
  EXPECT_EQ(greeting_, "CONNECT 1024\n");
  char rest[16] = {};
  EXPECT_EQ(::recv(socket->get(), rest, sizeof(rest), 0), 5);
  EXPECT_STREQ(rest, "ttrpc");
}

TEST_F(DialTest, TakesTheVmmsRefusalForUnavailable) {
  EXPECT_EQ(DialHybrid("", true).error().code, Code::kUnavailable);
  EXPECT_THAT(DialHybrid("ERR no such port\n").error().message, HasSubstr("ERR no such port"));
  EXPECT_EQ(DialHybrid("OKAY\n").error().code, Code::kUnavailable);
  EXPECT_THAT(DialHybrid(std::string(1000, 'x')).error().message, HasSubstr("no line"));
}

TEST_F(DialTest, DoesNotWaitForEverForTheGreeting) {
  EXPECT_EQ(DialHybrid("OK 12", false, milliseconds(50)).error().code, Code::kDeadlineExceeded);
}

TEST_F(DialTest, CancellationEndsTheWaitForTheGreeting) {
  UniqueFd listener = ListenUnix(path_, 0600).value();  // connects, never answers
  TaskScope scope(io_.get_executor());
  std::optional<Result<UniqueFd>> socket;
  scope.Spawn("dial",
              [](DialTest& t, std::optional<Result<UniqueFd>>& out) -> asio::awaitable<void> {
                out = co_await Dial(HybridVsockEndpoint{t.path_, 1}, Deadline::max());
              }(*this, socket));
  (void)RunUntilDone(io_, [](TaskScope& s) -> Task<void> {
    CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(1)));
    s.Cancel();
    co_await s.Join();
    co_return Result<void>();
  }(scope));
  EXPECT_EQ(socket.value().error().code, Code::kCancelled);
}

TEST_F(DialTest, AVsockWithoutAPeerFailsWithinTheDeadline) {
  auto socket = RunUntilDone(io_, Dial(VsockEndpoint{0x7ffffff0, 1024}, After(seconds(5))));
  ASSERT_FALSE(socket.has_value());
  EXPECT_THAT(socket.error().message, HasSubstr("vsock://"));
}

TEST_F(DialTest, TheConnectorNeedsNoAnswerToConnect) {
  UniqueFd listener = ListenUnix(path_, 0600).value();
  TtrpcConnector connector(io_.get_executor());
  auto client = RunUntilDone(io_, connector.Connect(UnixEndpoint{path_}, After(seconds(20))));
  ASSERT_TRUE(client.has_value()) << ToString(client.error());
  EXPECT_TRUE((*client)->usable());
}

}  // namespace
}  // namespace hatchery::agent
