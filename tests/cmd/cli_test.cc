// The command line as users run it, against a daemon that is scripted.
#include "cmd/hatchery/cli.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <sstream>

#include "tests/cmd/fake_server.h"

namespace hatchery::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class CliTest : public testing::Test {
 protected:
  int Run(std::vector<std::string> arguments, const std::string& input = "") {
    out_.str("");
    err_.str("");
    int pipe[2];
    EXPECT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
    const UniqueFd reader(pipe[0]);
    UniqueFd writer(pipe[1]);
    std::thread feeder([&] {
      ::signal(SIGPIPE, SIG_IGN);
      (void)WriteAll(writer.get(), input);
      writer.Reset();
    });
    const Io io{.out = out_, .err = err_, .stdin_fd = reader.get()};
    const int code = RunCli(std::move(arguments), server_.socket(), io, interrupt_, clock_);
    // What was not read is dropped, so that the feeder ends.
    for (char buffer[4096]; ::read(reader.get(), buffer, sizeof buffer) > 0;) {
    }
    feeder.join();
    return code;
  }
  std::string out() const { return out_.str(); }
  std::string err() const { return err_.str(); }
  Json json() const { return ParseJson(out(), "output").value_or(Json()); }

  FakeServer server_;
  FakeClock clock_;
  Interrupt interrupt_;
  std::ostringstream out_, err_;
};

TEST_F(CliTest, RunPassesOutputAndExitCodeThroughAndReleases) {
  server_.cache.on_exec = [](const v1::ExecRequest&, v1::ExecResponse& response) {
    response.set_exit_code(7);
    response.set_out(std::string("o\0u\nt", 5));
    response.set_err("e\033[m");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"run", "--vcpus", "2", "--", "sh", "--json", "--", "-c"}), 7);
  EXPECT_EQ(out(), std::string("o\0u\nt", 5));
  EXPECT_EQ(err(), "e\033[m");
  EXPECT_THAT(server_.cache.last_exec().argv(), ElementsAre("sh", "--json", "--", "-c"));
  EXPECT_THAT(server_.cache.released(), ElementsAre("vm-1"));
}

TEST_F(CliTest, RunReleasesWhenTheCommandCannotBeRun) {
  server_.cache.on_exec = [](const v1::ExecRequest&, v1::ExecResponse&) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no program 'nope' in the guest");
  };
  EXPECT_EQ(Run({"run", "--", "nope"}), kExitHatcheryFailed);
  EXPECT_EQ(err(), "hatchery: run: no program 'nope' in the guest\n");
  EXPECT_THAT(out(), IsEmpty());
  EXPECT_EQ(server_.cache.leased(), 0u);
}

TEST_F(CliTest, AnInterruptInTheMiddleOfRunReleases) {
  server_.cache.on_exec_hanging = [this] { EXPECT_TRUE(interrupt_.Raise(SIGTERM)); };
  EXPECT_EQ(Run({"run", "--", "sleep", "1000"}), 128 + SIGTERM);
  EXPECT_EQ(err(), "hatchery: run: interrupted\n");
  EXPECT_THAT(server_.cache.released(), ElementsAre("vm-1"));
  EXPECT_FALSE(interrupt_.Raise(SIGTERM)) << "nobody waits for interrupts any more";
}

TEST_F(CliTest, AnInterruptDuringAcquireReleasesWhatWasLeasedAllTheSame) {
  server_.cache.on_acquire = [this](const v1::AcquireRequest& request, v1::AcquireResponse&) {
    server_.cache.Lease(request);
    interrupt_.Raise(SIGINT);
    return grpc::Status::CANCELLED;
  };
  EXPECT_EQ(Run({"run", "--", "true"}), 128 + SIGINT);
  EXPECT_EQ(server_.cache.leased(), 0u);
}

TEST_F(CliTest, ALostReplyToAcquireReleasesOnlyItsOwnVm) {
  v1::AcquireRequest other;
  other.set_request_id("someone-elses");
  server_.cache.Lease(other);
  server_.cache.on_acquire = [this](const v1::AcquireRequest& request, v1::AcquireResponse&) {
    server_.cache.Lease(request);
    return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "acquire took too long");
  };
  EXPECT_EQ(Run({"run", "--", "true"}), kExitHatcheryFailed);
  EXPECT_THAT(server_.cache.released(), ElementsAre("vm-2"));
}

