#include "base/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "base/run.h"
#include "tests/base/limit.h"

namespace hatchery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ProcessTest : public testing::Test {
 protected:
  asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};

  Result<CommandOutput> Run(std::vector<std::string> argv,
                            std::chrono::nanoseconds timeout = seconds(20)) {
    return RunUntilDone(io_, RunCommand(spawner_, std::move(argv), After(timeout)));
  }
};

TEST_F(ProcessTest, RunsACommandAndKeepsBothOutputs) {
  auto output = Run({"sh", "-c", "echo out; echo err >&2; exit 3"});
  ASSERT_TRUE(output.has_value()) << ToString(output.error());
  EXPECT_EQ(output->out, "out\n");
  EXPECT_EQ(output->err, "err\n");
  EXPECT_EQ(ToString(output->status), "exit code 3");
}

TEST_F(ProcessTest, NamesAProgramThatDoesNotExist) {
  auto output = Run({"/no/such/program"});
  ASSERT_FALSE(output.has_value());
  EXPECT_EQ(output.error().code, Code::kNotFound);
  EXPECT_NE(output.error().message.find("/no/such/program"), std::string::npos);
}

TEST_F(ProcessTest, KillsACommandAtItsDeadline) {
  auto output = Run({"sleep", "1000"}, milliseconds(50));
  ASSERT_FALSE(output.has_value());
  EXPECT_EQ(output.error().code, Code::kDeadlineExceeded);
}

TEST_F(ProcessTest, AGrandchildThatKeepsThePipeOpenDoesNotOutlastTheDeadline) {
  auto output = Run({"sh", "-c", "sleep 5 & echo $!"}, milliseconds(300));
  ASSERT_TRUE(output.has_value()) << ToString(output.error());
  ::kill(std::stoi(output->out), SIGKILL);
}

TEST_F(ProcessTest, TheChildInheritsOnlyWhatItIsGiven) {
  // As libraries open them: without close-on-exec.
  UniqueFd below(::dup(STDERR_FILENO)), given(::dup(STDERR_FILENO)), above(::dup(STDERR_FILENO));
  SpawnRequest request;
  const auto path = [](const UniqueFd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); };
  request.argv = {
      "sh", "-c",
      "test -e " + path(given) + " && test ! -e " + path(below) + " && test ! -e " + path(above)};
  request.env = MinimalEnvironment();
  request.inherit = {given.get()};
  auto process = spawner_.Spawn(request);
  ASSERT_TRUE(process.has_value());
  auto status = RunUntilDone(io_, (*process)->Wait(After(seconds(20))));
  EXPECT_EQ(ToString(status.value()), "exit code 0");
}

TEST_F(ProcessTest, HugePagesAreOffForTheChildAlone) {
  const auto off_in = [&](bool huge_pages) {
    SpawnRequest request;
    request.argv = {"grep", "-q", "THP_enabled:[[:space:]]*0", "/proc/self/status"};
    request.env = MinimalEnvironment();
    request.huge_pages = huge_pages;
    auto process = spawner_.Spawn(request).value();
    return RunUntilDone(io_, process->Wait(After(seconds(20)))).value().value == 0;
  };
  EXPECT_TRUE(off_in(false));
  EXPECT_FALSE(off_in(true));
}

TEST_F(ProcessTest, AdoptsByPidAndStartTimeOnly) {
  SpawnRequest request;
  request.argv = {"sleep", "1000"};
  request.env = MinimalEnvironment();
  auto process = spawner_.Spawn(request);
  ASSERT_TRUE(process.has_value());
  auto identity = (*process)->identity();
  EXPECT_TRUE(Process::Adopt(io_.get_executor(), identity).has_value());
  ++identity.start_ticks;
  EXPECT_EQ(Process::Adopt(io_.get_executor(), identity).error().code, Code::kNotFound);
  auto status = RunUntilDone(io_, (*process)->Kill(After(seconds(20))));
  EXPECT_EQ(status.value().value, SIGKILL);
  EXPECT_EQ(IdentifyProcess(identity.pid).error().code, Code::kNotFound);
}

TEST_F(ProcessTest, OneThatCannotBeLookedAtIsNotGone) {
  Result<ProcessIdentity> looked;
  {
    const Limit limit(RLIMIT_NOFILE, DescriptorsInUse());
    looked = IdentifyProcess(::getpid());
  }
  ASSERT_FALSE(looked.has_value());
  EXPECT_EQ(looked.error().code, Code::kResourceExhausted);
}

TEST_F(ProcessTest, IsNotStartedIfItCannotBeKnownAgain) {
  ASSERT_TRUE(Run({"true"}).has_value());  // the loop has its own descriptors by now
  int refused = 0, started = 0;
  for (rlim_t more = 0; more < 12; ++more) {
    auto process = [&] {
      const Limit limit(RLIMIT_NOFILE, DescriptorsInUse() + more);
      return spawner_.Spawn({.argv = {"sleep", "1000"}, .env = MinimalEnvironment()});
    }();
    ++(process ? started : refused);
    if (!process) continue;
    EXPECT_NE((*process)->identity().start_ticks, 0u) << "with " << more << " descriptors";
    EXPECT_TRUE(RunUntilDone(io_, (*process)->Kill(After(seconds(20)))).has_value());
  }
  EXPECT_GT(refused, 1);
  EXPECT_GT(started, 1);
}

TEST_F(ProcessTest, SeveralMayWaitAndAgainLater) {
  SpawnRequest request;
  request.argv = {"true"};
  request.env = MinimalEnvironment();
  auto process = spawner_.Spawn(request);
  ASSERT_TRUE(process.has_value());
  EXPECT_EQ(RunUntilDone(io_, (*process)->Wait(After(seconds(20)))).value().value, 0);
  EXPECT_EQ(RunUntilDone(io_, (*process)->Wait(After(seconds(20)))).value().value, 0);
}

}  // namespace
}  // namespace hatchery
