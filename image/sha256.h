// SHA-256, in lower-case hexadecimal digits. Blocking: large files belong on a worker.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hatchery::image {

std::string Sha256(std::string_view content);
Result<std::string> Sha256File(const std::filesystem::path& path);

}  // namespace hatchery::image
