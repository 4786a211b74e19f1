// The daemon dies before and after each of its state writes, once at each. A life that comes past
// all of them is led until it does; then a daemon without a crash point takes over, and nothing may
// have been lost, handed out twice or left over.
#include <gtest/gtest.h>
#include <signal.h>

#include <cctype>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "base/files.h"
#include "cache/records.h"
#include "tests/torture/client.h"
#include "tests/torture/fake_qemu/signals.h"
#include "tests/torture/operator.h"
#include "tests/torture/site.h"
#include "tests/torture/world.h"

namespace hatchery::torture {
namespace {

using cache::WritePoint;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kPatience = seconds(20);
// How long a daemon whose last call failed may take to be seen dead.
constexpr auto kToDie = seconds(5);
constexpr auto kTick = milliseconds(5);
// Each VM's life makes five events or so; a hundred are kept.
constexpr int kManyLives = 40;

std::vector<std::string> Flags() {
  auto flags = FakeVmmFlags(ExecutablePath().parent_path() / "fake-qemu");
  for (const char* flag :
       {"--pool-learn-after", "2", "--pool-learned-size", "1", "--lease-grace", "100ms",
        "--health-agent-interval", "100ms", "--health-agent-timeout", "100ms", "--health-events",
        "100", "--limits-host-reserve", "0B", "--stop-warm", "destroy"}) {
    flags.emplace_back(flag);
  }
  return flags;
}

class CrashPoints : public testing::TestWithParam<std::tuple<WritePoint, std::string>> {
 public:
  void SetUp() override { AdoptOrphans(); }
  void TearDown() override {
    for (const Vmm& vmm : FindVmms(site_.state_dir())) ::kill(vmm.process.pid, SIGKILL);
  }

  std::string crash() const {
    return std::string(kCrashVariable) + "=" + std::string(Name(std::get<0>(GetParam()))) + ":" +
           std::get<1>(GetParam()) + ":1";
  }

  // Whether the daemon has died within `patience`; if so, of what.
  bool Died(milliseconds patience) {
    if (!site_.daemon().started()) return true;
    if (!site_.daemon().WaitEnd(patience)) return false;
    site_.NoteEnds("crash point");
    EXPECT_NE(site_.daemon().said().find(kCrashWords), std::string::npos)
        << "it ended otherwise: " << site_.daemon().said();
    return true;
  }
  // Waits until `met()` or the daemon's death.
  void Await(const char* what, const std::function<bool()>& met) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (!met()) {
      if (Died(kTick)) return;
      ASSERT_LT(std::chrono::steady_clock::now(), until) << what;
    }
  }
  // Until calls get through: gRPC learns late that the daemon at the other end is another one.
  void Reconnect() {
    Await("an answer to the operator", [&] { return operator_.Status(kPatience).has_value(); });
    Await("an answer to the client", [&] {
      api::ListVmsResponse list;
      return client_.cache().ListVms(Within(kPatience).get(), {}, &list).ok();
    });
  }
  // A call that must succeed as long as the daemon lives.
  void Must(const grpc::Status& status, const char* what) {
    if (status.ok()) return;
    EXPECT_TRUE(Died(kToDie)) << what << ": " << status.error_message();
  }

  void Acquire(const std::string& name, Term term = Term::kHeld, milliseconds ttl = {},
               std::optional<std::uint32_t> vcpus = {}) {
    const std::string sandbox = "c-" + name;
    Must(client_.Acquire({sandbox, "request-" + name, term, ttl, vcpus}, kPatience), name.c_str());
  }
  void Release(const std::string& name) {
    Must(client_.Release("c-" + name, kPatience), "release");
  }
  bool Holds(const std::string& name) const { return client_.held().contains("c-" + name); }
  // Until the service says that the lease is no more.
  void AwaitGone(const std::string& name) {
    Await(("the end of " + name).c_str(), [&] {
      return !Holds(name) || (void(client_.Exec("c-" + name, kPatience)), !Holds(name));
    });
  }
  void Hurt(const std::string& name, int signal) {
    const std::string vm = client_.held().at("c-" + name).vm;
    for (const Vmm& vmm : FindVmms(site_.state_dir())) {
      if (vmm.vm != vm) continue;
      site_.journal().Write({{"did", "signal"}, {"hurts", vm}, {"signal", signal}});
      ::kill(vmm.process.pid, signal);
      return;
    }
    ADD_FAILURE() << "no VMM of " << vm;
  }

