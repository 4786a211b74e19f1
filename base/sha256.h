// SHA-256, through OpenSSL.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

struct evp_md_ctx_st;

namespace hatchery {

inline constexpr std::size_t kSha256Size = 32;

// A hash in the making. Not thread-safe; any thread may own one.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::string_view bytes);
  // 32 raw bytes. The object is spent afterwards.
  std::string Finish();

 private:
  evp_md_ctx_st* context_;
};

// 32 raw bytes.
std::string Sha256Of(std::string_view bytes);

// The hash of a file's content, in hexadecimal. Blocking: for a worker. kNotFound and the like name
// the file.
Result<std::string> Sha256OfFile(const std::string& path);

}  // namespace hatchery
