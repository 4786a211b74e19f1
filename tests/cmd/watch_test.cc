// `hatchery vm watch` against a daemon that is scripted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <sstream>

#include "cmd/hatchery/cli.h"
#include "tests/cmd/fake_server.h"

namespace hatchery::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class WatchTest : public testing::Test {
 protected:
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"vm", "watch"});
    const Io io{.out = out_, .err = err_};
    return RunCli(std::move(arguments), server_.socket(), io, interrupt_, clock_);
  }
  static v1::WatchResponse Event(std::uint64_t revision, v1::VmState state) {
    v1::WatchResponse event;
    event.set_revision(revision);
    event.mutable_time()->set_seconds(1'700'000'000);
    event.set_vm_id("vm-1");
    event.set_state(state);
    return event;
  }

  FakeServer server_;
  FakeClock clock_;
  Interrupt interrupt_;
  std::ostringstream out_, err_;
};

TEST_F(WatchTest, OneVmIsWatchedUntilItIsGone) {
  server_.cache.on_watch = [](const auto& request, auto&, auto& writer) {
    EXPECT_EQ(request.vm_id(), "vm-1");
    auto failed = Event(8, v1::VM_STATE_FAILED);
    failed.set_sandbox_id("s1");
    failed.set_reason("guest panic: the kernel\npanicked");
    failed.set_console_tail("one\r\n\033two\r\n");
    writer.Write(failed);
    writer.Write(Event(9, v1::VM_STATE_UNSPECIFIED));
    writer.Write(Event(10, v1::VM_STATE_WARM));
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"vm-1"}), kExitOk) << err_.str();
  EXPECT_EQ(out_.str(),
            "2023-11-14T22:13:20Z 8 vm-1 failed sandbox=s1: guest panic: the kernel panicked; "
            "console: ?two\n"
            "2023-11-14T22:13:20Z 9 vm-1 gone\n");
}

TEST_F(WatchTest, BeginsFromTheListAndResumesWhereADaemonLeftOff) {
  server_.cache.revision = 41;
  std::vector<std::uint64_t> asked;
  server_.cache.on_watch = [&](const auto& request, auto&, auto& writer) {
    asked.push_back(request.after_revision());
    if (asked.size() == 1) {
      writer.Write(Event(42, v1::VM_STATE_WARM));
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the service is stopping");
    }
    if (asked.size() == 2) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "not yet");
    auto silent = Event(43, v1::VM_STATE_ASSIGNED);
    silent.set_health_changed(true);
    silent.set_problem("its agent does not answer");
    writer.Write(silent);
    return grpc::Status(grpc::StatusCode::OUT_OF_RANGE, "too old; list again");
  };
  EXPECT_EQ(Run({"--json"}), kExitFailed);
  EXPECT_THAT(asked, ElementsAre(41u, 42u, 42u));
  std::istringstream lines(out_.str());
  std::string first, second;
  ASSERT_TRUE(std::getline(lines, first) && std::getline(lines, second));
  EXPECT_EQ(ParseJson(first, "line")->at("state"), "warm");
  EXPECT_EQ(ParseJson(second, "line")->at("revision"), 43);
  EXPECT_EQ(ParseJson(second, "line")->at("problem"), "its agent does not answer");
  EXPECT_THAT(err_.str(), HasSubstr("too old; list again"));
}

TEST_F(WatchTest, AnInterruptEndsItAlsoWhileThereIsNoDaemon) {
  server_.cache.on_watch = [&](const auto&, auto& context, auto&) {
    interrupt_.Raise(SIGINT);
    while (!context.IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  EXPECT_EQ(Run({"--after", "5"}), 128 + SIGINT);
  // Raised while it waits to try again, or just before: the wait ends at once either way.
  server_.cache.on_watch = [&](const auto&, auto&, auto&) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "stopping");
  };
  EXPECT_EQ(Run({"--after", "5"}), 128 + SIGINT);
}

TEST_F(WatchTest, AWrongRevisionIsAMistake) {
  EXPECT_EQ(Run({"--after", "0"}), kExitUsage);
  EXPECT_EQ(Run({"--after", "x"}), kExitUsage);
}

}  // namespace
}  // namespace hatchery::cli
