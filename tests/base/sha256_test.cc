#include "base/sha256.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/ids.h"

namespace hatchery {
namespace {

// FIPS 180-2, appendix B.1.
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256, KnowsThePublishedExample) {
  EXPECT_EQ(ToHex(Sha256Of("abc")), kAbc);
  Sha256 pieces;
  pieces.Update("a");
  pieces.Update("");
  pieces.Update("bc");
  EXPECT_EQ(ToHex(pieces.Finish()), kAbc);
}

TEST(Sha256, ReadsFilesAndNamesWhatIsMissing) {
  auto dir = TempDir::Create("/tmp", "sha256-").value();
  const fs::path file = dir.path() / "abc";
  ASSERT_TRUE(WriteFileAtomically(file, "abc").has_value());
  EXPECT_EQ(Sha256OfFile(file).value(), kAbc);
  auto missing = Sha256OfFile(dir.path() / "none");
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_NE(missing.error().message.find("none"), std::string::npos);
}

}  // namespace
}  // namespace hatchery
