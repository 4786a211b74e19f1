#include <signal.h>

#include "tests/agent/guest_harness.h"

namespace hatchery::agent::guest {
namespace {

class ExecTest : public GuestTest {
 protected:
  void SetUp() override { client_ = std::make_unique<TestClient>(Connect()); }

  static v1::ExecRequest Shell(const std::string& script) {
    v1::ExecRequest request;
    for (const std::string& arg : {std::string("sh"), std::string("-c"), script}) {
      request.add_argv(arg);
    }
    return request;
  }
  Result<v1::ExecResponse> Exec(const v1::ExecRequest& request,
                                std::chrono::nanoseconds timeout = {}) {
    return client_->Ask<v1::ExecResponse>(kGuest, "Exec", request, timeout);
  }
  // A FIFO of the test's, for commands that must run until told, and to see them end.
  std::string Fifo(const std::string& name) {
    const std::string path = (dir_.path() / name).string();
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    return path;
  }

  std::unique_ptr<TestClient> client_;
};

TEST_F(ExecTest, ReturnsBothOutputsAndTheExitCode) {
  const auto response = Exec(Shell("echo out; echo err >&2; exit 3"));
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_EQ(response->out(), "out\n");
  EXPECT_EQ(response->err(), "err\n");
  EXPECT_TRUE(response->has_exit_code());
  EXPECT_EQ(response->exit_code(), 3);
  EXPECT_FALSE(response->timed_out() || response->out_truncated() || response->err_truncated());
}

TEST_F(ExecTest, ReturnsTheSignal) {
  const auto response = Exec(Shell("kill -TERM $$"));
  EXPECT_TRUE(response->has_signal());
  EXPECT_EQ(response->signal(), SIGTERM);
}

TEST_F(ExecTest, FeedsStdinLargerThanAPipeWhileOutputFlows) {
  v1::ExecRequest request;
  request.add_argv("cat");
  std::string data(1'000'000, 'x');
  data[500'000] = '\0';
  request.set_stdin_data(data);
  EXPECT_EQ(Exec(request)->out(), data);
}

TEST_F(ExecTest, StdinThatNobodyReadsIsNoError) {
  v1::ExecRequest request = Shell("exec <&-; echo done");
  request.set_stdin_data(std::string(1'000'000, 'x'));
  const auto response = Exec(request);
  EXPECT_EQ(response->out(), "done\n");
  EXPECT_EQ(response->exit_code(), 0);
}

TEST_F(ExecTest, WithoutStdinThereIsNothingToRead) {
  EXPECT_EQ(Exec(Shell("cat; echo end"))->out(), "end\n");
}

TEST_F(ExecTest, AddsToTheDefaultEnvironment) {
  v1::ExecRequest request = Shell("echo $PATH; echo $HOME; echo $WORD; env | wc -l");
  (*request.mutable_env())["WORD"] = "with space=and more";
  (*request.mutable_env())["HOME"] = "/elsewhere";
  const auto response = Exec(request);
  EXPECT_THAT(response->out(),
              testing::StartsWith("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
                                  "/elsewhere\nwith space=and more\n"));
}

TEST_F(ExecTest, LooksTheProgramUpInTheRequestsPath) {
  ASSERT_TRUE(WriteFileAtomically(dir_.path() / "only-here", "#!/bin/sh\necho found\n", 0755));
  v1::ExecRequest request;
  request.add_argv("only-here");
  EXPECT_EQ(Exec(request).error().code, Code::kNotFound);
  (*request.mutable_env())["PATH"] = "/nowhere:" + dir_.path().string() + ":/bin";
  EXPECT_EQ(Exec(request)->out(), "found\n");
}

TEST_F(ExecTest, RunsInTheGivenFolder) {
  EXPECT_EQ(Exec(Shell("pwd"))->out(), "/\n");
  v1::ExecRequest request = Shell("pwd");
  request.set_cwd(dir_.path().string());
  EXPECT_EQ(Exec(request)->out(), dir_.path().string() + "\n");
  request.set_cwd("/no/such/folder");
  const auto bad = Exec(request);
  EXPECT_EQ(bad.error().code, Code::kNotFound);
  EXPECT_THAT(bad.error().message, testing::HasSubstr("cwd '/no/such/folder'"));
}

TEST_F(ExecTest, NamesAProgramThatCannotRun) {
  v1::ExecRequest request;
  request.add_argv("/no/such/program");
  EXPECT_EQ(Exec(request).error().code, Code::kNotFound);
  EXPECT_THAT(Exec(request).error().message, testing::HasSubstr("/no/such/program"));
  request.set_argv(0, "/etc/passwd");
  EXPECT_EQ(Exec(request).error().code, Code::kPermissionDenied);
  request.set_argv(0, "/");
  EXPECT_EQ(Exec(request).error().code, Code::kPermissionDenied);
  ASSERT_TRUE(WriteFileAtomically(dir_.path() / "odd", "\x01\x02\x03", 0755).has_value());
  request.set_argv(0, (dir_.path() / "odd").string());
  EXPECT_EQ(Exec(request).error().code, Code::kPermissionDenied);
}

TEST_F(ExecTest, RefusesWhatCannotBeACommand) {
  EXPECT_EQ(Exec(v1::ExecRequest()).error().code, Code::kInvalidArgument);
  v1::ExecRequest request = Shell(std::string("a\0b", 3));
  EXPECT_EQ(Exec(request).error().code, Code::kInvalidArgument);
  request = Shell("true");
  (*request.mutable_env())["A=B"] = "c";
  EXPECT_EQ(Exec(request).error().code, Code::kInvalidArgument);
  request = Shell("true");
  request.set_output_limit(2 << 20);
  EXPECT_EQ(Exec(request).error().code, Code::kInvalidArgument);
  request = Shell(std::string(3 << 20, ' '));
  EXPECT_EQ(Exec(request).error().code, Code::kInvalidArgument);
}

TEST_F(ExecTest, KeepsOutputUpToTheLimitAndSaysSo) {
  v1::ExecRequest request = Shell("printf 12345; printf 1234 >&2");
  request.set_output_limit(4);
  const auto response = Exec(request);
  EXPECT_EQ(response->out(), "1234");
  EXPECT_TRUE(response->out_truncated());
  EXPECT_EQ(response->err(), "1234");
  EXPECT_FALSE(response->err_truncated());
}

TEST_F(ExecTest, AFloodIsDiscardedWhileTheCommandRunsOn) {
  const auto response = Exec(Shell("head -c 30000000 /dev/zero; head -c 9000000 /dev/zero >&2"));
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_EQ(response->exit_code(), 0);
  EXPECT_EQ(response->out().size(), 1u << 20);
  EXPECT_EQ(response->err().size(), 1u << 20);
  EXPECT_TRUE(response->out_truncated() && response->err_truncated());
}

TEST_F(ExecTest, KillsTheWholeGroupAtTheTimeout) {
  const std::string fifo = Fifo("life");
  UniqueFd life(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  v1::ExecRequest request = Shell("echo started; exec > " + fifo + "; sleep 1000 & wait");
  request.set_timeout_ms(200);
  const auto response = Exec(request);
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_TRUE(response->timed_out());
  EXPECT_EQ(response->signal(), SIGKILL);
  EXPECT_EQ(response->out(), "started\n");
  // End of file: nobody in the group holds the writing end any more.
  pollfd poll{.fd = life.get(), .events = POLLIN};
  EXPECT_EQ(::poll(&poll, 1, 20'000), 1);
}

TEST_F(ExecTest, TheEnvelopesTimeoutBoundsItToo) {
  const auto response = Exec(Shell("sleep 1000"), std::chrono::milliseconds(100));
  EXPECT_TRUE(response->timed_out());
}

TEST_F(ExecTest, AGrandchildThatKeepsTheOutputOpenIsNotWaitedFor) {
  const auto response = Exec(Shell("sleep 1000 & echo $!"));
  ASSERT_TRUE(response.has_value()) << ToString(response.error());
  EXPECT_EQ(::kill(std::stoi(response->out()), SIGKILL), 0) << "it should live on";
}

TEST_F(ExecTest, RunsManyOnOneChannel) {
  std::map<std::uint32_t, std::string> expected;
  for (int i = 0; i < 40; ++i) {
    const std::string word = "word" + std::to_string(i);
    expected[client_->Send(kGuest, "Exec", Shell("echo " + word).SerializeAsString())] =
        word + "\n";
  }
  while (!expected.empty()) {
    const auto frame = client_->Receive();
    ASSERT_TRUE(frame.has_value());
    v1::ExecResponse response;
    ASSERT_TRUE(response.ParseFromString(ttrpc::ParseResponse(*frame)->payload));
    EXPECT_EQ(response.out(), expected[frame->stream_id]);
    expected.erase(frame->stream_id);
  }
}

TEST_F(ExecTest, RefusesMoreThanItsBoundUntilOneEnds) {
  const std::string fifo = Fifo("gate");
  UniqueFd gate(::open(fifo.c_str(), O_RDWR | O_CLOEXEC));
  std::vector<std::uint32_t> ids;
  for (std::size_t i = 0; i < Execs::kMaxRunning; ++i) {
    ids.push_back(client_->Send(kGuest, "Exec", Shell("read line < " + fifo).SerializeAsString()));
  }
  EXPECT_EQ(Exec(Shell("true")).error().code, Code::kResourceExhausted);
  EXPECT_TRUE(client_->Check().has_value());
  ASSERT_TRUE(WriteAll(gate.get(), "x\n").has_value());
  ASSERT_TRUE(client_->Receive().has_value());
  EXPECT_EQ(Exec(Shell("true"))->exit_code(), 0);
}

TEST_F(ExecTest, KillEndsTheCommandOfThatIdWithItsGroup) {
  const std::string fifo = Fifo("life");
  UniqueFd life(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  v1::ExecRequest request = Shell("exec > " + fifo + "; echo alive; sleep 1000 & wait");
  request.set_exec_id("one");
  const auto call = client_->Send(kGuest, "Exec", request.SerializeAsString());
  pollfd poll{.fd = life.get(), .events = POLLIN};
  ASSERT_EQ(::poll(&poll, 1, 20'000), 1);
  char buffer[64];
  ASSERT_GT(::read(life.get(), buffer, sizeof(buffer)), 0);
  EXPECT_EQ(Exec(request).error().code, Code::kAlreadyExists);

  v1::KillRequest kill;
  for (const char* other : {"", "two"}) {
    kill.set_exec_id(other);
    EXPECT_TRUE(client_->Ask<v1::KillResponse>(kGuest, "Kill", kill).has_value());
  }
  poll.revents = 0;
  EXPECT_EQ(::poll(&poll, 1, 0), 0) << "another's Kill ended it";
  kill.set_exec_id("one");
  client_->Send(kGuest, "Kill", kill.SerializeAsString());
  v1::ExecResponse response;
  ASSERT_TRUE(response.ParseFromString(client_->AnswerTo(call).value()));
  EXPECT_EQ(response.signal(), SIGKILL);
  EXPECT_FALSE(response.timed_out());
  ASSERT_EQ(::poll(&poll, 1, 20'000), 1);
  EXPECT_EQ(::read(life.get(), buffer, sizeof(buffer)), 0);
  // Once more is no error.
  EXPECT_TRUE(client_->Ask<v1::KillResponse>(kGuest, "Kill", kill).has_value());
}

TEST_F(ExecTest, RefusesAnIdThatIsTooLong) {
  v1::ExecRequest request = Shell("true");
  request.set_exec_id(std::string(65, 'x'));
  EXPECT_EQ(Exec(request).error().code, Code::kInvalidArgument);
}

TEST_F(ExecTest, ADisconnectKillsTheCommand) {
  const std::string fifo = Fifo("life");
  UniqueFd life(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  client_->Send(kGuest, "Exec",
                Shell("exec > " + fifo + "; echo alive; sleep 1000 & wait").SerializeAsString());
  pollfd poll{.fd = life.get(), .events = POLLIN};
  ASSERT_EQ(::poll(&poll, 1, 20'000), 1);
  char buffer[64];
  ASSERT_GT(::read(life.get(), buffer, sizeof(buffer)), 0);
  client_->Close();
  // End of file: nobody in the group holds the writing end any more.
  ASSERT_EQ(::poll(&poll, 1, 20'000), 1);
  EXPECT_EQ(::read(life.get(), buffer, sizeof(buffer)), 0);
}

}  // namespace
}  // namespace hatchery::agent::guest
