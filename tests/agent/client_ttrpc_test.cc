#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "agent/client/ttrpc_client.h"
#include "agent/client/validate.h"
#include "base/run.h"
#include "hatchery/agent/v1/guest.pb.h"
#include "kata/agent.pb.h"
#include "tests/agent/scripted_server.h"

namespace hatchery::agent {
namespace {

using std::chrono::seconds;
constexpr auto kMoment = std::chrono::milliseconds(20);
using testing::HasSubstr;

const Identity kIdentity{.seed = std::string(32, 's'),
                         .time = WallTime(seconds(1'700'000'000)),
                         .hostname = "h",
                         .machine_id = std::string(32, 'a'),
                         .vcpus = 2,
                         .memory = Bytes::MiB(512)};

PersonalizeReport Confirmation() {
  return {.reseeded = true,
          .clock_set = true,
          .hostname_set = true,
          .machine_id_set = true,
          .boot_id = "b",
          .online_vcpus = 2,
          .online_memory = Bytes::MiB(512)};
}

TEST(CheckConfirmed, NamesTheFirstPartThatIsMissing) {
  EXPECT_TRUE(CheckConfirmed(kIdentity, Confirmation()).has_value());
  const auto missing = [](auto unconfirm) {
    PersonalizeReport report = Confirmation();
    unconfirm(report);
    const auto checked = CheckConfirmed(kIdentity, report);
    EXPECT_EQ(checked.error().code, Code::kInternal);
    return checked.error().message;
  };
  EXPECT_THAT(missing([](auto& r) { r.reseeded = false; }), HasSubstr("seed"));
  EXPECT_THAT(missing([](auto& r) { r.clock_set = false; }), HasSubstr("time"));
  EXPECT_THAT(missing([](auto& r) { r.hostname_set = false; }), HasSubstr("hostname"));
  EXPECT_THAT(missing([](auto& r) { r.machine_id_set = false; }), HasSubstr("machine_id"));
  EXPECT_THAT(missing([](auto& r) { r.boot_id.clear(); }), HasSubstr("boot_id"));
  EXPECT_THAT(missing([](auto& r) { r.online_vcpus = 1; }), HasSubstr("1 of 2"));
  EXPECT_THAT(missing([](auto& r) { r.online_memory = Bytes::MiB(256); }), HasSubstr("memory"));
}

TEST(CheckConfirmed, AsksOnlyForWhatWasAsked) {
  Identity little{.seed = kIdentity.seed};
  little.renew_boot_id = false;
  EXPECT_TRUE(CheckConfirmed(little, {.reseeded = true, .clock_set = true}).has_value());
}

TEST(CheckConfirmed, DoesNotMissWhatAForeignAgentHasNoCallFor) {
  PersonalizeReport report = Confirmation();
  report.foreign = true;
  report.hostname_set = false;
  report.machine_id_set = false;
  report.boot_id.clear();
  EXPECT_TRUE(CheckConfirmed(kIdentity, report).has_value());
  report.online_vcpus = 1;
  EXPECT_FALSE(CheckConfirmed(kIdentity, report).has_value());
  report = Confirmation();
  report.foreign = true;
  report.reseeded = false;
  EXPECT_FALSE(CheckConfirmed(kIdentity, report).has_value());
}

class TtrpcClientTest : public testing::Test {
 public:
  TtrpcClientTest() {
    auto [ours, theirs] = SocketPair();
    client_ = MakeTtrpcClient(io_.get_executor(), std::move(ours), "test");
    server_.emplace(io_.get_executor(), std::move(theirs));
  }

  // Runs `call` against a server that answers the first request with `payload`, and keeps it.
  template <class T>
  Result<T> Run(Task<T> call, std::string payload) {
    TaskScope scope(io_.get_executor());
    scope.Spawn("server", [](TtrpcClientTest& t, std::string answer) -> asio::awaitable<void> {
      auto received = co_await t.server_->Receive();
      if (!received) co_return;
      t.received_ = received->request;
      (void)co_await t.server_->Answer(received->id, answer);
    }(*this, std::move(payload)));
    auto result = RunUntilDone(io_, std::move(call));
    scope.Cancel();
    (void)RunUntilDone(io_, [](TaskScope& s) -> Task<void> {
      co_await s.Join();
      co_return Result<void>();
    }(scope));
    return result;
  }

  asio::io_context io_;
  std::unique_ptr<Client> client_;
  std::optional<ScriptedServer> server_;
  ttrpc::Request received_;
};

TEST_F(TtrpcClientTest, PersonalizeSendsEveryPart) {
  v1::PersonalizeResponse response;
  response.set_reseeded(true);
  response.set_clock_set(true);
  response.set_hostname_set(true);
  response.set_machine_id_set(true);
  response.set_boot_id("b");
  response.set_online_vcpus(2);
  response.set_online_memory_bytes(512u << 20);
  auto report =
      Run(client_->Personalize(kIdentity, After(seconds(20))), response.SerializeAsString());
  ASSERT_TRUE(report.has_value()) << ToString(report.error());
  EXPECT_EQ(report->online_memory, Bytes::MiB(512));
  EXPECT_EQ(received_.service, "hatchery.agent.v1.Guest");
  v1::PersonalizeRequest request;
  ASSERT_TRUE(request.ParseFromString(received_.payload));
  EXPECT_EQ(request.seed(), kIdentity.seed);
  EXPECT_EQ(request.time_unix_ns(), 1'700'000'000'000'000'000);
  EXPECT_EQ(request.hostname(), "h");
  EXPECT_EQ(request.machine_id(), kIdentity.machine_id);
  EXPECT_TRUE(request.renew_boot_id());
  EXPECT_EQ(request.vcpus(), 2u);
  EXPECT_EQ(request.memory_bytes(), 512u << 20);
  // Before the call's own deadline, so that the guest's error is the one that is seen.
  EXPECT_GT(request.timeout_ms(), 15'000u);
  EXPECT_LE(request.timeout_ms(), 18'000u);
}

TEST_F(TtrpcClientTest, PersonalizeFailsClosedOnAnEmptyReply) {
  auto report = Run(client_->Personalize(kIdentity, After(seconds(20))), "");
  EXPECT_EQ(report.error().code, Code::kInternal);
  EXPECT_THAT(report.error().message, HasSubstr("seed"));
}

TEST_F(TtrpcClientTest, CheckFailsWhenTheAgentDoesNotServe) {
  ::grpc::HealthCheckResponse response;
  response.set_status(::grpc::HealthCheckResponse::NOT_SERVING);
  auto check = Run(client_->Check(After(seconds(20))), response.SerializeAsString());
  EXPECT_EQ(check.error().code, Code::kUnavailable);
  EXPECT_TRUE(client_->usable());
}

TEST_F(TtrpcClientTest, AReplyOfAnotherTypeIsAnErrorOfItsCallOnly) {
  auto details = Run(client_->Details(After(seconds(20))), "\xff\xff");
  EXPECT_EQ(details.error().code, Code::kInternal);
  EXPECT_THAT(details.error().message, HasSubstr("Details"));
  EXPECT_TRUE(client_->usable());
}

TEST_F(TtrpcClientTest, AnExecWithoutAnEndIsAnError) {
  EXPECT_EQ(Run(client_->Exec({.argv = {"true"}}, After(seconds(20))), "").error().code,
            Code::kInternal);
}

// One that does not know Kill answers it with kUnimplemented, which nobody waits for.
TEST_F(TtrpcClientTest, AnAgentWithoutKillIsLeftAlone) {
  auto result = RunUntilDone(io_, [](TtrpcClientTest& t) -> Task<std::string> {
    auto late = co_await t.client_->Exec({.argv = {"sleep", "9"}}, After(kMoment));
    if (late) co_return Internal("nobody answered");
    ASSIGN_OR_CO_RETURN(const auto exec, co_await t.server_->Receive());
    ASSIGN_OR_CO_RETURN(const auto kill, co_await t.server_->Receive());
    v1::ExecRequest request;
    v1::KillRequest killed;
    if (!request.ParseFromString(exec.request.payload) ||
        !killed.ParseFromString(kill.request.payload)) {
      co_return Internal("not these messages");
    }
    EXPECT_EQ(request.exec_id().size(), 16u);
    EXPECT_EQ(killed.exec_id(), request.exec_id());
    CO_RETURN_IF_ERROR(
        co_await t.server_->Send(ttrpc::EncodeError(kill.id, Code::kUnimplemented, "no Kill")));
    co_return kill.request.method;
  }(*this));
  EXPECT_EQ(result.value(), "Kill");
  ::grpc::HealthCheckResponse response;
  response.set_status(::grpc::HealthCheckResponse::SERVING);
  EXPECT_TRUE(Run(client_->Check(After(seconds(20))), response.SerializeAsString()).has_value());
}

TEST_F(TtrpcClientTest, SpeaksKatasNames) {
  const auto time = WallTime(std::chrono::microseconds(1'700'000'000'250'000));
  EXPECT_TRUE(Run(client_->SetGuestDateTime(time, After(seconds(20))), "").has_value());
  EXPECT_EQ(received_.service, "grpc.AgentService");
  EXPECT_EQ(received_.method, "SetGuestDateTime");
  ::grpc::SetGuestDateTimeRequest request;
  ASSERT_TRUE(request.ParseFromString(received_.payload));
  EXPECT_EQ(request.sec(), 1'700'000'000);
  EXPECT_EQ(request.usec(), 250'000);
}

}  // namespace
}  // namespace hatchery::agent
