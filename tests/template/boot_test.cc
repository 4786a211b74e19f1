#include "template/boot.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "template/agent_wait.h"
#include "tests/template/boot_fixture.h"

namespace hatchery::tmpl {
namespace {

using agent::Method;
using hypervisor::Accelerator;
using hypervisor::ExitReason;
using hypervisor::fake::Fault;
using hypervisor::fake::Verb;
using std::chrono::milliseconds;

class BootTest : public BootFixture {
 protected:
  bool Lives(const char* id) { return host_.Find(VmId(id)) != nullptr; }
};

TEST_F(BootTest, ReturnsTheVmWhoseAgentAnswers) {
  auto booted = Boot(Config(Accelerator::kTcg));
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(booted->vm->state(), hypervisor::VmState::kRunning);
  EXPECT_TRUE(booted->agent->usable());
  EXPECT_FALSE(booted->memory.valid());
  struct stat info;
  ASSERT_EQ(::stat((run_root_ / "vm-1").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
  ExpectNothingLeft();
}

TEST_F(BootTest, DoesNotTouchAFolderThatIsThere) {
  fs::create_directories(run_root_ / "vm-1" / "precious");
  EXPECT_EQ(Boot(Config(Accelerator::kTcg)).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(fs::exists(run_root_ / "vm-1" / "precious"));
}

TEST_F(BootTest, AnIdThatIsNoNameTouchesNoPath) {
  auto config = Config(Accelerator::kTcg);
  config.id = VmId("../vm-1");
  EXPECT_EQ(Boot(config).error().code, Code::kInvalidArgument);
  EXPECT_FALSE(fs::exists(run_root_));
}

TEST_F(BootTest, AGuestThatDiesEndsItAtOnceWithReasonAndConsole) {
  agents_.HangNext(Method::kCheck, 1000);
  std::optional<Result<BootedVm>> result;
  TaskScope scope(io_.get_executor());
  scope.Spawn(
      "boot",
      [](Booter& b, hypervisor::VmConfig config, decltype(result)& out) -> asio::awaitable<void> {
        out = co_await b.Boot(std::move(config), After(kLong));
      }(booter_, Config(Accelerator::kTcg), result));
  RunUntil([&] { return agents_.CountCalls(Method::kCheck) > 0; });
  ASSERT_TRUE(host_.Print(VmId("vm-1"), "\x1b[1mKernel panic\r\n").has_value());
  ASSERT_TRUE(
      host_.Kill(VmId("vm-1"), {ExitReason::Kind::kGuestPanic, "no init found"}).has_value());
  RunUntil([&] { return scope.size() == 0; });
  ASSERT_FALSE(result->has_value());
  const Error& error = result->error();
  EXPECT_EQ(error.code, Code::kFailedPrecondition);
  EXPECT_NE(error.message.find("no init found"), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(".[1mKernel panic\n"), std::string::npos) << error.message;
  ExpectNothingLeft();
}

TEST_F(BootTest, AnAgentThatNeverAnswersEndsItAtTheDeadline) {
  agents_.HangNext(Method::kCheck, 1000);
  auto booted = Boot(Config(Accelerator::kTcg), milliseconds(20));
  ASSERT_FALSE(booted.has_value());
  EXPECT_EQ(booted.error().code, Code::kDeadlineExceeded);
  EXPECT_NE(booted.error().message.find("console is empty"), std::string::npos);
  ExpectNothingLeft();
}

TEST_F(BootTest, AnAgentThatNobodyListensForEndsItAtTheDeadline) {
  agents_.KillGuest(AgentOf("vm-1"));
  EXPECT_EQ(Boot(Config(Accelerator::kTcg), milliseconds(20)).error().code,
            Code::kDeadlineExceeded);
  ExpectNothingLeft();
}

TEST_F(BootTest, ALostCheckIsRepeated) {
  agents_.HangNext(Method::kCheck, 1);
  auto booted = Boot(Config(Accelerator::kTcg));
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(agents_.CountCalls(Method::kConnect), 1u) << "on the same connection";
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
}

TEST_F(BootTest, AGarbledConnectionIsReplaced) {
  agents_.GarbleNext(Method::kCheck, 1);
  auto booted = Boot(Config(Accelerator::kTcg));
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(agents_.CountCalls(Method::kConnect), 2u);
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
}

TEST_F(BootTest, WhatCannotBeStartedLeavesNothing) {
  host_.Inject(Verb::kStart, {});
  EXPECT_EQ(Boot(Config(Accelerator::kTcg)).error().message, "injected fault");
  ExpectNothingLeft();
  auto config = Config(Accelerator::kTcg);
  config.kernel = "/no/such/kernel";
  EXPECT_EQ(Boot(config).error().code, Code::kInvalidArgument);
  ExpectNothingLeft();
}

TEST_F(BootTest, AVmToBeATemplateGetsItsMemory) {
  auto config = Config(Accelerator::kTcg);
  config.boot_to_be_template = true;
  auto booted = Boot(config);
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(::lseek(booted->memory.get(), 0, SEEK_END), 128 << 20);
  EXPECT_EQ(booted->vm->config().template_memory_fd, booted->memory.get());
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
}

TEST_F(BootTest, DestroyTriesAgainAndKeepsTheFolderOfAVmThatWillNotGo) {
  auto booted = Boot(Config(Accelerator::kTcg));
  host_.Inject(Verb::kStop, {}, 1);
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
  ExpectNothingLeft();
  booted = Boot(Config(Accelerator::kTcg));
  host_.Inject(Verb::kStop, {}, 2);
  EXPECT_FALSE(Destroy(*std::move(booted)).has_value());
  EXPECT_TRUE(fs::exists(run_root_ / "vm-1"));
}

TEST_F(BootTest, DestroyLeavesFoldersElsewhereAlone) {
  fs::create_directory(dir_.path() / "elsewhere");
  auto config = Config(Accelerator::kTcg);
  config.run_dir = dir_.path() / "elsewhere";
  auto vm = driver_.Create(config).value();
  EXPECT_FALSE(RunUntilDone(io_, booter_.Destroy(std::move(vm))).has_value());
  EXPECT_TRUE(fs::exists(dir_.path() / "elsewhere"));
}

TEST_F(BootTest, CancellingLeavesNothing) {
  agents_.HangNext(Method::kCheck, 1000);
  // Ending the VM takes a while, and must happen although the caller is cancelled.
  host_.SetDelay(Verb::kStop, milliseconds(2));
  auto booted = CancelWhen(booter_.Boot(Config(Accelerator::kTcg), After(kLong)),
                           [&] { return agents_.CountCalls(Method::kCheck) > 0; });
  EXPECT_EQ(booted.error().code, Code::kCancelled);
  ExpectNothingLeft();
}

TEST_F(BootTest, CancellingDuringTheStartLeavesNothing) {
  host_.Inject(Verb::kStart, {.kind = Fault::Kind::kHang});
  auto booted = CancelWhen(booter_.Boot(Config(Accelerator::kTcg), After(kLong)),
                           [&] { return host_.calls(Verb::kStart) > 0; });
  EXPECT_EQ(booted.error().code, Code::kCancelled);
  ExpectNothingLeft();
}

TEST_F(BootTest, AutoIsTcgWhereTheHostHasNoKvm) {
  auto booted = Boot(Config(Accelerator::kAuto));
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(booted->vm->config().accelerator, Accelerator::kTcg);
  EXPECT_EQ(host_.calls(Verb::kStart), 1u);
  EXPECT_FALSE(fs::exists(dir_.path() / "accelerators.json"));
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
}

class RaceTest : public BootTest, public testing::WithParamInterface<Accelerator> {
 protected:
  RaceTest() { host_.may_have_kvm = true; }
  // The guest under the other accelerator sits there, as one in an internal error does.
  void LetWin(Accelerator accelerator) {
    const bool kvm = accelerator == Accelerator::kKvm;
    agents_.ReviveGuest(AgentOf(kvm ? "vm-1-kvm" : "vm-1"));
    agents_.KillGuest(AgentOf(kvm ? "vm-1" : "vm-1-kvm"));
  }
};

INSTANTIATE_TEST_SUITE_P(EachWay, RaceTest, testing::Values(Accelerator::kTcg, Accelerator::kKvm),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST_P(RaceTest, TheFirstAnswerWinsAndTheOtherIsGone) {
  LetWin(GetParam());
  auto config = Config(Accelerator::kAuto);
  config.boot_to_be_template = true;
  auto booted = Boot(config);
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(booted->vm->config().accelerator, GetParam());
  EXPECT_EQ(booted->vm->config().template_memory_fd, booted->memory.get());
  EXPECT_EQ(host_.calls(Verb::kStart), 2u);
  EXPECT_EQ(host_.live().size(), 1u);
  EXPECT_EQ(std::distance(fs::directory_iterator(run_root_), fs::directory_iterator()), 1);
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
  ExpectNothingLeft();
}

TEST_P(RaceTest, TheVerdictIsRememberedForTheSameGuestOnly) {
  LetWin(GetParam());
  EXPECT_TRUE(Destroy(Boot(Config(Accelerator::kAuto)).value()).has_value());
  // The next one boots just one VM, also in the next process.
  agents_.ReviveGuest(AgentOf("vm-1"));
  AcceleratorVerdicts reread(dir_.path() / "accelerators.json");
  Booter again(driver_, agents_, reread, run_root_);
  auto booted = RunUntilDone(io_, again.Boot(Config(Accelerator::kAuto), After(kLong)));
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(booted->vm->config().accelerator, GetParam());
  EXPECT_EQ(booted->vm->config().id, VmId("vm-1"));
  EXPECT_EQ(host_.calls(Verb::kStart), 3u);
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());

  Write("initrd", "another initrd");
  LetWin(GetParam());
  EXPECT_TRUE(Destroy(Boot(Config(Accelerator::kAuto)).value()).has_value());
  EXPECT_EQ(host_.calls(Verb::kStart), 5u);

  host_.fingerprint["vmm.version"] = "fake 2";
  EXPECT_TRUE(Destroy(Boot(Config(Accelerator::kAuto)).value()).has_value());
  EXPECT_EQ(host_.calls(Verb::kStart), 7u);
}

TEST_P(RaceTest, AVmThatDoesNotStartLeavesTheOtherToWin) {
  host_.Inject(Verb::kStart, {}, 1);  // the first to start is the one under TCG
  auto booted = Boot(Config(Accelerator::kAuto));
  ASSERT_TRUE(booted.has_value()) << ToString(booted.error());
  EXPECT_EQ(booted->vm->config().accelerator, Accelerator::kKvm);
  EXPECT_TRUE(Destroy(*std::move(booted)).has_value());
}

TEST_P(RaceTest, WhenBothFailTheErrorTellsOfBoth) {
  host_.Inject(Verb::kStart, {.error = {Code::kInternal, "first"}});
  host_.Inject(Verb::kStart, {.error = {Code::kInternal, "second"}});
  auto booted = Boot(Config(Accelerator::kAuto));
  ASSERT_FALSE(booted.has_value());
  EXPECT_EQ(booted.error().message, "under tcg: first; under kvm: second");
  EXPECT_FALSE(fs::exists(dir_.path() / "accelerators.json"));
  ExpectNothingLeft();
}

TEST_P(RaceTest, CancellingEndsBoth) {
  agents_.HangNext(Method::kCheck, 1000);
  auto booted = CancelWhen(booter_.Boot(Config(Accelerator::kAuto), After(kLong)),
                           [&] { return agents_.CountCalls(Method::kCheck) == 2; });
  EXPECT_EQ(booted.error().code, Code::kCancelled);
  ExpectNothingLeft();
  EXPECT_FALSE(fs::exists(dir_.path() / "accelerators.json"));
}

TEST_F(BootTest, VerdictsThatCannotBeReadAreUnknown) {
  for (const char* content :
       {"", "{", "[]", "\"kvm\"", R"({"key": 7})", R"({"key": "auto"})", R"({"key": "warp"})"}) {
    Write("accelerators.json", content);
    EXPECT_EQ(verdicts_.Find("key"), std::nullopt) << content;
  }
  ASSERT_TRUE(verdicts_.Remember("key", Accelerator::kKvm).has_value());
  EXPECT_EQ(verdicts_.Find("key"), Accelerator::kKvm);
  EXPECT_EQ(verdicts_.Find("other"), std::nullopt);
}

TEST_F(BootTest, TheOldestVerdictIsForgotten) {
  for (int i = 0; i < 65; ++i) {
    ASSERT_TRUE(verdicts_.Remember(std::to_string(i), Accelerator::kTcg).has_value());
  }
  EXPECT_EQ(verdicts_.Find("0"), std::nullopt);
  EXPECT_EQ(verdicts_.Find("1"), Accelerator::kTcg);
  EXPECT_EQ(verdicts_.Find("64"), Accelerator::kTcg);
}

}  // namespace
}  // namespace hatchery::tmpl
