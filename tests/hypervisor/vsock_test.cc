#include "hypervisor/qemu/vsock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <set>
#include <vector>

#include "base/files.h"

namespace hatchery::hypervisor::qemu {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::Truly;

// The offset of an id among those that guests may have: what is to be drawn for it.
constexpr std::uint32_t PlaceOf(std::uint32_t cid) { return cid - kFirstGuestCid; }

// A kernel's device: who is asked for what, and what is taken.
class Vsock : public testing::Test {
 protected:
  VhostVsock Device() {
    return {.open = []() -> Result<UniqueFd> {
              return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
            },
            .set_guest_cid = [this](int, std::uint32_t cid) -> int {
              asked_.push_back(cid);
              if (refusal_ != 0) return refusal_;
              return all_taken_ || taken_.contains(cid) ? EADDRINUSE : 0;
            },
            .draw = [this] { return drawn_; }};
  }

  std::uint32_t drawn_ = PlaceOf(4000);
  std::set<std::uint32_t> taken_;
  bool all_taken_ = false;
  int refusal_ = 0;
  std::vector<std::uint32_t> asked_;
};

TEST_F(Vsock, TheFirstFreeIdFromTheDrawnOneOnIsTaken) {
  auto reserved = ReserveCid(Device());
  ASSERT_TRUE(reserved.has_value()) << ToString(reserved.error());
  EXPECT_EQ(reserved->cid, 4000u);
  EXPECT_TRUE(reserved->device.valid()) << "it is what keeps the id";

  taken_ = {4000, 4001, 4003};
  asked_.clear();
  reserved = ReserveCid(Device());
  ASSERT_TRUE(reserved.has_value()) << ToString(reserved.error());
  EXPECT_EQ(reserved->cid, 4002u);
  EXPECT_THAT(asked_, ElementsAre(4000, 4001, 4002));
}

TEST_F(Vsock, AfterTheLastIdComesTheFirst) {
  drawn_ = PlaceOf(kLastGuestCid);
  taken_ = {kLastGuestCid, kFirstGuestCid};
  const auto reserved = ReserveCid(Device());
  ASSERT_TRUE(reserved.has_value()) << ToString(reserved.error());
  EXPECT_EQ(reserved->cid, kFirstGuestCid + 1);
}

TEST_F(Vsock, ReservedIdsAreNeverTried) {
  all_taken_ = true;
  // Wherever it begins, also beyond what there is, and near either end.
  for (const std::uint32_t drawn : {0u, 1u, 2u, 3u, PlaceOf(kLastGuestCid), kLastGuestCid,
                                    0x80000000u, 0xfffffffeu, 0xffffffffu}) {
    drawn_ = drawn;
    asked_.clear();
    EXPECT_FALSE(ReserveCid(Device()).has_value());
    EXPECT_THAT(asked_, SizeIs(kCidTries));
    EXPECT_THAT(asked_, Each(Truly(IsGuestCid))) << drawn;
  }
  for (const std::uint32_t cid : {0u, 1u, 2u, 0xffffffffu}) EXPECT_FALSE(IsGuestCid(cid)) << cid;
}

TEST_F(Vsock, GivesUpWhenManyInARowAreTaken) {
  all_taken_ = true;
  const auto reserved = ReserveCid(Device());
  ASSERT_FALSE(reserved.has_value());
  EXPECT_EQ(reserved.error().code, Code::kResourceExhausted);
  EXPECT_THAT(reserved.error().message, HasSubstr("end VMs, or set [qemu] vsock = \"never\""));
}

TEST_F(Vsock, AnyOtherRefusalIsTheKernelsWord) {
  refusal_ = ENOTTY;
  const auto reserved = ReserveCid(Device());
  ASSERT_FALSE(reserved.has_value());
  EXPECT_THAT(reserved.error().message, HasSubstr("vsock context id 4000"));
  EXPECT_THAT(asked_, ElementsAre(4000)) << "it is not asked again";
}

TEST_F(Vsock, IsUsableWhereItGivesAnId) {
  EXPECT_TRUE(IfUsable(Device()) != nullptr);
  refusal_ = EACCES;
  EXPECT_TRUE(IfUsable(Device()) == nullptr);
}

TEST_F(Vsock, WithoutADeviceThereIsNone) {
  const TempDir folder = TempDir::Create(fs::temp_directory_path(), "vsock-test-").value();
  const fs::path device = folder.path() / "vhost-vsock";
  EXPECT_TRUE(IfUsable(KernelVhostVsock(device)) == nullptr);
  const auto none = ReserveCid(KernelVhostVsock(device));
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Code::kNotFound);
  EXPECT_THAT(none.error().message, HasSubstr(device.string()));

  std::ofstream(device) << "a plain file answers no ioctl";
  EXPECT_TRUE(IfUsable(KernelVhostVsock(device)) == nullptr);
  EXPECT_FALSE(ReserveCid(KernelVhostVsock(device)).has_value());
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
