#include "base/sha256.h"

#include <fcntl.h>
#include <openssl/evp.h>

#include <cerrno>
#include <cstdlib>

#include "base/fd.h"
#include "base/ids.h"

namespace hatchery {

namespace {

// OpenSSL fails here only without memory or without SHA-256: nothing to carry on with.
void Require(bool succeeded) {
  if (!succeeded) std::abort();
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  Require(context_ != nullptr);
  Require(EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

void Sha256::Update(std::string_view bytes) {
  Require(EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::Finish() {
  std::string hash(kSha256Size, '\0');
  unsigned size = 0;
  Require(EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(hash.data()), &size) == 1);
  Require(size == kSha256Size);
  return hash;
}

std::string Sha256Of(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

Result<std::string> Sha256OfFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return ErrnoError(errno, "opening " + path);
  Sha256 hash;
  std::string buffer(1 << 20, '\0');
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError(errno, "reading " + path);
    if (n == 0) return ToHex(hash.Finish());
    hash.Update(std::string_view(buffer).substr(0, static_cast<std::size_t>(n)));
  }
}

}  // namespace hatchery
