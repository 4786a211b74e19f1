// The rules of the house that a program can check: who includes whom, which library is known where,
// how long files get, and how they are formatted.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "base/run.h"

namespace hatchery {
namespace {

const fs::path kRoot = HATCHERY_SOURCE_DIR;

// A folder and what it may include besides itself and proto's generated headers.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {}},
    {"hypervisor", {"base"}},
    {"agent", {"base"}},
    {"template", {"base", "hypervisor", "agent"}},
    {"factory", {"base", "hypervisor", "agent", "template"}},
    {"cache", {"base", "hypervisor", "agent", "template", "factory"}},
    {"image", {"base"}},
};

// Libraries that only these places may know.
const std::map<std::string, std::vector<std::string>> kKnownOnlyIn = {
    {"<grpcpp/", {"cache/rpc/", "cmd/", "bench/", "tests/"}},
    {"<rocksdb/", {"cache/rocksdb_store.cc"}},
    {"<toml", {"cmd/hatcheryd/"}},
    {"<CLI/", {"cmd/", "bench/", "tests/"}},
    {"<openssl/", {"base/sha256.cc", "cache/rpc/tls.cc"}},
    {"\"hypervisor/qemu/", {"hypervisor/qemu/", "cmd/", "bench/", "tests/"}},
    {"\"hypervisor/fake/", {"hypervisor/fake/", "cmd/", "bench/", "tests/"}},
};

constexpr std::size_t kMaxLines = 500;

struct Source {
  std::string path;  // from the root
  std::vector<std::string> lines;
};

std::vector<Source> Sources() {
  std::vector<Source> all;
  for (const char* folder : {"agent", "base", "bench", "cache", "cmd", "factory", "hypervisor",
                             "image", "template", "tests"}) {
    if (!fs::exists(kRoot / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      const auto extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc") continue;
      Source source{entry.path().lexically_relative(kRoot).string(), {}};
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);) source.lines.push_back(line);
      all.push_back(std::move(source));
    }
  }
  EXPECT_GT(all.size(), 50u) << "looked in the wrong place: " << kRoot;
  return all;
}

TEST(Tree, ArrowsPointDown) {
  for (const auto& source : Sources()) {
    const auto folder = source.path.substr(0, source.path.find('/'));
    const auto allowed = kMayInclude.find(folder);
    if (allowed == kMayInclude.end()) continue;
    for (const auto& line : source.lines) {
      if (!line.starts_with("#include \"")) continue;
      const auto included = line.substr(10, line.find('/') - 10);
      const bool fine = included == folder || allowed->second.contains(included) ||
                        !kMayInclude.contains(included);
      EXPECT_TRUE(fine && included != "cmd" && included != "tests") << source.path << ": " << line;
    }
  }
}

TEST(Tree, LibrariesAreKnownOnlyWhereTheyBelong) {
  for (const auto& source : Sources()) {
    for (const auto& line : source.lines) {
      if (!line.starts_with("#include ")) continue;
      for (const auto& [library, places] : kKnownOnlyIn) {
        if (!line.substr(9).starts_with(library)) continue;
        EXPECT_TRUE(std::ranges::any_of(
            places, [&](const std::string& place) { return source.path.starts_with(place); }))
            << source.path << ": " << line;
      }
    }
  }
}

TEST(Tree, FilesStayReadable) {
  for (const auto& source : Sources()) {
    EXPECT_LE(source.lines.size(), kMaxLines) << source.path;
  }
}

TEST(Tree, HeadersSayWhatTheyAreFor) {
  for (const auto& source : Sources()) {
    if (!source.path.ends_with(".h")) continue;
    ASSERT_FALSE(source.lines.empty()) << source.path;
    EXPECT_TRUE(source.lines[0].starts_with("// ")) << source.path;
  }
}

TEST(Tree, TestsNeitherSleepNorSkip) {
  // Put together here, so that this file does not find itself.
  const std::vector<std::string> forbidden = {
      std::string("GTEST_") + "SKIP", std::string("DISABLED") + "_", std::string("sleep_") + "for(",
      std::string("u") + "sleep("};
  for (const auto& source : Sources()) {
    if (!source.path.starts_with("tests/")) continue;
    for (const auto& line : source.lines) {
      for (const auto& word : forbidden) {
        EXPECT_EQ(line.find(word), std::string::npos) << source.path << ": " << line;
      }
    }
  }
}

TEST(Tree, EverythingIsFormatted) {
  asio::io_context io;
  PosixSpawner spawner(io.get_executor());
  std::vector<std::string> command = {"clang-format-19", "--dry-run", "--Werror"};
  for (const auto& source : Sources()) command.push_back((kRoot / source.path).string());
  auto output = RunUntilDone(io, RunCommand(spawner, command, After(std::chrono::seconds(100))));
  ASSERT_TRUE(output.has_value()) << ToString(output.error());
  EXPECT_EQ(ToString(output->status), "exit code 0") << output->err.substr(0, 4000);
}

}  // namespace
}  // namespace hatchery