TEST_F(CliTest, EveryRunHasARequestIdOfItsOwn) {
  EXPECT_EQ(Run({"run", "--", "true"}), 0);
  EXPECT_EQ(Run({"run", "--", "true"}), 0);
  const auto ids = server_.cache.request_ids();
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_THAT(ids[0], Not(IsEmpty()));
  EXPECT_NE(ids[0], ids[1]);
}

TEST_F(CliTest, AReleaseThatFailsIsSaidWithTheWayOut) {
  server_.cache.release_status = {grpc::StatusCode::INTERNAL, "disk full"};
  EXPECT_EQ(Run({"run", "--", "true"}), kExitHatcheryFailed);
  EXPECT_THAT(err(), AllOf(HasSubstr("disk full"), HasSubstr("hatchery vm release vm-1")));
}

TEST_F(CliTest, AVmThatIsGoneByItselfCountsAsReleased) {
  server_.cache.release_status = {grpc::StatusCode::NOT_FOUND, "no such VM"};
  EXPECT_EQ(Run({"run", "--", "true"}), 0);
  EXPECT_THAT(err(), IsEmpty());
}

TEST_F(CliTest, TheUsersTimeLimitDoesNotKeepAVmFromBeingReleased) {
  server_.cache.on_exec_hanging = [] {};
  EXPECT_EQ(Run({"--timeout", "200ms", "run", "--", "sleep", "9"}), kExitHatcheryFailed);
  EXPECT_EQ(err(), "hatchery: run: no answer within 200ms; give it longer with --timeout\n");
  EXPECT_EQ(server_.cache.leased(), 0u);
}

TEST_F(CliTest, SaysOnStderrThatOutputWasCutOffOrTheCommandKilled) {
  server_.cache.on_exec = [](const v1::ExecRequest&, v1::ExecResponse& response) {
    response.set_signal(9);
    response.set_timed_out(true);
    response.set_out("abc");
    response.set_out_truncated(true);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"run", "--timeout", "2s", "--", "yes"}), kExitTimedOut);
  EXPECT_EQ(out(), "abc");
  EXPECT_THAT(err(), AllOf(HasSubstr("stdout was cut off after 3 B"),
                           HasSubstr("did not end within 2s and was killed")));
  EXPECT_EQ(server_.cache.last_exec().timeout().seconds(), 2);
}

TEST_F(CliTest, ForwardsStdinOnlyWhenAsked) {
  EXPECT_EQ(Run({"run", "--", "cat"}, "hello"), 0);
  EXPECT_EQ(server_.cache.last_exec().stdin_data(), "");
  EXPECT_EQ(Run({"run", "-i", "--", "cat"}, "hello"), 0);
  EXPECT_EQ(server_.cache.last_exec().stdin_data(), "hello");
}

TEST_F(CliTest, TooMuchStdinIsRefusedBeforeAVmIsTaken) {
  EXPECT_EQ(Run({"run", "-i", "--", "cat"}, std::string((2 << 20) + 1, 'x')), kExitHatcheryFailed);
  EXPECT_THAT(err(), HasSubstr("stdin is more than the 2 MiB"));
  EXPECT_THAT(server_.cache.request_ids(), IsEmpty());
}

TEST_F(CliTest, VmExecTakesEnvCwdAndTheCommandUntouched) {
  EXPECT_EQ(Run({"vm", "exec", "vm-1", "-e", "A=1", "--env", "B=x=y", "--cwd", "/tmp", "--", "ls",
                 "--endpoint", "x"}),
            0);
  const auto request = server_.cache.last_exec();
  EXPECT_EQ(request.vm_id(), "vm-1");
  EXPECT_EQ(request.env().at("A"), "1");
  EXPECT_EQ(request.env().at("B"), "x=y");
  EXPECT_EQ(request.cwd(), "/tmp");
  EXPECT_THAT(request.argv(), ElementsAre("ls", "--endpoint", "x"));
}