  // The steps of a life, each of which may be the last. Together they come past every write.
  void BuildAndFill() { Must(operator_.Init(2, kPatience), "init"); }
  void AcquireToKeep() { Acquire("kept"); }
  void Renew() {
    Acquire("renewed", Term::kTtl, milliseconds(400));
    if (!Died(kTick)) Must(client_.Renew("c-renewed", kPatience), "renew");
  }
  void LetLapse() { AwaitGone("renewed"); }
  void AskForWhatIsNot() {
    api::AcquireRequest request;
    request.set_request_id("request-for-nothing");
    request.set_template_name("there-is-none");
    api::AcquireResponse response;
    const auto status = client_.cache().Acquire(Within(kPatience).get(), request, &response);
    if (status.error_code() != grpc::StatusCode::NOT_FOUND) {
      EXPECT_TRUE(Died(kToDie)) << status.error_message();
    }
  }
  void GiveBack() {
    Acquire("short");
    if (Died(kTick)) return;
    Release("short");
    Await("a VM that was released to be forgotten", [&] {
      const auto list = operator_.ListVms(kPatience);
      return list && std::ranges::none_of(list->vms(), [](const auto& vm) {
               return vm.sandbox_id() == "c-short" || vm.state() == api::VM_STATE_RELEASED;
             });
    });
  }
  void LoseOne() {
    Acquire("killed");
    if (Died(kTick)) return;
    Hurt("killed", SIGKILL);
    AwaitGone("killed");
  }
  void FallSilent() {
    Acquire("silent");
    if (Died(kTick)) return;
    Hurt("silent", AgentSilentSignal());
    Await("a problem to be noticed", [&] {
      const auto list = operator_.ListVms(kPatience);
      return list &&
             std::ranges::any_of(list->vms(), [](const auto& vm) { return !vm.problem().empty(); });
    });
    if (!Died(kTick)) Release("silent");
  }
  // More than the service keeps of what it tells those who watch.
  void MakeManyEvents() {
    for (int i = 0; i < kManyLives && !Died(milliseconds(0)); ++i) {
      const std::string name = "many-" + std::to_string(i);
      Acquire(name);
      if (!Died(milliseconds(0)) && Holds(name)) Release(name);
    }
  }
  void TeachAPool() {
    for (const char* name : {"larger-1", "larger-2", "larger-3"}) {
      if (Died(kTick)) return;
      Acquire(name, Term::kHeld, {}, 2);
    }
    Await("a pool to be learned", [&] {
      const auto status = operator_.Status(kPatience);
      return status &&
             std::ranges::any_of(status->pools(), [](const auto& pool) { return pool.learned(); });
    });
  }
  void RollOver() { Must(operator_.Rebuild(256, kPatience), "a new version"); }
  void Restart() {
    Acquire("orphan");
    if (Died(kTick)) return;
    site_.NoteEnds("restart");
    site_.daemon().Kill();
    Hurt("orphan", SIGKILL);
    if (!site_.Start({crash()})) {
      EXPECT_TRUE(Died(kToDie));
    } else {
      Reconnect();
    }
  }
  void RemovePool() { Must(operator_.SetPool(0, true, kPatience), "removing the pool"); }
  void RemoveTemplate() {
    if (Holds("kept")) Release("kept");
    for (const char* name : {"larger-1", "larger-2", "larger-3"}) {
      if (!Died(kTick) && Holds(name)) Release(name);
    }
    if (!Died(kTick)) Must(operator_.DeleteTemplate(kPatience), "deleting the template");
  }

