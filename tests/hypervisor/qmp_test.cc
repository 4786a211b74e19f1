#include "hypervisor/qemu/qmp.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <cstring>
#include <deque>
#include <optional>

#include "base/run.h"

namespace hatchery::hypervisor::qemu {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// The other end of the socket is QEMU's, played by hand.
class QmpTest : public testing::Test {
 protected:
  QmpTest() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    server_ = UniqueFd(fds[1]);
    ::fcntl(server_.get(), F_SETFL, O_NONBLOCK);
    client_ = std::make_unique<QmpClient>(
        io_.get_executor(), UniqueFd(fds[0]),
        QmpClient::Handlers{.on_event = [this](const QmpEvent& e) { OnEvent(e); },
                            .on_close = [this] { ++closed_; }});
  }
  virtual void OnEvent(const QmpEvent& event) {
    events_.push_back(event.name);
    if (event.name == "DESTROY") client_.reset();
  }

  void Say(std::string_view text) {
    ASSERT_EQ(::send(server_.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // What the client has sent by now; a descriptor that came along is kept in `received_`.
  std::string Heard() {
    std::string bytes(1 << 20, '\0');
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec part{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(server_.get(), &message, MSG_CMSG_CLOEXEC);
    if (const cmsghdr* header = CMSG_FIRSTHDR(&message); n > 0 && header != nullptr) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      received_ = UniqueFd(fd);
    }
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(0, n)));
    return bytes;
  }
  // Lets everything that is ready run.
  void Settle() {
    io_.restart();
    while (io_.poll() > 0) {
    }
  }
  struct Call {
    std::optional<Result<Json>> result;
  };
  Call& Execute(std::string command, Json arguments = {}, Deadline deadline = After(seconds(20)),
                int fd = -1) {
    Call& call = calls_.emplace_back();
    asio::co_spawn(io_, client_->Execute(std::move(command), std::move(arguments), deadline, fd),
                   [&call](std::exception_ptr failure, Result<Json> result) {
                     EXPECT_FALSE(failure);
                     call.result = std::move(result);
                   });
    Settle();
    return call;
  }

  asio::io_context io_;
  UniqueFd server_, received_;
  std::unique_ptr<QmpClient> client_;
  std::vector<std::string> events_;
  int closed_ = 0;
  std::deque<Call> calls_;
};

TEST_F(QmpTest, GreetsAndAgreesOnCapabilities) {
  std::optional<Result<void>> greeted;
  asio::co_spawn(io_, client_->Handshake(After(seconds(20))),
                 [&](std::exception_ptr, Result<void> result) { greeted = std::move(result); });
  Settle();
  EXPECT_EQ(Heard(), "");
  Say("{\"QMP\": {\"version\": {}}}\r\n");
  Settle();
  EXPECT_EQ(Heard(), "{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
  EXPECT_FALSE(greeted.has_value());
  Say("{\"return\": {}, \"id\": 1}\r\n");
  Settle();
  ASSERT_TRUE(greeted.has_value());
  EXPECT_TRUE(greeted->has_value());
}

TEST_F(QmpTest, AHandshakeWithoutGreetingEndsAtItsDeadline) {
  const auto greeted = RunUntilDone(io_, client_->Handshake(After(milliseconds(2))));
  EXPECT_EQ(greeted.error().code, Code::kDeadlineExceeded);
}

TEST_F(QmpTest, MatchesAnswersToCommandsInAnyOrder) {
  Call& first = Execute("first");
  Call& second = Execute("second", {{"x", 1}});
  EXPECT_EQ(Heard(),
            "{\"execute\":\"first\",\"id\":1}\n"
            "{\"execute\":\"second\",\"id\":2,\"arguments\":{\"x\":1}}\n");
  Say("{\"return\": 22, \"id\": 2}\n{\"event\": \"A\"}\n{\"error\": {\"desc\": \"w\"}, \"id\": "
      "1}\n");
  Settle();
  EXPECT_EQ(second.result.value().value(), 22);
  EXPECT_EQ(first.result.value().error().message, "first: w");
  EXPECT_EQ(events_, std::vector<std::string>{"A"});
}

TEST_F(QmpTest, PassesADescriptorAlong) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  UniqueFd read(pipe[0]), write(pipe[1]);
  Execute("getfd", {{"fdname", "s"}}, After(seconds(20)), write.get());
  EXPECT_FALSE(Heard().empty());
  ASSERT_TRUE(received_.valid());
  ASSERT_EQ(::write(received_.get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(read.get(), &byte, 1), 1);
  // The caller's is still its own.
  EXPECT_GE(::fcntl(write.get(), F_GETFD), 0);
}

TEST_F(QmpTest, ACommandWithoutAnswerEndsAtItsDeadlineAndALateAnswerIsIgnored) {
  const auto late = RunUntilDone(io_, client_->Execute("slow", {}, After(milliseconds(2))));
  EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
  Say("{\"return\": {}, \"id\": 1}\n");
  Call& next = Execute("next");
  Say("{\"return\": 5, \"id\": 2}\n");
  Settle();
  EXPECT_EQ(next.result.value().value(), 5);
}

TEST_F(QmpTest, EverythingInFlightFailsWhenTheChannelCloses) {
  Call& one = Execute("one");
  Call& two = Execute("two");
  server_.Reset();
  Settle();
  for (const Call* call : {&one, &two}) {
    ASSERT_TRUE(call->result.has_value());
    EXPECT_EQ(call->result->error().code, Code::kUnavailable);
  }
  EXPECT_EQ(closed_, 1);
  EXPECT_FALSE(client_->open());
  EXPECT_EQ(Execute("later").result.value().error().code, Code::kUnavailable);
  EXPECT_TRUE(RunUntilDone(io_, client_->WaitClosed(After(seconds(20)))).has_value());
}

TEST_F(QmpTest, GarbageFailsTheChannel) {
  Call& call = Execute("x");
  Say("{\"event\": \"BEFORE\"}\nnonsense\n{\"event\": \"AFTER\"}\n");
  Settle();
  EXPECT_EQ(call.result.value().error().code, Code::kDataLoss);
  EXPECT_EQ(events_, std::vector<std::string>{"BEFORE"});
  EXPECT_EQ(closed_, 1);
}

TEST_F(QmpTest, ALineWithoutEndFailsTheChannel) {
  const std::string block(32 << 10, 'x');
  for (int i = 0; i < 40 && client_->open(); ++i) {
    Say(block);
    Settle();
  }
  EXPECT_FALSE(client_->open());
}

TEST_F(QmpTest, WhatTheSocketDoesNotTakeIsSentLater) {
  const std::string large(300'000, 'y');
  for (int i = 0; i < 3; ++i) Execute("big", {{"s", large}});
  std::string heard;
  for (int i = 0; i < 200 && heard.size() < 3 * large.size(); ++i) {
    heard += Heard();
    Settle();
  }
  EXPECT_GT(heard.size(), 3 * large.size());
  EXPECT_EQ(std::ranges::count(heard, '\n'), 3);
  Say("{\"return\": {}, \"id\": 3}\n");
  Settle();
  EXPECT_TRUE(calls_[2].result.has_value());
}

TEST_F(QmpTest, MayBeDestroyedWhileCommandsWait) {
  Call& call = Execute("x");
  client_.reset();
  Settle();
  EXPECT_EQ(call.result.value().error().code, Code::kUnavailable);
  EXPECT_EQ(closed_, 0);
}

TEST_F(QmpTest, MayBeDestroyedByItsOwnHandler) {
  Call& call = Execute("x");
  Say("{\"event\": \"DESTROY\"}\n{\"event\": \"NEVER\"}\n");
  Settle();
  EXPECT_EQ(client_, nullptr);
  EXPECT_EQ(events_, std::vector<std::string>{"DESTROY"});
  EXPECT_FALSE(call.result.value().has_value());
}

TEST_F(QmpTest, ACancelledCommandLeavesNothingBehind) {
  TaskScope scope(io_.get_executor());
  std::optional<Code> seen;
  scope.Spawn("command", [](QmpClient& c, std::optional<Code>& out) -> asio::awaitable<void> {
    auto result = co_await c.Execute("x", {}, Deadline::max());
    if (!result) out = result.error().code;
  }(*client_, seen));
  Settle();
  scope.Cancel();
  Settle();
  EXPECT_EQ(seen, Code::kCancelled);
  EXPECT_EQ(scope.size(), 0u);
  Say("{\"return\": {}, \"id\": 1}\n");
  Settle();
  EXPECT_TRUE(client_->open());
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
