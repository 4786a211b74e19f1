#include "image/modules.h"

#include <algorithm>
#include <ranges>

namespace hatchery::image {

namespace {

// "kernel/drivers/virtio/virtio-rng.ko.xz" is the module virtio_rng.
std::string NameOf(std::string_view path) {
  std::string name(path.substr(path.rfind('/') + 1));
  name.resize(std::min(name.size(), name.find(".ko")));
  std::ranges::replace(name, '-', '_');
  return name;
}

std::vector<std::string_view> Words(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> words;
  for (;;) {
    const auto start = text.find_first_not_of(separators);
    if (start == std::string_view::npos) return words;
    text.remove_prefix(start);
    words.push_back(text.substr(0, text.find_first_of(separators)));
    text.remove_prefix(words.back().size());
  }
}

class Sorter {
 public:
  explicit Sorter(const ModuleIndex& index) : index_(index) {}

  Result<void> Add(const std::string& path) {
    const auto [state, is_new] = states_.emplace(path, State::kOpen);
    if (!is_new && state->second == State::kDone) return {};
    if (!is_new) return FailedPrecondition("kernel module " + path + " needs itself");
    const auto needs = index_.needs.find(path);
    if (needs == index_.needs.end()) {
      return NotFound("kernel module " + path + " is needed, but modules.dep does not have it");
    }
    // modules.dep lists what is needed first last.
    for (const auto& need : needs->second | std::views::reverse) RETURN_IF_ERROR(Add(need));
    states_[path] = State::kDone;
    order_.push_back(path);
    return {};
  }
  std::vector<std::string> order() && { return std::move(order_); }

 private:
  enum class State { kOpen, kDone };
  const ModuleIndex& index_;
  std::map<std::string, State> states_;
  std::vector<std::string> order_;
};

}  // namespace

Result<ModuleIndex> ParseModuleIndex(std::string_view modules_dep,
                                     std::string_view modules_builtin) {
  ModuleIndex index;
  for (const auto line : Words(modules_dep, "\n")) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) {
      return DataLoss("modules.dep has a line without a colon: " + std::string(line));
    }
    const std::string path(line.substr(0, colon));
    index.paths[NameOf(path)] = path;
    auto& needs = index.needs[path];
    for (const auto need : Words(line.substr(colon + 1), " \t")) needs.emplace_back(need);
  }
  for (const auto line : Words(modules_builtin, "\n")) index.builtin.insert(NameOf(line));
  return index;
}

Result<std::vector<std::string>> LoadOrder(const ModuleIndex& index,
                                           std::span<const std::string_view> wanted) {
  Sorter sorter(index);
  for (const auto name : wanted) {
    const std::string key = NameOf(name);
    const auto path = index.paths.find(key);
    if (path != index.paths.end()) {
      RETURN_IF_ERROR(sorter.Add(path->second));
    } else if (!index.builtin.contains(key)) {
      return NotFound("the kernel has no module " + std::string(name) +
                      ", neither built in nor loadable; choose another kernel package");
    }
  }
  return std::move(sorter).order();
}

}  // namespace hatchery::image
