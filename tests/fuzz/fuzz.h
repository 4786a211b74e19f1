// What every fuzz target is: one function that takes any bytes and comes back. Built by the preset
// `fuzz` it is libFuzzer's; built otherwise, replay.cc calls it with the files of its corpus.
//
// A target checks more than that nothing crashes: what was read is the same after it was written
// and read again, an error says something, no exception escapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/status.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace hatchery::fuzz {

inline std::string_view Text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Ends the process, as a crash does, unless `holds`.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: does not hold: %s\n", what);
  std::abort();
}

template <class T>
void RequireWords(const Result<T>& result) {
  Require(result || !result.error().message.empty(), "an error says what is wrong");
}

}  // namespace hatchery::fuzz