TEST_F(CliTest, AcquirePrintsTheWholeHandleAsJson) {
  EXPECT_EQ(Run({"vm", "acquire", "--memory", "512M", "--sandbox-id", "s1", "--json"}), 0);
  const Json handle = json();
  EXPECT_EQ(handle["vm_id"], "vm-1");
  EXPECT_EQ(handle["state"], "assigned");
  EXPECT_EQ(handle["memory_bytes"], 512 << 20);
  EXPECT_EQ(handle["pid"], 4'000'000'000) << "a number, not a string";
  EXPECT_EQ(handle["sandbox_id"], "s1");
  EXPECT_EQ(handle["source"], "pool");
  EXPECT_EQ(handle["total_us"], 1500);
  EXPECT_EQ(handle["created"], "2023-11-14T22:13:20Z");
  EXPECT_TRUE(handle["acquired"].is_null());
}

TEST_F(CliTest, AVmSaysWhatIsPending) {
  server_.cache.on_acquire = [](const v1::AcquireRequest& request, v1::AcquireResponse& response) {
    EXPECT_EQ(request.resize_in_background(), request.vcpus() == 2);
    response.mutable_vm()->set_vcpus(1);
    response.mutable_vm()->set_pending_vcpus(request.vcpus() - 1);
    response.mutable_vm()->set_memory_bytes(256u << 20);
    if (request.vcpus() == 3) response.mutable_vm()->set_pending_problem("cpu2 does not start");
    return grpc::Status::OK;
  };
  const std::vector<std::string> two = {"vm", "acquire", "--vcpus", "2", "--no-wait-resize"};
  EXPECT_EQ(Run(two), 0);
  EXPECT_THAT(out(), HasSubstr("1+1\n"));
  EXPECT_THAT(out(), HasSubstr("256 MiB\n"));
  EXPECT_THAT(out(), HasSubstr("pending:"));
  EXPECT_EQ(Run({"vm", "acquire", "--vcpus", "3"}), 0);
  EXPECT_THAT(out(), HasSubstr("cpu2 does not start"));
  EXPECT_EQ(Run({"vm", "acquire", "--vcpus", "1", "--json"}), 0);
  EXPECT_EQ(json()["pending_vcpus"], 0);
  EXPECT_EQ(json()["pending_memory_bytes"], 0);
  EXPECT_EQ(json()["pending_problem"], "");
  EXPECT_EQ(Run({"vm", "acquire", "--vcpus", "1"}), 0);
  EXPECT_THAT(out(), testing::Not(HasSubstr("pending")));
}

TEST_F(CliTest, ListingsAreTablesForPeopleAndJsonForPrograms) {
  EXPECT_EQ(Run({"vm", "list", "--json"}), 0);
  EXPECT_EQ(json(), (Json{{"vms", Json::array()}}));
  Run({"vm", "acquire"});
  clock_.Advance(std::chrono::seconds(75));
  EXPECT_EQ(Run({"vm", "list"}), 0);
  EXPECT_EQ(out(),
            "VM    STATE     TEMPLATE  VCPUS   MEMORY         PID    AGE  SANDBOX  HOLDER  SINCE  "
            "UNTIL     PROBLEM\n"
            "vm-1  assigned  default       1  256 MiB  4000000000  1m15s  -        uid:7       -  "
            "released  -\n");
  EXPECT_EQ(Run({"factory", "status", "--json"}), 0);
  EXPECT_EQ(json()["templates"][0]["max_memory_bytes"], 4ll << 30);
  EXPECT_EQ(Run({"factory", "status"}), 0);
  EXPECT_THAT(out(), HasSubstr("256 MiB - 4 GiB"));
}

TEST_F(CliTest, ALeaseHasATimeToLiveThatCanBeRenewed) {
  EXPECT_EQ(Run({"vm", "acquire", "--ttl", "90s", "--json"}), 0);
  EXPECT_EQ(json()["lease_term"], "ttl");
  EXPECT_EQ(json()["lease_ttl_us"], 90'000'000);
  EXPECT_EQ(json()["lease_expires"], "2023-11-14T22:14:50Z");
  clock_.Advance(std::chrono::seconds(50));
  EXPECT_EQ(Run({"vm", "list"}), 0);
  EXPECT_THAT(out(), HasSubstr("  40s"));
  EXPECT_EQ(Run({"vm", "renew", "vm-1", "--ttl", "5m"}), 0);
  EXPECT_EQ(out(), "VM vm-1 is leased for 4m10s from now, unless it is renewed again\n");
  EXPECT_EQ(Run({"vm", "renew", "vm-9"}), kExitFailed);
  EXPECT_EQ(Run({"vm", "renew", "vm-1", "--ttl", "soon"}), kExitUsage);
  EXPECT_THAT(err(), HasSubstr("--ttl"));
}

TEST_F(CliTest, ALeaseOfRunEndsWithItsProcess) {
  server_.cache.on_exec = [this](const v1::ExecRequest&, v1::ExecResponse& response) {
    response.set_exit_code(0);
    v1::AcquireRequest other;
    EXPECT_EQ(server_.cache.Lease(other).lease_term(), v1::LEASE_TERM_HELD);
    EXPECT_EQ(server_.cache.term_of("vm-1"), v1::LEASE_TERM_CALLER);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Run({"run", "--", "true"}), 0);
}

TEST_F(CliTest, AGuestsConsoleCannotSteerTheTerminal) {
  Run({"vm", "acquire"});
  EXPECT_EQ(Run({"vm", "show", "vm-1"}), 0);
  EXPECT_THAT(out(), EndsWith("end of its console:\nboot\n?]0;owned?done\n"));
  EXPECT_EQ(Run({"vm", "show", "vm-1", "--json"}), 0);
  EXPECT_EQ(json()["stats"]["private_bytes"], 0);
}

TEST_F(CliTest, ReleaseGoesOnAfterOneThatFails) {
  Run({"vm", "acquire"});
  EXPECT_EQ(Run({"vm", "release", "vm-9", "vm-1"}), kExitFailed);
  EXPECT_EQ(err(), "hatchery: vm release: vm-9: no VM 'vm-9'\n");
  EXPECT_EQ(out(), "released vm-1\n");
}

TEST_F(CliTest, LongWorkShowsPlainLinesWhereThereIsNoTerminal) {
  EXPECT_EQ(Run({"factory", "init", "--pool", "4", "--kernel", "k", "--accel", "tcg"}), 0);
  EXPECT_EQ(err(), "booting\n");
  EXPECT_THAT(out(), AllOf(HasSubstr("booted in 3.00 s"), HasSubstr("4 warm")));
  EXPECT_EQ(server_.factory.last_init.pool_target(), 4u);
  EXPECT_EQ(server_.factory.last_init.template_spec().kernel(), fs::current_path() / "k");
}

TEST_F(CliTest, AFailureInTheMiddleOfAStreamIsTheError) {
  server_.factory.init_status = {grpc::StatusCode::DEADLINE_EXCEEDED,
                                 "the guest did not answer within 60s"};
  EXPECT_EQ(Run({"factory", "init"}), kExitFailed);
  EXPECT_EQ(err(), "booting\nhatchery: factory init: the guest did not answer within 60s\n");
}

TEST_F(CliTest, PoolSetWaitsUnlessTold) {
  EXPECT_EQ(Run({"pool", "set", "--size", "3"}), 0);
  EXPECT_TRUE(server_.factory.last_pool.wait());
  EXPECT_FALSE(server_.factory.last_pool.has_vcpus());
  EXPECT_EQ(Run({"pool", "set", "big", "--size", "0", "--no-wait"}), 0);
  EXPECT_FALSE(server_.factory.last_pool.wait());
  EXPECT_EQ(server_.factory.last_pool.template_name(), "big");
  EXPECT_EQ(Run({"pool", "set"}), kExitUsage);
}

TEST_F(CliTest, AnUnimplementedCallAsksForTheSameVersion) {
  EXPECT_EQ(Run({"pool", "list"}), kExitFailed);
  EXPECT_THAT(err(), HasSubstr("is it of the same version?"));
}

TEST_F(CliTest, SaysWhatToDoWhenNobodyListens) {
  EXPECT_EQ(Run({"vm", "list", "--endpoint", "/no/such/hatchery.sock"}), kExitFailed);
  EXPECT_EQ(
      err(),
      "hatchery: vm list: there is no daemon at /no/such/hatchery.sock: is hatcheryd running? "
      "start it with `hatcheryd --state-dir /no/such`, or name another with --endpoint or "
      "HATCHERY_ENDPOINT\n");
  EXPECT_EQ(Run({"run", "--endpoint", "/no/such/hatchery.sock", "--", "true"}),
            kExitHatcheryFailed);
}

TEST_F(CliTest, AStaleSocketIsToldApartFromAMissingOne) {
  const std::string stale = server_.socket() + ".stale";
  {
    const auto listener = ListenUnix(stale, 0600);
  }
  EXPECT_EQ(Run({"--endpoint", stale, "vm", "list"}), kExitFailed);
  EXPECT_THAT(err(), StartsWith("hatchery: vm list: nobody answers at " + stale));
}

TEST_F(CliTest, WrongUsageIsTwoAndSaysWhere) {
  EXPECT_EQ(Run({}), kExitUsage);
  EXPECT_EQ(Run({"vm"}), kExitUsage);
  EXPECT_EQ(Run({"vm", "lst"}), kExitUsage);
  EXPECT_EQ(Run({"vm", "list", "--state", "hot"}), kExitUsage);
  EXPECT_THAT(err(), AllOf(HasSubstr("'hot' is none of"), HasSubstr("assigned")));
  EXPECT_EQ(Run({"vm", "list", "--", "ls"}), kExitUsage);
  EXPECT_EQ(Run({"vm", "acquire", "--vcpus", "-1"}), kExitUsage);
  EXPECT_EQ(Run({"vm", "acquire", "--memory", "12X"}), kExitUsage);
  EXPECT_EQ(err().find("hatchery: vm acquire: --memory: '12X' is not a size"), 0u);
  EXPECT_EQ(Run({"vm", "list", "--timeout", "5"}), kExitUsage);
  EXPECT_EQ(Run({"vm", "list", "--endpoint", "localhost:50051"}), kExitUsage);
  EXPECT_EQ(Run({"run"}), kExitUsage);
  EXPECT_EQ(Run({"run", "--"}), kExitUsage);
  EXPECT_EQ(Run({"run", "--env", "novalue", "--", "true"}), kExitUsage);
  EXPECT_EQ(Run({"run", "ls"}), kExitUsage);
  EXPECT_THAT(err(), HasSubstr("write the command after --"));
  EXPECT_THAT(server_.cache.request_ids(), IsEmpty());
}

TEST_F(CliTest, EveryVerbHasHelpWithAnExample) {
  for (const std::vector<std::string>& verb :
       std::vector<std::vector<std::string>>{{"doctor"},
                                             {"factory", "init"},
                                             {"factory", "status"},
                                             {"factory", "destroy"},
                                             {"template", "create"},
                                             {"template", "list"},
                                             {"template", "show"},
                                             {"template", "verify"},
                                             {"template", "delete"},
                                             {"pool", "set"},
                                             {"pool", "list"},
                                             {"vm", "acquire"},
                                             {"vm", "renew"},
                                             {"vm", "list"},
                                             {"vm", "show"},
                                             {"vm", "exec"},
                                             {"vm", "release"},
                                             {"run"}}) {
    auto arguments = verb;
    arguments.push_back("--help");
    EXPECT_EQ(Run(arguments), 0);
    std::string name = "hatchery";
    for (const std::string& part : verb) name += " " + part;
    EXPECT_THAT(out(), AllOf(HasSubstr("Usage: " + name), HasSubstr("Example: " + name)));
  }
  EXPECT_EQ(Run({"--version"}), 0);
  EXPECT_THAT(out(), StartsWith("hatchery "));
}

}  // namespace
}  // namespace hatchery::cli
