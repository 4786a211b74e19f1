#include "image/modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hatchery::image {
namespace {

using std::string_view_literals::operator""sv;
using testing::ElementsAre;
using testing::HasSubstr;

// From Debian's 6.1 cloud kernel.
constexpr std::string_view kDep =
    "kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n"
    "kernel/drivers/virtio/virtio_ring.ko:\n"
    "kernel/drivers/virtio/virtio_pci_modern_dev.ko:\n"
    "kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko "
    "kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n"
    "kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko "
    "kernel/drivers/virtio/virtio_ring.ko\n";

TEST(LoadOrder, PutsWhatIsNeededFirst) {
  const auto index = ParseModuleIndex(kDep, "").value();
  const auto order = LoadOrder(index, std::vector{"virtio_pci"sv, "virtio_rng"sv});
  ASSERT_TRUE(order.has_value()) << order.error().message;
  EXPECT_THAT(*order,
              ElementsAre("kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko",
                          "kernel/drivers/virtio/virtio_pci_modern_dev.ko",
                          "kernel/drivers/virtio/virtio_pci.ko",
                          "kernel/drivers/char/hw_random/virtio-rng.ko"));
}

TEST(LoadOrder, SkipsWhatIsBuiltIn) {
  const auto index = ParseModuleIndex(kDep, "kernel/net/vsock.ko\n").value();
  EXPECT_THAT(LoadOrder(index, std::vector{"vsock"sv}).value(), ElementsAre());
}

TEST(LoadOrder, TakesDashAndUnderscoreForTheSame) {
  const auto index = ParseModuleIndex(kDep, "").value();
  EXPECT_EQ(LoadOrder(index, std::vector{"virtio-rng"sv}).value(),
            LoadOrder(index, std::vector{"virtio_rng"sv}).value());
}

TEST(LoadOrder, NamesAModuleThatIsMissing) {
  const auto index = ParseModuleIndex(kDep, "").value();
  const auto order = LoadOrder(index, std::vector{"virtio"sv, "nvme"sv});
  EXPECT_EQ(order.error().code, Code::kNotFound);
  EXPECT_THAT(order.error().message, HasSubstr("nvme"));
}

TEST(LoadOrder, RefusesACircleAndAnUnknownNeed) {
  const auto circle = ParseModuleIndex("a.ko: b.ko\nb.ko: a.ko\n", "").value();
  EXPECT_EQ(LoadOrder(circle, std::vector{"a"sv}).error().code, Code::kFailedPrecondition);
  const auto unknown = ParseModuleIndex("a.ko: gone.ko\n", "").value();
  EXPECT_THAT(LoadOrder(unknown, std::vector{"a"sv}).error().message, HasSubstr("gone.ko"));
}

TEST(ParseModuleIndex, RefusesWhatIsNoModulesDep) {
  EXPECT_EQ(ParseModuleIndex("no colon here\n", "").error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace hatchery::image
