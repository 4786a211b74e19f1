// Which shapes are asked for often: they get pools of their own without being told. Pure policy,
// fed with (shape, time) pairs, that answers which pools there should be.
//
//   - A shape gets a pool when it was asked for `after` times within `window`, and loses it when a
//     whole window has passed without anybody asking.
//   - Its pool keeps one warm VM for each `after` requests in the window, at most `size`. It grows
//     at once, and shrinks only when it is two too large, so that it does not go to and fro.
//   - A template has at most `pools` of them, and all together have at most `memory`, counted as
//     their guests see it (an idle clone costs its host a small part of that). Where there is no
//     room for all, those asked for most have it; one that has a pool counts double, so that two
//     shapes in equal demand do not take turns.
//
// What is remembered is bounded: kMaxShapes shapes, the least recently asked for is forgotten
// first, and of each no more requests than make a difference. Not thread-safe.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "base/bytes.h"
#include "base/clock.h"

namespace hatchery::cache {

struct PooledShape {
  std::string template_name;
  std::uint32_t vcpus = 0;
  Bytes memory;
  auto operator<=>(const PooledShape&) const = default;
};

struct LearnSettings {
  bool enabled = true;
  // Once a minute on average, over as long as a pool outlives its last request: somebody who tries
  // things out at a prompt does not get there.
  std::uint32_t after = 10;
  std::chrono::nanoseconds window = std::chrono::minutes(10);
  std::uint32_t size = 4;
  std::uint32_t pools = 4;  // per template
  Bytes memory = Bytes::GiB(4);
};

class Popular {
 public:
  static constexpr std::size_t kMaxShapes = 256;

  explicit Popular(const LearnSettings& settings) : settings_(settings) {}

  // True if this request makes a difference to Wanted().
  bool Asked(const PooledShape& shape, WallTime now);

  // A pool of this many that was learned before a restart: it has a window to be asked for again.
  void Restore(const PooledShape& shape, std::uint32_t size, WallTime now);

  void Forget(const PooledShape& shape);

  // The pools there should be now, and how many VMs each keeps.
  std::map<PooledShape, std::uint32_t> Wanted(WallTime now);

 private:
  struct Demand {
    std::deque<WallTime> asked;  // oldest first, none before the window, never empty
    std::uint32_t size = 0;      // of the pool it has; 0: none
  };
  // How large its pool should be, with as much room as it likes.
  std::uint32_t SizeFor(const Demand& demand) const;
  void Expire(WallTime now);

  LearnSettings settings_;
  std::map<PooledShape, Demand> shapes_;
};

}  // namespace hatchery::cache