  // A daemon without a crash point takes over: what is held is there, and all can be given back.
  void TakeOver() {
    ASSERT_TRUE(site_.ReadStore().has_value());
    ASSERT_TRUE(site_.Start()) << site_.daemon().said();
    Reconnect();
    site_.Look();
    const auto asked = client_.asked();
    for (const auto& [sandbox, wish] : asked) {
      const auto status = client_.Acquire(wish, kPatience);
      // Deleted before the crash, perhaps.
      if (!status.ok()) EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND) << sandbox;
    }
    const auto held = client_.held();
    for (const auto& [sandbox, holding] : held) (void)client_.Exec(sandbox, kPatience);
    site_.Look();
    const auto still_held = client_.held();
    for (const auto& [sandbox, holding] : still_held) {
      const auto status = client_.Release(sandbox, kPatience);
      EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND)
          << sandbox << ": " << status.error_message();
    }
    EXPECT_TRUE(client_.ReleaseUnheard(kPatience).ok());
    const auto destroyed = operator_.Destroy(kPatience);
    EXPECT_TRUE(destroyed.ok()) << destroyed.error_message();
    site_.NoteEnds("stop");
    ASSERT_TRUE(site_.daemon().Signal(SIGTERM).has_value());
    const auto end = site_.daemon().WaitEnd(kPatience);
    ASSERT_TRUE(end.has_value());
    EXPECT_EQ(ToString(*end), "exit code 0");
  }

  TempDir dir_ = TempDir::Create("/tmp", "torture-").value();
  Site site_{dir_.path(), ExecutablePath().parent_path() / "hatcheryd-torture", Flags()};
  Client client_{"c", site_.daemon().socket(), site_.journal()};
  Operator operator_{site_.daemon().socket()};
};

TEST_P(CrashPoints, LoseNothing) {
  using Step = void (CrashPoints::*)();
  bool died = !site_.Start({crash()}) && Died(kToDie);
  for (const Step step :
       {&CrashPoints::BuildAndFill, &CrashPoints::AcquireToKeep, &CrashPoints::Renew,
        &CrashPoints::LetLapse, &CrashPoints::AskForWhatIsNot, &CrashPoints::GiveBack,
        &CrashPoints::LoseOne, &CrashPoints::FallSilent, &CrashPoints::TeachAPool,
        &CrashPoints::RollOver, &CrashPoints::Restart, &CrashPoints::MakeManyEvents,
        &CrashPoints::RemovePool, &CrashPoints::RemoveTemplate}) {
    if (died || HasFatalFailure()) break;
    (this->*step)();
    died = Died(kTick);
  }
  ASSERT_TRUE(died) << "this write was not made: lead a life that makes it";
  TakeOver();
  ReapOrphans({});
  Checker::Limits limits;
  limits.grace = milliseconds(100);
  ASSERT_TRUE(
      site_.LookForLeftOvers(CheckJournals(site_.journals(), limits).vms(), {}).has_value());
  const Checker checker = CheckJournals(site_.journals(), limits);
  EXPECT_EQ(checker.violations(), std::vector<std::string>{}) << site_.daemon().said();
}

std::vector<WritePoint> AllWritePoints() {
  std::vector<WritePoint> all;
  for (std::size_t i = 0; i < cache::kWritePoints; ++i) all.push_back(static_cast<WritePoint>(i));
  return all;
}

// "VmAssignedBefore"
std::string TestName(const testing::TestParamInfo<CrashPoints::ParamType>& info) {
  std::string name;
  bool capital = true;
  for (const char c : std::string(Name(std::get<0>(info.param))) + "-" + std::get<1>(info.param)) {
    if (c != '-') name += capital ? static_cast<char>(std::toupper(c)) : c;
    capital = c == '-';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(EveryWrite, CrashPoints,
                         testing::Combine(testing::ValuesIn(AllWritePoints()),
                                          testing::Values("before", "after")),
                         TestName);

}  // namespace
}  // namespace hatchery::torture
