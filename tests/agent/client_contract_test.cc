// What every Client promises, asked of the fake and of the real client with the real agent behind
// a socket pair.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <sstream>
#include <thread>

#include "agent/client/ttrpc_client.h"
#include "agent/fake/fake_agent.h"
#include "agent/guest/server.h"
#include "base/files.h"
#include "base/run.h"
#include "tests/agent/scripted_server.h"

namespace hatchery::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

class Setup {
 public:
  virtual ~Setup() = default;
  // `foreign`: to an agent that has Kata's calls alone.
  virtual std::unique_ptr<Client> Connect(asio::io_context& io, bool foreign) = 0;
  // Commands "sleep" that run in the guest.
  virtual std::size_t Sleeping() = 0;
};

class FakeSetup final : public Setup {
 public:
  std::unique_ptr<Client> Connect(asio::io_context& io, bool foreign) override {
    agents_.emplace(io.get_executor());
    agents_->SetForeign(foreign);
    return RunUntilDone(io, agents_->Connect(kEndpoint, After(seconds(5)))).value();
  }
  std::size_t Sleeping() override { return agents_->guest(kEndpoint).running_commands; }

 private:
  const Endpoint kEndpoint = UnixEndpoint{"/guest"};
  std::optional<FakeAgents> agents_;
};

// A machine in a folder: what would change this one is left out.
class FolderSystem final : public guest::GuestSystem {
 public:
  using GuestSystem::GuestSystem;
  Result<void> Reseed(std::string_view) override { return {}; }
  Result<void> SetClock(std::int64_t) override { return {}; }
  Result<void> SetHostname(const std::string& name) override {
    hostname_ = name;
    return {};
  }
  std::string Hostname() const override { return hostname_; }
  Result<void> BindOver(std::string_view source, std::string_view target) override {
    RETURN_IF_ERROR(MakeDirectories(Path(target).parent_path()));
    return WriteFileAtomically(Path(target), *Read(source));
  }
  void Sync() override {}
  void Settle() override {}
  Result<void> PowerOff() override { return {}; }

 private:
  std::string hostname_ = "template";
};

class GuestSetup final : public Setup {
 public:
  ~GuestSetup() override {
    if (server_) server_->Stop();
    if (thread_.joinable()) thread_.join();
  }
  std::unique_ptr<Client> Connect(asio::io_context& io, bool foreign) override {
    using guest::Offer;
    server_ =
        guest::Server::Create(system_, false, foreign ? Offer::kKataOnly : Offer::kAll).value();
    auto [ours, theirs] = SocketPair();
    server_->Serve(std::move(theirs), guest::Connection::Kind::kSocket).value();
    thread_ = std::thread([this] { server_->Run(); });
    return MakeTtrpcClient(io.get_executor(), std::move(ours), "socketpair");
  }
  std::size_t Sleeping() override {
    std::size_t count = 0;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      std::istringstream children(ReadFile(task.path() / "children").value_or(""));
      for (std::string pid; children >> pid;) {
        count += ReadFile("/proc/" + pid + "/cmdline").value_or("").starts_with("sleep");
      }
    }
    return count;
  }

 private:
  TempDir root_ = TempDir::Create("/tmp", "guest-").value();
  FolderSystem system_{root_.path()};
  std::unique_ptr<guest::Server> server_;
  std::thread thread_;
};

template <class T>
class ClientContract : public testing::Test {
 protected:
  explicit ClientContract(bool foreign = false) : client_(setup_.Connect(io_, foreign)) {}

  template <class Value>
  Result<Value> Run(Task<Value> call) {
    return RunUntilDone(io_, std::move(call));
  }
  Result<ExecResult> Exec(ExecRequest request) {
    return Run(client_->Exec(request, After(seconds(20))));
  }

  asio::io_context io_;
  T setup_;
  std::unique_ptr<Client> client_;
};

