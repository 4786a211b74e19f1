#include "base/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

namespace hatchery {
namespace {

class KeepNewestTest : public testing::Test {
 protected:
  static std::uint64_t OnDisk(const fs::path& path) {
    struct stat info{};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  void Append(std::string_view text) {
    const UniqueFd fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    EXPECT_TRUE(WriteAll(fd.get(), text).has_value());
  }

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-files-").value();
  fs::path path_ = dir_.path() / "log";
};

TEST_F(KeepNewestTest, BoundsAFileThatIsBeingWritten) {
  constexpr auto kLimit = Bytes::KiB(64);
  const UniqueFd writer(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  std::string newest;
  for (int i = 0; i < 100; ++i) {
    newest = std::to_string(i) + std::string(10'000, 'x') + "\n";
    ASSERT_TRUE(WriteAll(writer.get(), newest).has_value());
    ASSERT_TRUE(KeepNewest(path_, kLimit).has_value());
    ASSERT_LE(OnDisk(path_), kLimit.count() + 4096);
    ASSERT_EQ(ReadTail(path_, Bytes(newest.size())).value(), newest);
  }
  const auto all = ReadTail(path_, Bytes::MiB(2)).value();
  EXPECT_GE(all.size(), kLimit.count() / 2);
  EXPECT_EQ(all.find('\0'), std::string::npos) << "a hole is no output";
}

TEST_F(KeepNewestTest, LeavesSmallFilesAndWhatIsNoFile) {
  EXPECT_TRUE(KeepNewest(path_, Bytes::KiB(64)).has_value()) << "none";
  Append("a line");
  EXPECT_TRUE(KeepNewest(path_, Bytes::KiB(64)).has_value());
  EXPECT_EQ(ReadFile(path_).value(), "a line");
  const auto victim = dir_.path() / "victim";
  ASSERT_TRUE(WriteFileAtomically(victim, std::string(100'000, 'v')).has_value());
  const auto link = dir_.path() / "link";
  fs::create_symlink(victim, link);
  EXPECT_TRUE(KeepNewest(link, Bytes::KiB(4)).has_value());
  EXPECT_EQ(fs::file_size(victim), 100'000u);
}

TEST_F(KeepNewestTest, ATailBeginsAfterAHole) {
  ASSERT_TRUE(WriteFileAtomically(path_, std::string(16 << 10, 'a')).has_value());
  const UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8 << 10), 0)
      << "/tmp is on a filesystem without holes";
  EXPECT_EQ(ReadTail(path_, Bytes::KiB(16)).value(), std::string(8 << 10, 'a'));
  EXPECT_EQ(ReadTail(path_, Bytes::KiB(4)).value(), std::string(4 << 10, 'a'));
}

}  // namespace
}  // namespace hatchery
