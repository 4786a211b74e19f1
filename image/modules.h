// Which kernel modules an initramfs needs, and in what order they load. Pure functions on the text
// of depmod's files (modules.dep(5)).
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hatchery::image {

struct ModuleIndex {
  std::map<std::string, std::string> paths;               // by name, '-' written as '_'
  std::map<std::string, std::vector<std::string>> needs;  // by path, as modules.dep lists them
  std::set<std::string> builtin;                          // names
};

// kDataLoss when a line of modules.dep has no colon.
Result<ModuleIndex> ParseModuleIndex(std::string_view modules_dep,
                                     std::string_view modules_builtin);

// Paths under /lib/modules/VERSION, each after all that it needs, otherwise in the order of
// `wanted` (names, with '-' or '_'). Built-in ones are left out. kNotFound names a module that the
// kernel does not have; kFailedPrecondition on dependencies that go round in a circle.
Result<std::vector<std::string>> LoadOrder(const ModuleIndex& index,
                                           std::span<const std::string_view> wanted);

}  // namespace hatchery::image
