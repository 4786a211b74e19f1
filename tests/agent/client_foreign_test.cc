// The real client and an agent that has none of our calls, as seen on the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "agent/client/ttrpc_client.h"
#include "base/run.h"
#include "kata/agent.pb.h"
#include "tests/agent/scripted_server.h"

namespace hatchery::agent {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const Identity kIdentity{.seed = std::string(64, 's'),
                         .time = WallTime(seconds(1'700'000'000)),
                         .hostname = "h",
                         .machine_id = std::string(32, 'a'),
                         .vcpus = 3,
                         .memory = Bytes::MiB(512),
                         .had_vcpus = 1,
                         .had_memory = Bytes::MiB(256)};

// By how the agent refuses a call of a service that it has not: ttrpc's servers differ.
class ForeignClientTest : public testing::TestWithParam<Code> {
 public:
  ForeignClientTest() {
    auto [ours, theirs] = SocketPair();
    client_ = MakeTtrpcClient(io_.get_executor(), std::move(ours), "test");
    server_.emplace(io_.get_executor(), std::move(theirs));
    scope_.Spawn("agent", Serve(*this));
  }
  ~ForeignClientTest() override {
    client_.reset();
    scope_.Cancel();
    (void)RunUntilDone(io_, [](TaskScope& scope) -> Task<void> {
      co_await scope.Join();
      co_return Result<void>();
    }(scope_));
  }

  static asio::awaitable<void> Serve(ForeignClientTest& t) {
    for (;;) {
      auto call = co_await t.server_->Receive();
      if (!call) co_return;
      const ttrpc::Request request = call->request;
      t.calls_.push_back(request);
      if (request.method == t.leaves_at_) {
        t.client_.reset();
        co_return;
      }
      Result<void> sent;
      if (request.service == "hatchery.agent.v1.Guest") {
        sent = co_await t.server_->Send(ttrpc::EncodeError(
            call->id, t.GetParam(), request.service + " service does not exist"));
      } else if (request.method == t.fails_at_) {
        sent = co_await t.server_->Send(ttrpc::EncodeError(call->id, Code::kInternal, "as told"));
      } else {
        ::grpc::VersionCheckResponse version;
        version.set_grpc_version(t.protocol_);
        version.set_agent_version(t.release_);
        sent = co_await t.server_->Answer(
            call->id, request.method == "Version" ? version.SerializeAsString() : "");
      }
      if (!sent) co_return;
    }
  }

  template <class T>
  Result<T> Run(Task<T> call) {
    return RunUntilDone(io_, std::move(call));
  }
  Result<PersonalizeReport> Personalize(const Identity& identity) {
    return Run(client_->Personalize(identity, After(seconds(20))));
  }
  // What it was asked since the last time.
  std::vector<std::string> TakeMethods() {
    std::vector<std::string> methods;
    for (const auto& call : calls_) methods.push_back(call.method);
    calls_.clear();
    return methods;
  }

  asio::io_context io_;
  std::unique_ptr<Client> client_;
  std::optional<ScriptedServer> server_;
  std::vector<ttrpc::Request> calls_;
  std::string protocol_ = "0.0.1";
  std::string release_ = "3.1.3";
  std::string fails_at_;
  std::string leaves_at_;  // where the client is destroyed
  TaskScope scope_{io_.get_executor()};
};

TEST_P(ForeignClientTest, IsPersonalisedWithKatasCallsInTheirOrder) {
  const auto report = Personalize(kIdentity);
  ASSERT_TRUE(report.has_value()) << ToString(report.error());
  EXPECT_TRUE(report->foreign && report->reseeded && report->clock_set);
  EXPECT_FALSE(report->hostname_set || report->machine_id_set);
  EXPECT_EQ(report->boot_id, "");
  EXPECT_EQ(report->online_vcpus, 3u);
  EXPECT_EQ(report->online_memory, Bytes::MiB(512));
  ASSERT_EQ(calls_.size(), 5u);
  ::grpc::ReseedRandomDevRequest seed;
  ASSERT_TRUE(seed.ParseFromString(calls_[2].payload));
  EXPECT_EQ(seed.data(), kIdentity.seed);
  ::grpc::SetGuestDateTimeRequest time;
  ASSERT_TRUE(time.ParseFromString(calls_[3].payload));
  EXPECT_EQ(time.sec(), 1'700'000'000);
  ::grpc::OnlineCPUMemRequest online;
  ASSERT_TRUE(online.ParseFromString(calls_[4].payload));
  EXPECT_TRUE(online.wait());
  EXPECT_EQ(online.nb_cpus(), 2u) << "new ones, not the total";
  EXPECT_FALSE(online.cpu_only());
  EXPECT_THAT(TakeMethods(), ElementsAre("Personalize", "Version", "ReseedRandomDev",
                                         "SetGuestDateTime", "OnlineCPUMem"));
  // From here on it is known what it is.
  EXPECT_TRUE(Personalize(kIdentity).has_value());
  EXPECT_THAT(TakeMethods(), ElementsAre("ReseedRandomDev", "SetGuestDateTime", "OnlineCPUMem"));
  const auto ran = Run(client_->Exec({.argv = {"true"}}, After(seconds(20))));
  EXPECT_EQ(ran.error().code, Code::kUnimplemented);
  EXPECT_THAT(TakeMethods(), IsEmpty());
}

// Kata's agent reads nb_cpus in another way from 3.2 on.
TEST_P(ForeignClientTest, ALaterReleaseIsToldTheTotal) {
  release_ = "3.17.0-rc0";
  ASSERT_TRUE(Personalize(kIdentity).has_value());
  ::grpc::OnlineCPUMemRequest online;
  ASSERT_TRUE(online.ParseFromString(calls_.back().payload));
  EXPECT_EQ(online.nb_cpus(), 3u);
  ASSERT_TRUE(Run(client_->AwaitOnline(4, Bytes::MiB(512), 3, After(seconds(20)))).has_value());
  ASSERT_TRUE(online.ParseFromString(calls_.back().payload));
  EXPECT_EQ(online.nb_cpus(), 4u);
  // None are new: it is the memory that is.
  ASSERT_TRUE(Run(client_->AwaitOnline(4, Bytes::MiB(640), 4, After(seconds(20)))).has_value());
  ASSERT_TRUE(online.ParseFromString(calls_.back().payload));
  EXPECT_EQ(online.nb_cpus(), 0u);
}

TEST_P(ForeignClientTest, IsNotAskedToBringOnlineWhatIs) {
  Identity same = kIdentity;
  same.had_vcpus = same.vcpus;
  same.had_memory = same.memory;
  const auto report = Personalize(same);
  ASSERT_TRUE(report.has_value()) << ToString(report.error());
  EXPECT_EQ(report->online_vcpus, 3u);
  Identity later = kIdentity;  // who does not wait learns what there is without
  later.vcpus = 0;
  later.memory = Bytes();
  const auto sooner = Personalize(later);
  ASSERT_TRUE(sooner.has_value()) << ToString(sooner.error());
  EXPECT_EQ(sooner->online_vcpus, 1u);
  EXPECT_EQ(sooner->online_memory, Bytes::MiB(256));
  EXPECT_THAT(TakeMethods(), testing::Not(testing::Contains("OnlineCPUMem")));
}

TEST_P(ForeignClientTest, AFailureEndsItAndNamesTheCall) {
  fails_at_ = "SetGuestDateTime";
  const auto report = Personalize(kIdentity);
  ASSERT_FALSE(report.has_value());
  EXPECT_EQ(report.error().code, Code::kInternal);
  EXPECT_THAT(report.error().message, HasSubstr("SetGuestDateTime: as told"));
  EXPECT_THAT(TakeMethods(),
              ElementsAre("Personalize", "Version", "ReseedRandomDev", "SetGuestDateTime"));
}

// It refuses an argument, or is older than a call.
TEST_P(ForeignClientTest, OurOwnAgentsRefusalIsNoSignOfAnother) {
  protocol_ = kProtocol;
  EXPECT_EQ(Personalize(kIdentity).error().code, GetParam());
  EXPECT_THAT(TakeMethods(), ElementsAre("Personalize", "Version"));
  const auto ran = Run(client_->Exec({.argv = {"true"}}, After(seconds(20))));
  EXPECT_EQ(ran.error().code, GetParam());
  EXPECT_THAT(ran.error().message, HasSubstr("service does not exist"));
}

TEST_P(ForeignClientTest, AwaitsWhatIsNewWithKatasCall) {
  const auto online = Run(client_->AwaitOnline(4, Bytes::MiB(512), 3, After(seconds(20))));
  ASSERT_TRUE(online.has_value()) << ToString(online.error());
  EXPECT_EQ(online->vcpus, 4u);
  EXPECT_EQ(online->memory, Bytes::MiB(512));
  ::grpc::OnlineCPUMemRequest request;
  ASSERT_TRUE(request.ParseFromString(calls_.back().payload));
  EXPECT_EQ(request.nb_cpus(), 1u);
  EXPECT_THAT(TakeMethods(), ElementsAre("AwaitOnline", "Version", "OnlineCPUMem"));
}

TEST_P(ForeignClientTest, MayBeDestroyedBetweenTheCalls) {
  leaves_at_ = "SetGuestDateTime";
  EXPECT_EQ(Personalize(kIdentity).error().code, Code::kCancelled);
  EXPECT_EQ(client_, nullptr);
}

TEST_P(ForeignClientTest, ACallOfOursSaysWhoseAgentItIs) {
  const auto ran = Run(client_->Exec({.argv = {"true"}}, After(seconds(20))));
  ASSERT_FALSE(ran.has_value());
  EXPECT_EQ(ran.error().code, Code::kUnimplemented);
  EXPECT_EQ(ran.error().message, "the guest's agent has no Exec: it is not hatchery-agent");
  EXPECT_THAT(TakeMethods(), ElementsAre("Exec", "Version"));
}

INSTANTIATE_TEST_SUITE_P(Refusing, ForeignClientTest,
                         testing::Values(Code::kInvalidArgument, Code::kUnimplemented),
                         [](const auto& info) { return std::string(CodeName(info.param)); });

}  // namespace
}  // namespace hatchery::agent
