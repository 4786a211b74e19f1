#include "hypervisor/uids.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/base/limit.h"

namespace hatchery::hypervisor {
namespace {

constexpr const char* kPasswd =
    "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/sh\nann:x:1000:1000::/home/ann:/bin/"
    "sh\n";

Error Refused(std::string_view setting, uid_t we = 0) {
  const auto range = ParseUids(setting, we, kPasswd);
  EXPECT_FALSE(range.has_value()) << setting;
  return range ? Error{} : range.error();
}

TEST(Uids, AreARangeThatNobodyHas) {
  EXPECT_EQ(ParseUids("2000-2999", 0, kPasswd).value(), (UidRange{2000, 2999}));
  EXPECT_EQ(ParseUids("2000", 0, kPasswd).value(), (UidRange{2000, 2000}));
  EXPECT_EQ(ParseUids("auto", 0, kPasswd).value(), kDefaultUids);
  EXPECT_EQ(ParseUids("auto", 1000, kPasswd).value(), std::nullopt);
  EXPECT_EQ(ParseUids("none", 0, kPasswd).value(), std::nullopt);
  for (const char* bad : {"", "x", "5-", "-5", "9-5", "1-2-3", "1 - 2", "0-10", "0",
                          "4294967290-4294967295", "99999999999"}) {
    EXPECT_EQ(Refused(bad).code, Code::kInvalidArgument) << bad;
  }
  EXPECT_THAT(Refused("500-1000").message, testing::HasSubstr("'ann' (uid 1000)"));
  EXPECT_THAT(Refused("0-10").message, testing::HasSubstr("root"));
  EXPECT_EQ(Refused("2000-2999", 1000).code, Code::kPermissionDenied);
}

TEST(Uids, AreEachGivenToOneVmAtATime) {
  UidAllocator uids({100, 102}, 4);
  EXPECT_EQ(uids.Take().value(), 101u);
  EXPECT_EQ(uids.Take().value(), 102u);
  uids.Free(101);
  EXPECT_EQ(uids.Take().value(), 100u) << "the longest unused first";
  EXPECT_EQ(uids.Take().value(), 101u);
  const auto none = uids.Take();
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Code::kResourceExhausted);
  EXPECT_THAT(none.error().message, testing::HasSubstr("100-102"));
  uids.Free(100);
  EXPECT_EQ(uids.Take().value(), 100u);
}

TEST(Uids, NeedCapabilitiesAndANamespaceThatHasThem) {
  const std::string root = "Name:\tx\nCapEff:\t000001ffffffffff\n";
  const std::string whole = "         0          0 4294967295\n";
  const std::string container = "         0     100000      65536\n     70000     1 10\n";
  EXPECT_TRUE(MayGive(kDefaultUids, whole, root).has_value());
  EXPECT_TRUE(MayGive({70000, 70009}, container, root).has_value());
  EXPECT_FALSE(MayGive({70000, 70010}, container, root).has_value());
  EXPECT_THAT(MayGive(kDefaultUids, container, root).error().message,
              testing::HasSubstr("1879048192"));
  EXPECT_TRUE(MayGive(kDefaultUids, whole, "\nCapEff:\t00000000a80425db\n").has_value());
  for (const char* status : {"", "\nCapEff:\t0\n", "\nCapEff:\t0000000000000081\n"}) {
    EXPECT_FALSE(MayGive(kDefaultUids, whole, status).has_value()) << status;
  }
}

TEST(Uids, OfAdoptedVmsAreTaken) {
  UidAllocator uids({100, 101}, 0);
  uids.Claim(100);
  uids.Claim(5000);  // of a range that was set before
  EXPECT_EQ(uids.Take().value(), 101u);
  EXPECT_FALSE(uids.Take().has_value());
  uids.Free(5000);
  EXPECT_EQ(uids.taken(), 2u);
}

TEST(Uids, OfVmsThatNobodyWatchesAreTakenWhileTheyLive) {
  UidAllocator uids({100, 100}, 0);
  ASSERT_TRUE(uids.Take().has_value());
  uids.Abandon(100, IdentifyProcess(::getpid()).value());
  EXPECT_FALSE(uids.Take().has_value());
  uids.Abandon(100, {.pid = ::getpid(), .start_ticks = 1});  // another process of that pid
  EXPECT_TRUE(uids.Take().has_value());
}

TEST(Uids, OfVmsThatCannotBeLookedAtAreTaken) {
  UidAllocator uids({100, 100}, 0);
  ASSERT_TRUE(uids.Take().has_value());
  uids.Abandon(100, IdentifyProcess(::getpid()).value());
  const auto taken = [&] {
    const Limit limit(RLIMIT_NOFILE, DescriptorsInUse());
    return uids.Take().has_value();
  }();
  EXPECT_FALSE(taken);
}

}  // namespace
}  // namespace hatchery::hypervisor
