// Who may do what, through the real programs: other users on the socket, other hosts over TLS.
#include <gmock/gmock.h>

#include "tests/cache/certificates.h"
#include "tests/e2e/daemon.h"

namespace hatchery::e2e {
namespace {

using testing::HasSubstr;
using testing::Not;

class AccessTest : public testing::Test {
 protected:
  // A folder that others may enter, with a client that they may run.
  AccessTest() {
    if (::geteuid() != 0) return;
    fs::permissions(open_.path(), fs::perms(0755));
    fs::copy_file(BinDir() / "hatchery", open_.path() / "hatchery");
    fs::permissions(open_.path() / "hatchery", fs::perms(0755));
  }
  void SetUp() override { ASSERT_EQ(::geteuid(), 0u) << "becoming other users takes root"; }

  std::vector<std::string> Flags(std::vector<std::string> more) {
    std::vector<std::string> flags = {"--driver-name", "fake",          "--endpoint",
                                      Socket(),        "--socket-mode", "0666"};
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }
  std::string Socket() const { return (open_.path() / "s").string(); }

  static CommandOutput Run(std::vector<std::string> argv) {
    asio::io_context io;
    PosixSpawner spawner(io.get_executor());
    auto done = RunUntilDone(io, RunCommand(spawner, argv, After(std::chrono::seconds(60))));
    EXPECT_TRUE(done.has_value()) << argv[0] << ": does not end";
    return done.value_or(CommandOutput{});
  }
  CommandOutput Cli(std::vector<std::string> args) const {
    args.insert(args.begin(), {(open_.path() / "hatchery").string(), "--endpoint", Socket()});
    return Run(args);
  }
  CommandOutput CliAs(int uid, std::vector<std::string> args) const {
    const std::string id = std::to_string(uid);
    args.insert(args.begin(), {"setpriv", "--reuid", id, "--regid", id, "--clear-groups",
                               (open_.path() / "hatchery").string(), "--endpoint", Socket()});
    return Run(args);
  }
  // What `vm acquire` printed: the id stands in it.
  static std::string IdIn(const std::string& output) {
    const auto at = output.find("vm-");
    return at == std::string::npos ? "" : output.substr(at, 19);
  }

  TempDir open_ = TempDir::Create("/tmp", "hatchery-access-").value();
};

TEST_F(AccessTest, UsersOfOneHost) {
  TestDaemon daemon(Flags({"--access-acquire", "uid:1000,uid:1001"}));
  ASSERT_EQ(Cli({"factory", "init", "--pool", "2"}).status.value, 0);

  const auto acquired = CliAs(1000, {"vm", "acquire"});
  ASSERT_EQ(acquired.status.value, 0) << acquired.err;
  const std::string id = IdIn(acquired.out);
  EXPECT_THAT(CliAs(1000, {"vm", "list"}).out, HasSubstr(id));
  EXPECT_THAT(Cli({"vm", "list"}).out, HasSubstr(id));

  const auto others = CliAs(1001, {"vm", "list"});
  EXPECT_EQ(others.status.value, 0) << others.err;
  EXPECT_THAT(others.out, Not(HasSubstr("vm-")));
  EXPECT_THAT(CliAs(1001, {"vm", "release", id}).err, HasSubstr("no VM '" + id + "'"));

  const auto stranger = CliAs(1002, {"vm", "acquire"});
  EXPECT_EQ(stranger.status.value, 1);
  EXPECT_THAT(stranger.err, HasSubstr("uid 1002 (gid 1002) may not acquire"));
  EXPECT_THAT(stranger.err, HasSubstr("access.acquire"));
  EXPECT_EQ(CliAs(1002, {"vm", "list"}).status.value, 0) << "all may read";
  EXPECT_THAT(CliAs(1000, {"factory", "destroy"}).err, HasSubstr("may not administer"));

  EXPECT_EQ(CliAs(1000, {"vm", "release", id}).status.value, 0);
  EXPECT_EQ(daemon.Stop(), 0);
}

TEST_F(AccessTest, ClientsOfOtherHosts) {
  TestCa ca, other_ca;
  const auto own = ca.Issue("/CN=hatcheryd", "IP:127.0.0.1");
  const auto client = ca.Issue("/CN=ci", "DNS:ci");
  const auto foreign = other_ca.Issue("/CN=ci", "DNS:ci");
  TestDaemon daemon(Flags({"--tls-listen", "127.0.0.1:0", "--tls-certificate", own.certificate,
                           "--tls-key", own.key, "--tls-client-ca", ca.ca()}));
  ASSERT_EQ(Cli({"factory", "init", "--pool", "0"}).status.value, 0);
  const auto at = daemon.log().find("tcp://127.0.0.1:");
  ASSERT_NE(at, std::string::npos) << daemon.log();
  const std::string endpoint =
      daemon.log().substr(at, daemon.log().find_first_not_of("0123456789", at + 16) - at);
  const auto remote = [&](const TestCa::Pair& pair, const std::string& root,
                          std::vector<std::string> args) {
    args.insert(args.begin(),
                {(open_.path() / "hatchery").string(), "--endpoint", endpoint, "--tls-ca", root,
                 "--tls-cert", pair.certificate, "--tls-key", pair.key});
    return Run(args);
  };

  const auto ran = remote(client, ca.ca(), {"run", "--", "echo", "hi"});
  EXPECT_EQ(ran.status.value, 0) << ran.err;
  EXPECT_EQ(ran.out, "hi\n");
  EXPECT_THAT(remote(client, ca.ca(), {"factory", "destroy"}).err, HasSubstr("'ci' may not"));
  EXPECT_THAT(remote(foreign, ca.ca(), {"vm", "list"}).err,
              HasSubstr("does not accept the certificate of --tls-cert"));
  EXPECT_THAT(remote(client, other_ca.ca(), {"vm", "list"}).err,
              HasSubstr("is not signed by --tls-ca"));
  EXPECT_EQ(daemon.Stop(), 0);
  EXPECT_THAT(remote(client, ca.ca(), {"vm", "list"}).err, HasSubstr("nobody listens at tcp://"));
}

TEST_F(AccessTest, WhatCannotBeIsSaidAtTheStart) {
  const auto start = [&](std::vector<std::string> args) {
    args.insert(args.begin(), {(BinDir() / "hatcheryd").string(), "--state-dir",
                               (open_.path() / "state").string()});
    return Run(args);
  };
  const auto user = start({"--access-administer", "user:no-such-user"});
  EXPECT_EQ(user.status.value, 2);
  EXPECT_THAT(user.err, HasSubstr("access.administer: there is no user 'no-such-user'"));
  const auto files = start({"--tls-listen", "127.0.0.1:0", "--tls-certificate", "/no/such.pem",
                            "--tls-key", "/no/such.key", "--tls-client-ca", "/no/such.ca"});
  EXPECT_NE(files.status.value, 0);
  EXPECT_THAT(files.err, HasSubstr("tls.certificate: "));
  EXPECT_THAT(files.err, HasSubstr("/no/such.pem"));
  EXPECT_FALSE(fs::exists(open_.path() / "state")) << "nothing was touched";
}

}  // namespace
}  // namespace hatchery::e2e
