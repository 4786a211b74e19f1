// A template's manifest: the file's bytes, and, since a checksum stands before its content, the
// same bytes as the content of a file whose checksum and digest are right.
#include "template/manifest.h"

#include "base/sha256.h"
#include "hatchery/store/v1/template.pb.h"
#include "tests/fuzz/fuzz.h"

namespace hatchery::tmpl {
namespace {

std::string Wrap(std::string_view payload) {
  std::string bytes = "HATCHTPL";
  for (const std::uint64_t field : {std::uint64_t{1}, std::uint64_t{payload.size()}}) {
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(field >> (8 * i) & 0xff));
  }
  bytes += payload;
  return bytes + Sha256Of(bytes);
}

Result<Manifest> Check(std::string_view bytes) {
  auto manifest = DecodeManifest(bytes);
  fuzz::RequireWords(manifest);
  if (!manifest) return manifest;
  const auto again = DecodeManifest(EncodeManifest(*manifest));
  fuzz::Require(again && again->digest == manifest->digest && again->created == manifest->created &&
                    again->shape == manifest->shape && again->inputs == manifest->inputs &&
                    again->fingerprint == manifest->fingerprint &&
                    again->memory_chunks == manifest->memory_chunks &&
                    again->state_sha256 == manifest->state_sha256,
                "a manifest survives");
  return manifest;
}

}  // namespace
}  // namespace hatchery::tmpl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  const std::string_view bytes = fuzz::Text(data, size);
  (void)tmpl::Check(bytes);
  const auto wrapped = tmpl::Check(tmpl::Wrap(bytes));
  // The error tells what the digest should have been.
  constexpr std::string_view kContentHas = "its content has ";
  if (wrapped) return 0;
  constexpr std::size_t kDigest = 64;
  const auto at = wrapped.error().message.rfind(kContentHas);
  // At its end, or it quotes the input.
  const bool told = at != std::string::npos &&
                    at + kContentHas.size() + kDigest == wrapped.error().message.size();
  store::v1::TemplateManifest message;
  if (!told || !message.ParseFromArray(data, static_cast<int>(size))) return 0;
  message.set_digest(wrapped.error().message.substr(at + kContentHas.size(), kDigest));
  fuzz::Require(tmpl::Check(tmpl::Wrap(message.SerializeAsString())).has_value(),
                "the digest was all that was wrong");
  return 0;
}
