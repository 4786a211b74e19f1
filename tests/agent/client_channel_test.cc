#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "agent/client/channel.h"
#include "base/run.h"
#include "tests/agent/scripted_server.h"

namespace hatchery::agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

using Answer = std::optional<Result<std::string>>;

class ChannelTest : public testing::Test {
 public:
  ChannelTest() {
    auto [ours, theirs] = SocketPair();
    channel_ = std::make_unique<Channel>(io_.get_executor(), std::move(ours), "test");
    server_.emplace(io_.get_executor(), std::move(theirs));
  }
  ~ChannelTest() override {
    calls_.Cancel();
    channel_.reset();
    Run(JoinCalls());
  }

  // Runs `body`, which has 20 seconds before the test is given up.
  void Run(Task<void> body) {
    auto result = RunUntilDone(io_, std::move(body));
    EXPECT_TRUE(result.has_value()) << ToString(result.error());
  }
  Task<void> JoinCalls() {
    co_await calls_.Join();
    co_return Result<void>();
  }

  // A call beside the test; its answer arrives in `answer`.
  void Start(std::string payload, Answer& answer, Deadline deadline = After(seconds(20))) {
    calls_.Spawn("call", StartedCall(*channel_, std::move(payload), deadline, answer));
  }
  static asio::awaitable<void> StartedCall(Channel& channel, std::string payload, Deadline deadline,
                                           Answer& answer) {
    answer = co_await channel.Call("test.Service", "Method", std::move(payload), deadline);
  }

  asio::io_context io_;
  std::unique_ptr<Channel> channel_;
  std::optional<ScriptedServer> server_;
  TaskScope calls_{io_.get_executor()};
};

TEST_F(ChannelTest, CarriesTheRequestAndTheAnswer) {
  Answer answer;
  Start("ping", answer);
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    EXPECT_EQ(call.request.service, "test.Service");
    EXPECT_EQ(call.request.method, "Method");
    EXPECT_EQ(call.request.payload, "ping");
    EXPECT_EQ(call.id % 2, 1u);
    EXPECT_GT(call.request.timeout, seconds(0));
    EXPECT_LE(call.request.timeout, seconds(20));
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, "pong"));
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(answer.value().value(), "pong");
}

TEST_F(ChannelTest, MatchesAnswersThatComeInAnyOrder) {
  constexpr std::size_t kCalls = 200;
  std::vector<Answer> answers(kCalls);
  for (std::size_t i = 0; i < kCalls; ++i) Start(std::to_string(i), answers[i]);
  Run([](ChannelTest& t) -> Task<void> {
    std::vector<ReceivedCall> received;
    while (received.size() < kCalls) {
      ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
      if (!received.empty()) EXPECT_GT(call.id, received.back().id);
      received.push_back(std::move(call));
    }
    std::ranges::reverse(received);
    for (auto& call : received) {
      CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, "re " + call.request.payload));
    }
    co_return co_await t.JoinCalls();
  }(*this));
  for (std::size_t i = 0; i < kCalls; ++i) {
    EXPECT_EQ(answers[i].value().value(), "re " + std::to_string(i));
  }
}

TEST_F(ChannelTest, KeepsTheCodeOfTheAgentsErrorAndNamesTheMethod) {
  Answer answer;
  Start("", answer);
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    CO_RETURN_IF_ERROR(co_await t.server_->Send(
        ttrpc::EncodeError(call.id, Code::kFailedPrecondition, "not now")));
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(answer.value().error().code, Code::kFailedPrecondition);
  EXPECT_EQ(answer.value().error().message, "Method: not now");
  EXPECT_TRUE(channel_->usable());
}

TEST_F(ChannelTest, AnExpiredCallFailsAloneAndItsLateAnswerIsIgnored) {
  Answer expired, later;
  Start("expires", expired, After(milliseconds(20)));
  Run([](ChannelTest& t, Answer& next) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto late, co_await t.server_->Receive());
    CO_RETURN_IF_ERROR(co_await t.JoinCalls());
    t.Start("later", next);
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(late.id, "too late"));
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, "in time"));
    co_return co_await t.JoinCalls();
  }(*this, later));
  EXPECT_EQ(expired.value().error().code, Code::kDeadlineExceeded);
  EXPECT_EQ(later.value().value(), "in time");
}

TEST_F(ChannelTest, ADeadlineInThePastSendsNothing) {
  Answer past, present;
  Start("past", past, Deadline::min());
  Start("present", present, Deadline::max());
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    EXPECT_EQ(call.request.payload, "present");
    EXPECT_EQ(call.request.timeout.count(), 0);  // none
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, ""));
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(past.value().error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(present.value().has_value());
}

