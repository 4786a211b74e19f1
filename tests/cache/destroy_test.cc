// Ending everything, whatever goes on meanwhile.
#include <gmock/gmock.h>

#include "base/both.h"
#include "tests/cache/fixture.h"

namespace hatchery::cache {
namespace {

using testing::Contains;
using testing::HasSubstr;

class DestroyTest : public CacheFixture {
 protected:
  Task<void> Destroy() {
    return cache().DestroyAll([this](const StepProgress& step) { said_.push_back(step.step); },
                              After(kLong));
  }
  std::vector<std::string> said_;
};

TEST_F(DestroyTest, ATemplateThatIsBeingMadeDoesNotOutliveIt) {
  ASSERT_TRUE(Init(1).has_value());
  outside_.host.SetDelay(Verb::kStart, kMoment);
  TemplateSpec spec;
  spec.name = "other";
  auto create = [](Catalog& catalog, TemplateSpec s) -> Task<Catalog::Created> {
    co_return co_await catalog.Create(std::move(s), false, [](const std::string&) {}, After(kLong));
  };
  auto [created, destroyed] = Run(Both(create(cache().catalog(), spec), Destroy()));
  ASSERT_FALSE(created.has_value());
  EXPECT_EQ(created.error().code, Code::kFailedPrecondition) << ToString(created.error());
  EXPECT_TRUE(destroyed.has_value()) << ToString(destroyed.error());
  EXPECT_THAT(said_, Contains(HasSubstr("waiting for the build of 'other'")));
  EXPECT_TRUE(under_test_->templates->List().empty());
  EXPECT_TRUE(cache().catalog().Names().empty());
  ExpectVms(0);
  // Afterwards there may be one again.
  EXPECT_TRUE(Init(1).has_value());
}

TEST_F(DestroyTest, EndsAVmWhoseVmmIsStopped) {
  ASSERT_TRUE(Init(1).has_value());
  const auto vm = Acquire()->vm;
  ASSERT_TRUE(outside_.host.Freeze(vm->id()).has_value());
  EXPECT_TRUE(Run(Destroy()).has_value());
  ExpectVms(0);
}

TEST_F(DestroyTest, SaysWhichVmItWaitsFor) {
  ASSERT_TRUE(Init(0).has_value());
  const auto vm = Acquire()->vm;
  // Withstands its end for as long as one try takes.
  outside_.host.Inject(Verb::kStop, {Fault::Kind::kHang});
  EXPECT_TRUE(Run(Destroy()).has_value());
  EXPECT_THAT(said_, Contains(HasSubstr("waiting for VM " + vm->record.id())));
  ExpectVms(0);
}

}  // namespace
}  // namespace hatchery::cache
