#include "base/ids.h"

#include <sys/random.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>

namespace hatchery {

std::string RandomBytes(std::size_t count) {
  std::string bytes(count, '\0');
  std::size_t have = 0;
  while (have < count) {
    const ssize_t n = ::getrandom(bytes.data() + have, count - have, 0);
    if (n < 0 && errno != EINTR) std::abort();  // a kernel without getrandom cannot run us
    if (n > 0) have += static_cast<std::size_t>(n);
  }
  return bytes;
}

std::string ToHex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

Result<std::string> FromHex(std::string_view text) {
  auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    const int high = digit(text[i]), low = digit(text[i + 1]);
    if (high < 0 || low < 0) return MakeError(Code::kInvalidArgument, "not hexadecimal");
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  if (text.size() % 2 != 0) return MakeError(Code::kInvalidArgument, "odd number of digits");
  return bytes;
}

std::string NewId(std::string_view prefix) {
  return std::string(prefix) + "-" + ToHex(RandomBytes(8));
}

Result<void> ValidateName(std::string_view field, std::string_view name) {
  constexpr std::size_t kMaxNameLength = 63;
  const auto shown = std::string(name.substr(0, kMaxNameLength + 1));
  if (name.empty()) return InvalidArgument(std::string(field), "must not be empty");
  if (name.size() > kMaxNameLength) {
    return InvalidArgument(std::string(field), "'" + shown + "…' is longer than 63 characters");
  }
  if (!std::isalnum(static_cast<unsigned char>(name[0]))) {
    return InvalidArgument(std::string(field),
                           "'" + shown + "' must start with a letter or a digit");
  }
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-') continue;
    return InvalidArgument(std::string(field),
                           "'" + shown + "' may hold only letters, digits, '.', '_' and '-'");
  }
  return {};
}

}  // namespace hatchery
