// Adding vCPUs and memory to a QEMU VM, and taking them away.
#pragma once

#include <memory>

#include "hypervisor/qemu/instance.h"

namespace hatchery::hypervisor::qemu {

// As the verbs of Vm; the caller has checked the state. A failure past the checks of the arguments
// undoes what it can. `*broken` is set where it could not, or where QEMU no longer answers.
Task<void> AddVcpus(std::shared_ptr<Instance> vm, std::uint32_t count, Deadline deadline,
                    bool* broken);
Task<void> AddMemory(std::shared_ptr<Instance> vm, Bytes size, Deadline deadline, bool* broken);
Task<void> RemoveVcpus(std::shared_ptr<Instance> vm, std::uint32_t count, Deadline deadline);
Task<void> RemoveMemory(std::shared_ptr<Instance> vm, Bytes size, Deadline deadline);

// Asks QEMU what was hot-added, for a VM that was taken over.
Task<void> LearnHotAdded(std::shared_ptr<Instance> vm, Deadline deadline);

Bytes HotAddedMemory(const Instance& vm);

}  // namespace hatchery::hypervisor::qemu
