#include "cache/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hatchery::cache {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Kind = AccessEntry::Kind;
using enum MethodClass;

constexpr uid_t kDaemon = 500;

Peer User(uid_t uid, gid_t gid = 7, std::vector<gid_t> groups = {}) {
  return UnixPeer{.uid = uid, .gid = gid, .groups = std::move(groups)};
}

// "---", "r--", "ra-" or "raa": what `peer` may.
std::string Rights(const Access::Lists& lists, const Peer& peer) {
  const auto access = Access::Create(lists, kDaemon);
  EXPECT_TRUE(access.has_value()) << ToString(access.error());
  std::string rights;
  for (const auto what : {kRead, kAcquire, kAdminister}) {
    rights += access->Authorize(peer, what) ? Name(what)[0] : '-';
  }
  return rights;
}

TEST(AccessList, ReadsEveryKindOfEntry) {
  const auto list = ParseAccessList(" uid:1000,gid:2000 , user:alice,group:ci,tls:runner-1, *");
  ASSERT_TRUE(list.has_value()) << ToString(list.error());
  EXPECT_THAT(*list, testing::ElementsAre(
                         AccessEntry{Kind::kUid, 1000, ""}, AccessEntry{Kind::kGid, 2000, ""},
                         AccessEntry{Kind::kUser, 0, "alice"}, AccessEntry{Kind::kGroup, 0, "ci"},
                         AccessEntry{Kind::kTls, 0, "runner-1"}, AccessEntry{}));
  EXPECT_TRUE(ParseAccessList("").value().empty());
  EXPECT_TRUE(ParseAccessList("  ").value().empty());
}

TEST(AccessList, RefusesWhatIsNobody) {
  for (const std::string text :
       {"alice", "uid:", "uid:-1", "uid:1x", "uid:4294967295", "uid:99999999999", "gid:0x10",
        "user:", "group:", "tls:", "tls:a/b", "uid:1,,uid:2", "uid:1,", ",", "**", "UID:1"}) {
    const auto list = ParseAccessList(text);
    ASSERT_FALSE(list.has_value()) << text;
    EXPECT_EQ(list.error().code, Code::kInvalidArgument);
    EXPECT_THAT(list.error().message, HasSubstr("write uid:NUMBER")) << text;
  }
}

TEST(Access, TheSettingIsNamedThatHasABadEntryOrANameThatIsNot) {
  const auto bad = Access::Create({.acquire = "uid:1, bob"}, kDaemon);
  ASSERT_FALSE(bad.has_value());
  EXPECT_THAT(bad.error().message, AllOf(HasSubstr("access.acquire: "), HasSubstr("'bob'")));
  const auto user = Access::Create({.administer = "user:no-such-user"}, kDaemon);
  ASSERT_FALSE(user.has_value());
  EXPECT_EQ(user.error().message,
            "access.administer: there is no user 'no-such-user' on this host");
  const auto group = Access::Create({.read = "group:no-such-group"}, kDaemon);
  ASSERT_FALSE(group.has_value());
  EXPECT_EQ(group.error().message, "access.read: there is no group 'no-such-group' on this host");
}

TEST(Access, EachClassIncludesTheOnesBeforeIt) {
  EXPECT_EQ(Rights({"uid:1", "", ""}, User(1)), "r--");
  EXPECT_EQ(Rights({"", "uid:1", ""}, User(1)), "ra-");
  EXPECT_EQ(Rights({"", "", "uid:1"}, User(1)), "raa");
  EXPECT_EQ(Rights({"", "", "uid:1"}, User(2)), "---");
}

TEST(Access, TheDefaultsLetEverybodyAcquireAndNobodyAdminister) {
  EXPECT_EQ(Rights({}, User(1)), "ra-");
  EXPECT_EQ(Rights({}, TlsPeer{"ci"}), "ra-");
  const Access told_nothing;
  EXPECT_TRUE(told_nothing.Authorize(User(1), kAcquire).has_value());
  EXPECT_FALSE(told_nothing.Authorize(User(1), kAdminister).has_value());
  EXPECT_TRUE(told_nothing.Authorize(User(::geteuid()), kAdminister).has_value());
}

TEST(Access, RootAndTheDaemonsUserMayDoEverything) {
  EXPECT_EQ(Rights({"", "", ""}, User(0)), "raa");
  EXPECT_EQ(Rights({"", "", ""}, User(kDaemon)), "raa");
  EXPECT_EQ(Rights({"", "", ""}, TlsPeer{"0"}), "---");
}

TEST(Access, GroupsCountPrimaryAndSupplementary) {
  EXPECT_EQ(Rights({"", "gid:20", ""}, User(1, 20)), "ra-");
  EXPECT_EQ(Rights({"", "gid:20", ""}, User(1, 7, {19, 20})), "ra-");
  EXPECT_EQ(Rights({"", "gid:20", ""}, User(20, 7, {19})), "---") << "a uid is no gid";
}

TEST(Access, NamesAreLookedUp) {
  EXPECT_EQ(Rights({"", "user:nobody", ""}, User(65534)), "ra-");
  EXPECT_EQ(Rights({"", "user:nobody", ""}, User(1)), "---");
  EXPECT_EQ(Rights({"", "group:root", ""}, User(1, 0)), "ra-");
}

TEST(Access, NamesOfTlsClientsAreAWorldOfTheirOwn) {
  EXPECT_EQ(Rights({"", "tls:ci", ""}, TlsPeer{"ci"}), "ra-");
  EXPECT_EQ(Rights({"", "tls:ci", ""}, TlsPeer{"ci2"}), "---");
  EXPECT_EQ(Rights({"", "uid:1000", ""}, TlsPeer{"uid:1000"}), "---");
}

TEST(Access, TheCallerIsATenantWithItsProcess) {
  const auto access = Access::Create({"*", "*", "tls:ops"}, kDaemon).value();
  UnixPeer peer{.uid = 1000, .process = ProcessIdentity{42, 4711}};
  auto caller = access.Authorize(peer, kRead).value();
  EXPECT_EQ(caller.tenant, "uid:1000");
  EXPECT_FALSE(caller.administers);
  EXPECT_EQ(caller.process, (ProcessIdentity{42, 4711}));
  caller = access.Authorize(TlsPeer{"ops"}, kRead).value();
  EXPECT_EQ(caller.tenant, "tls:ops");
  EXPECT_TRUE(caller.administers);
  EXPECT_FALSE(caller.process.has_value());
}

TEST(Access, ARefusalSaysWhoWhatAndWhere) {
  const auto access = Access::Create({}, kDaemon).value();
  const auto refused = access.Authorize(User(1000, 100), kAdminister);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kPermissionDenied);
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("uid 1000 (gid 100) may not administer"), HasSubstr("uid:1000"),
                    HasSubstr("setting access.administer")));
  EXPECT_THAT(access.Authorize(TlsPeer{"ci"}, kAdminister).error().message,
              AllOf(HasSubstr("'ci' may not administer"), HasSubstr("tls:ci")));
}

TEST(TlsName, IsPrintableAndShort) {
  for (const std::string name : {"ci", "ci-runner.example.org", "CI Runner 7"}) {
    EXPECT_TRUE(ValidateTlsName(name).has_value()) << name;
  }
  EXPECT_TRUE(ValidateTlsName(std::string(100, 'a')).has_value());
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string("a,b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string("\xc3\xa4"), std::string(101, 'a')}) {
    EXPECT_FALSE(ValidateTlsName(name).has_value()) << name;
  }
}

}  // namespace
}  // namespace hatchery::cache
