#include "cache/quotas.h"

#include <gmock/gmock.h>

namespace hatchery::cache {
namespace {

using testing::HasSubstr;

TEST(Quotas, EachTenantHasItsOwn) {
  const Limits limits{.tenant_leases = 1};
  Quotas quotas(limits);
  ASSERT_TRUE(quotas.Take("uid:1", 1, Bytes::MiB(256)).has_value());
  ASSERT_TRUE(quotas.Take("uid:2", 1, Bytes::MiB(256)).has_value());
  const auto refused = quotas.Take("uid:1", 1, Bytes::MiB(256));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("tenant 'uid:1' held 1 leases"));
  EXPECT_THAT(refused.error().message, HasSubstr("1 at most ([limits] tenant_leases)"));
  EXPECT_GT(refused.error().retry_after.count(), 0);
}

TEST(Quotas, WhatIsGivenBackMayBeTakenAgain) {
  const Limits limits{.tenant_vcpus = 4, .tenant_memory = Bytes::GiB(1)};
  Quotas quotas(limits);
  ASSERT_TRUE(quotas.Take("a", 3, Bytes::MiB(512)).has_value());
  EXPECT_THAT(quotas.Take("a", 2, Bytes::MiB(256)).error().message, HasSubstr("held 3 vcpus"));
  EXPECT_THAT(quotas.Take("a", 1, Bytes::MiB(768)).error().message,
              HasSubstr("held 512 MiB memory"));
  ASSERT_TRUE(quotas.Take("a", 1, Bytes::MiB(512)).has_value());
  EXPECT_EQ(quotas.held().at("a"), (Quotas::Held{2, 4, Bytes::GiB(1)}));
  quotas.GiveBack("a", 3, Bytes::MiB(512));
  EXPECT_EQ(quotas.held().at("a"), (Quotas::Held{1, 1, Bytes::MiB(512)}));
  quotas.GiveBack("a", 1, Bytes::MiB(512));
  EXPECT_TRUE(quotas.held().empty());
}

TEST(Quotas, ARefusalTakesNothing) {
  const Limits limits{.tenant_memory = Bytes::MiB(100)};
  Quotas quotas(limits);
  ASSERT_FALSE(quotas.Take("a", 1, Bytes::MiB(200)).has_value());
  EXPECT_TRUE(quotas.held().empty());
}

TEST(Quotas, WhatCanNeverBeHasNoHintWhenToTryAgain) {
  const Limits limits{.tenant_vcpus = 2};
  Quotas quotas(limits);
  const auto refused = quotas.Take("a", 3, Bytes::MiB(1));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().retry_after.count(), 0);
  EXPECT_THAT(refused.error().message, HasSubstr("ask for less"));
}

TEST(Quotas, ThoseOfAnEarlierDaemonCountWhateverTheLimit) {
  const Limits limits{.tenant_leases = 1};
  Quotas quotas(limits);
  quotas.Restore("a", 1, Bytes::MiB(1));
  quotas.Restore("a", 1, Bytes::MiB(1));
  quotas.GiveBack("a", 1, Bytes::MiB(1));
  EXPECT_FALSE(quotas.Take("a", 1, Bytes::MiB(1)).has_value());
}

}  // namespace
}  // namespace hatchery::cache
