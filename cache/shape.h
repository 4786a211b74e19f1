// What an acquire or a pool may ask of a template.
#pragma once

#include <cstdint>

#include "template/manifest.h"

namespace hatchery::cache {

// From the sizes it was booted with up to its maxima, memory in whole blocks. kInvalidArgument
// names the field.
Result<void> CheckShape(const tmpl::Shape& shape, std::uint32_t vcpus, Bytes memory);

}  // namespace hatchery::cache
