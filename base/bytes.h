// Amounts of memory.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hatchery {

// A number of bytes, with its unit in the type.
class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(std::uint64_t count) : count_(count) {}
  static constexpr Bytes KiB(std::uint64_t n) { return Bytes(n << 10); }
  static constexpr Bytes MiB(std::uint64_t n) { return Bytes(n << 20); }
  static constexpr Bytes GiB(std::uint64_t n) { return Bytes(n << 30); }

  constexpr std::uint64_t count() const { return count_; }
  // Rounded down.
  constexpr std::uint64_t mib() const { return count_ >> 20; }
  constexpr bool IsMultipleOf(Bytes unit) const { return count_ % unit.count_ == 0; }

  friend constexpr auto operator<=>(Bytes, Bytes) = default;
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return Bytes(a.count_ + b.count_); }
  friend constexpr Bytes operator-(Bytes a, Bytes b) { return Bytes(a.count_ - b.count_); }
  Bytes& operator+=(Bytes other) {
    count_ += other.count_;
    return *this;
  }

 private:
  std::uint64_t count_ = 0;
};

// "256MiB", "1.5 GiB", "37 KiB", "12 B": at most one decimal, the largest unit that gives one.
std::string ToString(Bytes bytes);

// Reads "256M", "256MiB", "256MB", "1G", "4096K", "1048576": binary units whatever the suffix, as
// QEMU and systemd read them; upper or lower case; a bare number is bytes. kInvalidArgument names
// what was given. Never more than 2^63-1.
Result<Bytes> ParseBytes(std::string_view text);

}  // namespace hatchery
