// The decisions of a torture, all from one seed. Each step of each player has dice of its own,
// thrown in the same order in every run, so that a seed gives the same schedule of decisions
// whatever came of them; what they meet when they are carried out is up to the machine.
#pragma once

#include <cstdint>
#include <string_view>

namespace hatchery::torture {

class Dice {
 public:
  Dice(std::uint64_t seed, std::string_view player, std::uint64_t step) : state_(seed) {
    for (const char c : player) state_ = Mix(state_ + static_cast<unsigned char>(c));
    state_ = Mix(state_ + step);
  }

  std::uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15); }
  // From 0 to n - 1.
  std::uint64_t Below(std::uint64_t n) { return Next() % n; }
  std::int64_t Between(std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(Below(static_cast<std::uint64_t>(most - least) + 1));
  }
  bool Chance(unsigned percent) { return Below(100) < percent; }

 private:
  // SplitMix64's (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
  static std::uint64_t Mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t state_;
};

}  // namespace hatchery::torture
