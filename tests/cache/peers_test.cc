#include "cache/rpc/peers.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <set>

#include "base/files.h"
#include "tests/cache/as_user.h"

namespace hatchery::cache::rpc {
namespace {

class PeersTest : public testing::Test {
 protected:
  PeersTest() {
    fs::permissions(dir_.path(), fs::perms(0755));
    listener_ = ListenUnix(Socket(), 0666).value();
  }
  ~PeersTest() override { ::setrlimit(RLIMIT_NOFILE, &limit_); }

  fs::path Socket() { return dir_.path() / "s"; }
  UniqueFd Accept() {
    UniqueFd accepted(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(accepted.valid());
    return accepted;
  }
  // A connection's two ends, ours admitted.
  struct Pair {
    UniqueFd client, admitted;
    std::string Name() const { return "fd:" + std::to_string(admitted.get()); }
  };
  Pair Admit(std::optional<uid_t> uid = {}) {
    Pair pair;
    pair.client = uid ? ConnectAs(Socket(), *uid) : ConnectUnix(Socket()).value();
    pair.admitted = peers_.Admit(Accept()).value();
    return pair;
  }
  static void LimitNumbersTo(rlim_t count) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = count;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }

  rlimit limit_ = [] {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return limit;
  }();
  TempDir dir_ = TempDir::Create("/tmp", "hatchery-peers-").value();
  UniqueFd listener_;
  Peers peers_;
};

TEST_F(PeersTest, ThePeerIsWhoConnected) {
  ASSERT_TRUE(CanBeOthers()) << "takes root";
  const auto client = ConnectAs(Socket(), 1000, {2000, 2001});
  const auto peer = PeerOf(Accept().get());
  ASSERT_TRUE(peer.has_value()) << ToString(peer.error());
  EXPECT_EQ(peer->uid, 1000u);
  EXPECT_EQ(peer->gid, 1000u);
  EXPECT_THAT(peer->groups, testing::UnorderedElementsAre(2000u, 2001u));
  EXPECT_EQ(peer->process, IdentifyProcess(::getpid()).value());
}

TEST_F(PeersTest, MoreGroupsThanUsual) {
  ASSERT_TRUE(CanBeOthers()) << "takes root";
  std::vector<gid_t> groups(1000);
  for (std::size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<gid_t>(5000 + i);
  const auto client = ConnectAs(Socket(), 1000, groups);
  EXPECT_EQ(PeerOf(Accept().get()).value().groups.size(), 1000u);
}

TEST_F(PeersTest, AProcessThatEndedIsAbsentButItsUserIsKnown) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto connected = ConnectUnix(Socket());
    ::_exit(connected ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  const auto peer = PeerOf(Accept().get());
  ASSERT_TRUE(peer.has_value()) << ToString(peer.error());
  EXPECT_FALSE(peer->process.has_value());
  EXPECT_EQ(peer->uid, ::geteuid());
}

// As when its pid is another's by now: somebody lives there, but nobody holds the other end.
TEST_F(PeersTest, APidWhoseConnectionIsGoneIsNotBelieved) {
  (void)ConnectUnix(Socket()).value();
  EXPECT_FALSE(PeerOf(Accept().get()).value().process.has_value());
}

TEST_F(PeersTest, AnOldConnectionIsNotTakenForTheNext) {
  ASSERT_TRUE(CanBeOthers()) << "takes root";
  std::string old;
  {
    const auto first = Admit(1000);
    old = first.Name();
  }
  const auto second = Admit(1001);
  EXPECT_NE(second.Name(), old);
  EXPECT_EQ(peers_.Find(old).value().uid, 1000u) << "a late handler asks for the one that called";
  EXPECT_EQ(peers_.Find(second.Name()).value().uid, 1001u);
}

TEST_F(PeersTest, NumbersGoRoundAndAnOpenOneStays) {
  LimitNumbersTo(256);
  const auto open = Admit();
  std::set<int> seen;
  for (int i = 0; i < 120; ++i) {
    const auto pair = Admit();
    EXPECT_GE(pair.admitted.get(), 128);
    EXPECT_TRUE(seen.insert(pair.admitted.get()).second) << "again after " << i;
  }
  for (int i = 0; i < 300; ++i) EXPECT_NE(Admit().admitted.get(), open.admitted.get());
  EXPECT_NE(::fcntl(open.admitted.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(PeersTest, ANumberThatComesAgainIsItsNewConnections) {
  ASSERT_TRUE(CanBeOthers()) << "takes root";
  LimitNumbersTo(64);
  const std::string first = Admit(1000).Name();
  for (int i = 0; i < 100; ++i) {
    const auto pair = Admit(1001);
    if (pair.Name() != first) continue;
    EXPECT_EQ(peers_.Find(first).value().uid, 1001u);
    return;
  }
  FAIL() << "numbers do not go round";
}

TEST_F(PeersTest, WithoutANumberTheConnectionIsRefused) {
  LimitNumbersTo(64);
  const auto client = ConnectUnix(Socket()).value();
  auto accepted = Accept();
  // All numbers for clients are taken; those below stay free, which UBSan needs for its own checks.
  std::vector<UniqueFd> others;
  for (int fd; (fd = ::fcntl(listener_.get(), F_DUPFD_CLOEXEC, 32)) >= 0;) others.emplace_back(fd);
  const auto refused = peers_.Admit(std::move(accepted));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  char byte = 0;
  EXPECT_EQ(::read(client.get(), &byte, 1), 0) << "it was closed";
}

TEST_F(PeersTest, WhatWasNotAdmittedIsNobody) {
  for (const char* name : {"", "fd:", "fd:77", "fd:x", "unix:/run/h.sock", "ipv4:127.0.0.1:1"}) {
    const auto found = peers_.Find(name);
    ASSERT_FALSE(found.has_value()) << name;
    EXPECT_EQ(found.error().code, Code::kPermissionDenied);
  }
}

}  // namespace
}  // namespace hatchery::cache::rpc