TEST_F(ChannelTest, GarbageFailsEveryCallNowAndLater) {
  for (const bool header : {true, false}) {
    auto [ours, theirs] = SocketPair();
    channel_ = std::make_unique<Channel>(io_.get_executor(), std::move(ours), "test");
    server_.emplace(io_.get_executor(), std::move(theirs));
    Answer first, second, later;
    Start("", first);
    Start("", second);
    Run([](ChannelTest& t, bool bad_header, Answer& next) -> Task<void> {
      ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
      const auto type = ttrpc::MessageType::kResponse;
      CO_RETURN_IF_ERROR(co_await t.server_->Send(
          bad_header ? "login: this is no ttrpc"
                     : *ttrpc::EncodeFrame({.stream_id = call.id, .type = type, .data = "\x0f"})));
      CO_RETURN_IF_ERROR(co_await t.JoinCalls());
      t.Start("", next);
      co_return co_await t.JoinCalls();
    }(*this, header, later));
    for (const auto* answer : {&first, &second, &later}) {
      EXPECT_EQ(answer->value().error().code, Code::kUnavailable);
      EXPECT_THAT(answer->value().error().message, HasSubstr("garbage"));
    }
    EXPECT_FALSE(channel_->usable());
  }
}

TEST_F(ChannelTest, PutsTogetherAFrameThatComesByteByByte) {
  Answer answer;
  Start("", answer);
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    const std::string frame = *ttrpc::EncodeResponse(call.id, "piecemeal");
    for (const char c : frame) {
      CO_RETURN_IF_ERROR(co_await t.server_->Send(std::string(1, c)));
      CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(0)));  // lets the channel read
    }
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(answer.value().value(), "piecemeal");
}

TEST_F(ChannelTest, EndOfFileInTheMiddleOfAFrameFailsTheCall) {
  Answer answer;
  Start("", answer);
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    const std::string frame = *ttrpc::EncodeResponse(call.id, "half");
    CO_RETURN_IF_ERROR(co_await t.server_->Send(frame.substr(0, frame.size() - 1)));
    t.server_->Close();
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(answer.value().error().code, Code::kUnavailable);
  EXPECT_THAT(answer.value().error().message, HasSubstr("test closed the connection"));
}

TEST_F(ChannelTest, CarriesLargeMessagesBothWaysAtOnce) {
  const std::string large(3u << 20, 'x');
  Answer first, second;
  Start(large, first);
  Start(large, second);
  Run([](ChannelTest& t) -> Task<void> {
    for (int i = 0; i < 2; ++i) {
      ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
      EXPECT_EQ(call.request.payload.size(), 3u << 20);
      CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, call.request.payload));
    }
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(first.value().value(), large);
  EXPECT_EQ(second.value().value(), large);
}

TEST_F(ChannelTest, RefusesAMessageThatFitsNoFrameAndStaysUsable) {
  Answer answer;
  Start(std::string(5u << 20, 'x'), answer);
  Run(JoinCalls());
  EXPECT_EQ(answer.value().error().code, Code::kInvalidArgument);
  EXPECT_TRUE(channel_->usable());
}

TEST_F(ChannelTest, BoundsWhatWaitsForAnAgentThatDoesNotRead) {
  const std::string large(3u << 20, 'x');
  std::vector<Answer> answers(8);
  for (auto& answer : answers) Start(large, answer, Deadline::max());
  Run([](ChannelTest& t, Answer& last) -> Task<void> {
    while (!last) CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(0)));
    t.calls_.Cancel();
    co_return co_await t.JoinCalls();
  }(*this, answers.back()));
  EXPECT_EQ(answers.front().value().error().code, Code::kCancelled);
  EXPECT_EQ(answers.back().value().error().code, Code::kResourceExhausted);
  EXPECT_TRUE(channel_->usable());
}

TEST_F(ChannelTest, CancellationEndsTheCallOnly) {
  Answer cancelled, later;
  Start("", cancelled, Deadline::max());
  Run([](ChannelTest& t, Answer& next) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto late, co_await t.server_->Receive());
    t.calls_.Cancel();
    CO_RETURN_IF_ERROR(co_await t.JoinCalls());
    t.Start("", next);
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(late.id, "late"));
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, "next"));
    co_return co_await t.JoinCalls();
  }(*this, later));
  EXPECT_EQ(cancelled.value().error().code, Code::kCancelled);
  EXPECT_EQ(later.value().value(), "next");
}

TEST_F(ChannelTest, DestroyingItCancelsItsCallsInFlight) {
  std::vector<Answer> answers(3);
  for (auto& answer : answers) Start(std::string(1u << 20, 'x'), answer, Deadline::max());
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    t.channel_.reset();
    co_return co_await t.JoinCalls();
  }(*this));
  for (const auto& answer : answers) EXPECT_EQ(answer.value().error().code, Code::kCancelled);
}

TEST_F(ChannelTest, AnAnswerThatNobodyAskedForIsDropped) {
  Answer answer;
  Start("", answer);
  Run([](ChannelTest& t) -> Task<void> {
    ASSIGN_OR_CO_RETURN(auto call, co_await t.server_->Receive());
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id + 2, "left in the port"));
    CO_RETURN_IF_ERROR(co_await t.server_->Answer(call.id, "ours"));
    co_return co_await t.JoinCalls();
  }(*this));
  EXPECT_EQ(answer.value().value(), "ours");
}

}  // namespace
}  // namespace hatchery::agent
