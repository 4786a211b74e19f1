#include "cache/shape.h"

namespace hatchery::cache {

Result<void> CheckShape(const tmpl::Shape& shape, std::uint32_t vcpus, Bytes memory) {
  if (vcpus < shape.vcpus) {
    return InvalidArgument("vcpus", std::to_string(vcpus) + " is less than the template's " +
                                        std::to_string(shape.vcpus) + "; a VM can only grow");
  }
  if (vcpus > shape.max_vcpus) {
    return InvalidArgument("vcpus", std::to_string(vcpus) +
                                        " is more than the template's maximum " +
                                        std::to_string(shape.max_vcpus));
  }
  if (memory < shape.memory) {
    return InvalidArgument("memory_bytes", ToString(memory) + " is less than the template's " +
                                               ToString(shape.memory) + "; a VM can only grow");
  }
  if (memory > shape.max_memory) {
    return InvalidArgument(
        "memory_bytes",
        ToString(memory) + " is more than the template's maximum " + ToString(shape.max_memory));
  }
  if (!memory.IsMultipleOf(hypervisor::kMemoryBlock)) {
    return InvalidArgument("memory_bytes", ToString(memory) + " is not a multiple of " +
                                               ToString(hypervisor::kMemoryBlock) +
                                               ", the guest's memory block");
  }
  return {};
}

}  // namespace hatchery::cache
