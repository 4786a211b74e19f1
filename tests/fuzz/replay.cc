// Calls a fuzz target with every file of the folders it is given: its corpus, as an ordinary test.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/files.h"
#include "tests/fuzz/fuzz.h"

int main(int argc, char** argv) {
  using namespace hatchery;
  std::vector<fs::path> files;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : fs::directory_iterator(argv[i])) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const auto& file : files) {
    const auto bytes = ReadFile(file);
    fuzz::Require(bytes.has_value(), "the corpus can be read");
    std::printf("%s\n", file.c_str());
    std::fflush(stdout);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes->data()), bytes->size());
  }
  fuzz::Require(!files.empty(), "the corpus has files");
  return 0;
}
