#include "template/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

#include "base/files.h"

namespace hatchery::tmpl {
namespace {

std::string Pages(std::string_view pattern) {
  std::string bytes;
  for (char c : pattern) bytes.append(kPage, c == '.' ? '\0' : c);
  return bytes;
}

TEST(Memory, RunsAreLongestAndCoverEverything) {
  auto runs = [](std::string_view pattern, bool zeros) {
    std::vector<std::pair<std::size_t, std::size_t>> found;
    (void)ForEachRun(Pages(pattern), zeros,
                     [&](std::size_t at, std::string_view run) -> Result<void> {
                       found.emplace_back(at / kPage, run.size() / kPage);
                       return {};
                     });
    return found;
  };
  using Runs = std::vector<std::pair<std::size_t, std::size_t>>;
  EXPECT_EQ(runs("", false), Runs{});
  EXPECT_EQ(runs("....", false), Runs{});
  EXPECT_EQ(runs("....", true), (Runs{{0, 4}}));
  EXPECT_EQ(runs("ab..c.", false), (Runs{{0, 2}, {4, 1}}));
  EXPECT_EQ(runs("ab..c.", true), (Runs{{2, 2}, {5, 1}}));
  EXPECT_EQ(runs(".a", false), (Runs{{1, 1}}));
}

TEST(Memory, APageWithOneByteAtItsEndIsNotZero) {
  std::string page(kPage, '\0');
  page.back() = 1;
  bool used = false;
  (void)ForEachRun(page, false, [&](std::size_t, std::string_view) -> Result<void> {
    used = true;
    return {};
  });
  EXPECT_TRUE(used);
}

TEST(Memory, PunchingFreesZerosAndKeepsTheRest) {
  UniqueFd fd = CreateMemory(Bytes(8 * kPage)).value();
  const std::string content = Pages("a..b....");
  ASSERT_TRUE(WriteAll(fd.get(), content).has_value());
  EXPECT_EQ(AllocatedSize(fd.get()).value(), Bytes(8 * kPage));
  ASSERT_TRUE(PunchZeros(fd.get(), 0, 8 * kPage).has_value());
  EXPECT_EQ(AllocatedSize(fd.get()).value(), Bytes(2 * kPage));
  EXPECT_EQ(ReadSparse(fd.get(), 0, 8 * kPage).value(), content);
  EXPECT_EQ(ReadSparse(fd.get(), 4 * kPage, 4 * kPage).value(), "");
  // Reading filled no hole.
  EXPECT_EQ(AllocatedSize(fd.get()).value(), Bytes(2 * kPage));
}

TEST(Memory, SparseReadsEndWhereTheFileEnds) {
  UniqueFd fd = CreateMemory(Bytes(kPage)).value();
  ASSERT_TRUE(WriteAll(fd.get(), Pages("a")).has_value());
  EXPECT_EQ(ReadSparse(fd.get(), 0, kPage).value(), Pages("a"));
  EXPECT_EQ(ReadSparse(fd.get(), 8 * kPage, kPage).value(), "");
}

TEST(Memory, SealedMemoryTakesNoWrite) {
  UniqueFd fd = CreateMemory(Bytes(kPage)).value();
  ASSERT_TRUE(SealMemory(fd.get()).has_value());
  EXPECT_TRUE(SealMemory(fd.get()).has_value());
  EXPECT_EQ(::pwrite(fd.get(), "x", 1, 0), -1);
  EXPECT_EQ(::ftruncate(fd.get(), 0), -1);
  EXPECT_EQ(::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0), MAP_FAILED);
  void* clone = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd.get(), 0);
  ASSERT_NE(clone, MAP_FAILED);
  ::munmap(clone, kPage);
}

TEST(Memory, CannotBeSealedWhileMappedWritable) {
  UniqueFd fd = CreateMemory(Bytes(kPage)).value();
  void* vmm = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  ASSERT_NE(vmm, MAP_FAILED);
  auto sealed = SealMemory(fd.get());
  ASSERT_FALSE(sealed.has_value());
  EXPECT_EQ(sealed.error().code, Code::kFailedPrecondition);
  EXPECT_NE(sealed.error().message.find("VMM"), std::string::npos);
  ::munmap(vmm, kPage);
  EXPECT_TRUE(SealMemory(fd.get()).has_value());
}

}  // namespace
}  // namespace hatchery::tmpl
