#include "image/cpio.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace hatchery::image {
namespace {

using std::string_literals::operator""s;

// Written by hand from the format's description.
TEST(PackCpio, GivesTheFormatsBytes) {
  auto archive = PackCpio({File("bin/x", "hello"), Directory("bin")});
  ASSERT_TRUE(archive.has_value());
  const std::string expected =
      "070701"
      "00000001"
      "000041ed"
      "00000000"
      "00000000"
      "00000001"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000004"
      "00000000"
      "bin\0\0\0"s
      "070701"
      "00000002"
      "000081a4"
      "00000000"
      "00000000"
      "00000001"
      "00000000"
      "00000005"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000006"
      "00000000"
      "bin/x\0hello\0\0\0"s
      "070701"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000001"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "00000000"
      "0000000b"
      "00000000"
      "TRAILER!!!\0\0\0\0"s;
  EXPECT_EQ(*archive, expected);
}

TEST(PackCpio, KeepsDevicesAndLinks) {
  auto archive = PackCpio(
      {Directory("dev"), CharacterDevice("dev/null", 0666, 1, 3), Symlink("sh", "busybox")});
  ASSERT_TRUE(archive.has_value());
  EXPECT_NE(archive->find("000021b6"), std::string::npos);          // S_IFCHR | 0666
  EXPECT_NE(archive->find("0000000100000003"), std::string::npos);  // rdev 1, 3
  EXPECT_NE(archive->find("sh\0\0\0\0busybox"s), std::string::npos);
}

TEST(PackCpio, DoesNotDependOnTheOrderOfItsEntries) {
  std::vector<CpioEntry> entries = {Directory("a"), File("a/1", "x"), File("a/2", "y"),
                                    Directory("a-b"), File("a-b/c", "z")};
  const auto first = PackCpio(entries).value();
  std::ranges::reverse(entries);
  EXPECT_EQ(PackCpio(entries).value(), first);
}

TEST(PackCpio, RefusesWhatTheKernelWouldDrop) {
  EXPECT_FALSE(PackCpio({File("/abs", "")}).has_value());
  EXPECT_FALSE(PackCpio({File("", "")}).has_value());
  EXPECT_FALSE(PackCpio({File("a", ""), File("a", "")}).has_value());
  EXPECT_FALSE(PackCpio({File("no/folder", "")}).has_value());
}

}  // namespace
}  // namespace hatchery::image
