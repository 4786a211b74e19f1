#include "cache/popular.h"

#include <algorithm>
#include <vector>

namespace hatchery::cache {

bool Popular::Asked(const PooledShape& shape, WallTime now) {
  if (!settings_.enabled) return false;
  if (!shapes_.contains(shape) && shapes_.size() >= kMaxShapes) {
    shapes_.erase(std::ranges::min_element(
        shapes_, {}, [](const auto& known) { return known.second.asked.back(); }));
  }
  Demand& demand = shapes_[shape];
  demand.asked.push_back(now);
  const std::size_t enough = std::size_t{settings_.after} * settings_.size;
  while (demand.asked.size() > enough || now - demand.asked.front() > settings_.window) {
    demand.asked.pop_front();
  }
  return SizeFor(demand) > demand.size;
}

void Popular::Restore(const PooledShape& shape, std::uint32_t size, WallTime now) {
  if (settings_.enabled) shapes_[shape] = {{now}, std::min(size, settings_.size)};
}

void Popular::Forget(const PooledShape& shape) { shapes_.erase(shape); }

std::uint32_t Popular::SizeFor(const Demand& demand) const {
  const auto fits = static_cast<std::uint32_t>(demand.asked.size() / settings_.after);
  const std::uint32_t size = std::min(fits, settings_.size);
  if (size >= demand.size) return size;
  return std::min(demand.size, size + 1);
}

void Popular::Expire(WallTime now) {
  for (auto& [shape, demand] : shapes_) {
    std::erase_if(demand.asked, [&](WallTime at) { return now - at > settings_.window; });
  }
  std::erase_if(shapes_, [](const auto& known) { return known.second.asked.empty(); });
}

std::map<PooledShape, std::uint32_t> Popular::Wanted(WallTime now) {
  Expire(now);
  std::vector<std::pair<const PooledShape, Demand>*> by_demand;
  for (auto& known : shapes_) by_demand.push_back(&known);
  const auto weight = [](const auto* known) {
    return known->second.asked.size() * (known->second.size > 0 ? 2 : 1);
  };
  std::ranges::sort(by_demand, [&](const auto* a, const auto* b) {
    return std::pair(weight(b), a->first) < std::pair(weight(a), b->first);
  });
  std::map<PooledShape, std::uint32_t> wanted;
  std::map<std::string, std::uint32_t> pools;  // by template
  std::uint64_t room = settings_.memory.count();
  for (auto* known : by_demand) {
    auto& [shape, demand] = *known;
    const auto fits = room / std::max<std::uint64_t>(1, shape.memory.count());
    demand.size = static_cast<std::uint32_t>(std::min<std::uint64_t>(SizeFor(demand), fits));
    if (pools[shape.template_name] == settings_.pools) demand.size = 0;
    if (demand.size == 0) continue;
    ++pools[shape.template_name];
    room -= demand.size * shape.memory.count();
    wanted.emplace(shape, demand.size);
  }
  return wanted;
}

}  // namespace hatchery::cache