struct SetupNames {
  template <class T>
  static std::string GetName(int) {
    return std::is_same_v<T, FakeSetup> ? "Fake" : "Guest";
  }
};
using Setups = testing::Types<FakeSetup, GuestSetup>;
TYPED_TEST_SUITE(ClientContract, Setups, SetupNames);

TYPED_TEST(ClientContract, ServesAndSaysItsVersion) {
  EXPECT_TRUE(this->Run(this->client_->Check(After(seconds(20)))).has_value());
  auto versions = this->Run(this->client_->Version(After(seconds(20))));
  ASSERT_TRUE(versions.has_value()) << ToString(versions.error());
  EXPECT_FALSE(versions->agent.empty());
}

TYPED_TEST(ClientContract, PersonalizesAndDetailsShowIt) {
  const Identity identity{.seed = std::string(32, 's'),
                          .time = SystemClock().Now(),
                          .hostname = "sandbox-1",
                          .machine_id = "0123456789abcdef0123456789abcdef"};
  auto report = this->Run(this->client_->Personalize(identity, After(seconds(20))));
  ASSERT_TRUE(report.has_value()) << ToString(report.error());
  EXPECT_TRUE(report->reseeded && report->clock_set && report->hostname_set &&
              report->machine_id_set);
  EXPECT_EQ(report->boot_id.size(), 36u);
  auto details = this->Run(this->client_->Details(After(seconds(20))));
  ASSERT_TRUE(details.has_value()) << ToString(details.error());
  EXPECT_EQ(details->hostname, "sandbox-1");
  EXPECT_EQ(details->machine_id, "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(details->boot_id, report->boot_id);
  auto again = this->Run(this->client_->Personalize(identity, After(seconds(20))));
  EXPECT_NE(again.value().boot_id, report->boot_id);
}

TYPED_TEST(ClientContract, AwaitOnlineSaysWhatIsThereAndWhatIsMissing) {
  auto& client = *this->client_;
  auto now = this->Run(client.AwaitOnline(0, Bytes(), 0, After(seconds(20))));
  ASSERT_TRUE(now.has_value()) << ToString(now.error());
  EXPECT_EQ(now->problem, "");
  auto again =
      this->Run(client.AwaitOnline(now->vcpus, now->memory, now->vcpus, After(seconds(20))));
  ASSERT_TRUE(again.has_value()) << ToString(again.error());
  EXPECT_EQ(again->problem, "");
  for (auto more : {std::pair(1000u, Bytes()), std::pair(0u, Bytes::GiB(1000))}) {
    auto less = this->Run(
        client.AwaitOnline(more.first, more.second, now->vcpus, After(milliseconds(200))));
    ASSERT_TRUE(less.has_value()) << ToString(less.error());
    EXPECT_THAT(less->problem, HasSubstr(more.first > 0 ? "vcpus" : "memory"));
    EXPECT_LT(less->vcpus, 1000u);
    EXPECT_LT(less->memory, Bytes::GiB(1000));
  }
}

TYPED_TEST(ClientContract, RefusesAShortSeed) {
  auto report = this->Run(this->client_->Personalize({.seed = "short", .time = SystemClock().Now()},
                                                     After(seconds(20))));
  EXPECT_EQ(report.error().code, Code::kInvalidArgument);
  EXPECT_EQ(report.error().field, "seed");
}

TYPED_TEST(ClientContract, ExecRunsACommandToItsEnd) {
  auto echo = this->Exec({.argv = {"echo", "a", "b c"}});
  ASSERT_TRUE(echo.has_value()) << ToString(echo.error());
  EXPECT_EQ(echo->out, "a b c\n");
  EXPECT_EQ(echo->exit_code, 0);
  EXPECT_EQ(echo->signal, std::nullopt);
  EXPECT_EQ(this->Exec({.argv = {"true"}}).value().exit_code, 0);
  EXPECT_EQ(this->Exec({.argv = {"false"}}).value().exit_code, 1);
  EXPECT_EQ(this->Exec({.argv = {"cat"}, .stdin_data = "in"}).value().out, "in");
}

TYPED_TEST(ClientContract, ExecCutsOutputAtItsLimitAndSaysSo) {
  auto cut = this->Exec(
      {.argv = {"cat"}, .stdin_data = std::string(5000, 'x'), .output_limit = Bytes(1000)});
  ASSERT_TRUE(cut.has_value()) << ToString(cut.error());
  EXPECT_EQ(cut->out.size(), 1000u);
  EXPECT_TRUE(cut->out_truncated);
  EXPECT_FALSE(cut->err_truncated);
}

TYPED_TEST(ClientContract, ACommandThatNobodyWaitsForIsEnded) {
  const auto until = [this](std::size_t sleeping) {
    return this->Run([](Setup& setup, std::size_t n) -> Task<void> {
      const Deadline end = After(seconds(20));
      while (setup.Sleeping() != n) {
        if (std::chrono::steady_clock::now() > end) co_return DeadlineExceeded("never");
        CO_RETURN_IF_ERROR(co_await SleepFor(milliseconds(1)));
      }
      co_return Result<void>();
    }(this->setup_, sleeping));
  };
  const ExecRequest sleep{.argv = {"sleep", "1000"}};
  TaskScope scope(this->io_.get_executor());
  std::optional<Result<ExecResult>> given_up;
  scope.Spawn("exec", [](Client& client, ExecRequest request, auto& out) -> asio::awaitable<void> {
    out = co_await client.Exec(request, Deadline::max());
  }(*this->client_, sleep, given_up));
  ASSERT_TRUE(until(1).has_value());
  scope.Cancel();
  (void)this->Run([](TaskScope& s) -> Task<void> {
    co_await s.Join();
    co_return Result<void>();
  }(scope));
  EXPECT_EQ(given_up.value().error().code, Code::kCancelled);
  EXPECT_TRUE(until(0).has_value()) << "after a cancellation";

  const auto late = this->Run(this->client_->Exec(sleep, After(milliseconds(100))));
  ASSERT_FALSE(late.has_value() && !late->timed_out);
  EXPECT_TRUE(until(0).has_value()) << "after the deadline";
  EXPECT_TRUE(this->Run(this->client_->Check(After(seconds(20)))).has_value());
}

TYPED_TEST(ClientContract, ExecRefusesWhatItCannotRun) {
  EXPECT_EQ(this->Exec({}).error().field, "argv");
  EXPECT_EQ(this->Exec({.argv = {""}}).error().code, Code::kInvalidArgument);
  auto large = this->Exec({.argv = {"cat"}, .stdin_data = std::string((3u << 20) + 1, 'x')});
  EXPECT_EQ(large.error().code, Code::kInvalidArgument);
  EXPECT_EQ(large.error().field, "stdin_data");
  auto unknown = this->Exec({.argv = {"no-such-program"}});
  EXPECT_EQ(unknown.error().code, Code::kNotFound) << ToString(unknown.error());
  EXPECT_THAT(unknown.error().message, HasSubstr("no-such-program"));
  EXPECT_TRUE(this->Exec({.argv = {"true"}}).has_value());
}

TYPED_TEST(ClientContract, AnswersKatasCalls) {
  auto& client = *this->client_;
  EXPECT_TRUE(
      this->Run(client.SetGuestDateTime(SystemClock().Now(), After(seconds(20)))).has_value());
  EXPECT_TRUE(
      this->Run(client.ReseedRandomDev(std::string(64, 's'), After(seconds(20)))).has_value());
  EXPECT_EQ(this->Run(client.ReseedRandomDev("", After(seconds(20)))).error().code,
            Code::kInvalidArgument);
}

TYPED_TEST(ClientContract, ACallWithoutTimeFailsAlone) {
  EXPECT_EQ(this->Run(this->client_->Check(Deadline::min())).error().code, Code::kDeadlineExceeded);
  EXPECT_TRUE(this->Run(this->client_->Check(After(seconds(20)))).has_value());
  EXPECT_TRUE(this->client_->usable());
}

TYPED_TEST(ClientContract, MayBeDestroyedBeforeItsCallRuns) {
  auto call = this->client_->Check(After(seconds(20)));
  this->client_.reset();
  EXPECT_EQ(this->Run(std::move(call)).error().code, Code::kCancelled);
}

template <class T>
class ForeignContract : public ClientContract<T> {
 protected:
  ForeignContract() : ClientContract<T>(/*foreign=*/true) {}
};
TYPED_TEST_SUITE(ForeignContract, Setups, SetupNames);

TYPED_TEST(ForeignContract, IsPersonalisedAsFarAsKatasCallsGo) {
  auto& client = *this->client_;
  const auto versions = this->Run(client.Version(After(seconds(20))));
  ASSERT_TRUE(versions.has_value()) << ToString(versions.error());
  EXPECT_NE(versions->protocol, kProtocol);
  const Identity identity{.seed = std::string(32, 's'),
                          .time = SystemClock().Now(),
                          .hostname = "sandbox-1",
                          .machine_id = "0123456789abcdef0123456789abcdef",
                          .vcpus = 1,
                          .memory = Bytes::MiB(384),
                          .had_vcpus = 1,
                          .had_memory = Bytes::MiB(256)};
  for (int i = 0; i < 2; ++i) {
    const auto report = this->Run(client.Personalize(identity, After(seconds(20))));
    ASSERT_TRUE(report.has_value()) << ToString(report.error());
    EXPECT_TRUE(report->foreign && report->reseeded && report->clock_set);
    EXPECT_FALSE(report->hostname_set || report->machine_id_set);
    EXPECT_EQ(report->boot_id, "");
    EXPECT_EQ(report->online_vcpus, 1u);
    EXPECT_EQ(report->online_memory, Bytes::MiB(384));
  }
}

TYPED_TEST(ForeignContract, AResizeIsBelievedAndAFailedOneIsAnError) {
  auto& client = *this->client_;
  const auto online = this->Run(client.AwaitOnline(1, Bytes::MiB(384), 1, After(seconds(20))));
  ASSERT_TRUE(online.has_value()) << ToString(online.error());
  EXPECT_EQ(online->vcpus, 1u);
  EXPECT_EQ(online->memory, Bytes::MiB(384));
  EXPECT_EQ(online->problem, "");
  EXPECT_FALSE(
      this->Run(client.AwaitOnline(1000, Bytes(), 1, After(milliseconds(200)))).has_value());
  const Identity larger{
      .seed = std::string(32, 's'), .time = SystemClock().Now(), .vcpus = 1000, .had_vcpus = 1};
  EXPECT_FALSE(this->Run(client.Personalize(larger, After(milliseconds(200)))).has_value());
}

TYPED_TEST(ForeignContract, SaysWhatItCannotDo) {
  auto& client = *this->client_;
  const auto refused = [](const auto& result, const std::string& method) {
    ASSERT_FALSE(result.has_value()) << method;
    EXPECT_EQ(result.error().code, Code::kUnimplemented) << ToString(result.error());
    EXPECT_THAT(result.error().message,
                HasSubstr("the guest's agent has no " + method + ": it is not hatchery-agent"));
  };
  refused(this->Exec({.argv = {"true"}}), "Exec");
  refused(this->Run(client.Details(After(seconds(20)))), "Details");
  refused(this->Run(client.PrepareSave(After(seconds(20)))), "PrepareSave");
  refused(this->Run(client.PowerOff(After(seconds(20)))), "PowerOff");
  EXPECT_TRUE(this->Run(client.Check(After(seconds(20)))).has_value());
}

TYPED_TEST(ForeignContract, MayBeDestroyedBeforeItIsPersonalised) {
  const Identity identity{.seed = std::string(32, 's'), .time = SystemClock().Now()};
  auto call = this->client_->Personalize(identity, After(seconds(20)));
  this->client_.reset();
  EXPECT_EQ(this->Run(std::move(call)).error().code, Code::kCancelled);
}

}  // namespace
}  // namespace hatchery::agent
