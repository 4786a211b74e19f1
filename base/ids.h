// Ids and names. Each kind is a type of its own, so that one cannot be passed for another.
#pragma once

#include <compare>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace hatchery {

template <class Tag>
class StringId {
 public:
  StringId() = default;
  explicit StringId(std::string value) : value_(std::move(value)) {}
  const std::string& str() const { return value_; }
  bool empty() const { return value_.empty(); }
  friend auto operator<=>(const StringId&, const StringId&) = default;

 private:
  std::string value_;
};

using VmId = StringId<struct VmIdTag>;                      // "vm-6f1c…", made by the cache
using TemplateDigest = StringId<struct TemplateDigestTag>;  // 64 hexadecimal digits, SHA-256
using LeaseId = StringId<struct LeaseIdTag>;                // "lease-6f1c…"
using RequestId = StringId<struct RequestIdTag>;            // chosen by the client

// `count` bytes from the kernel's random number generator.
std::string RandomBytes(std::size_t count);

std::string ToHex(std::string_view bytes);
// kInvalidArgument unless `text` is an even number of hexadecimal digits.
Result<std::string> FromHex(std::string_view text);

// "<prefix>-" and 16 random hexadecimal digits.
std::string NewId(std::string_view prefix);

// Names that come from outside (templates, pools, sandboxes, tenants) become map keys, log fields
// and parts of paths: 1 to 63 characters of [a-z0-9A-Z._-], starting with a letter or digit.
// kInvalidArgument names `field`.
Result<void> ValidateName(std::string_view field, std::string_view name);

}  // namespace hatchery

template <class Tag>
struct std::hash<hatchery::StringId<Tag>> {
  std::size_t operator()(const hatchery::StringId<Tag>& id) const {
    return std::hash<std::string>()(id.str());
  }
};
