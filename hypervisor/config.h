// What a VM is made of: the validated description from which a driver creates it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"

namespace hatchery::hypervisor {

// How guest instructions run. kAuto is a wish, for configuration only: whoever boots resolves it to
// one of the others first (template/boot.h), because /dev/kvm can exist and still not run a guest.
enum class Accelerator { kAuto, kKvm, kTcg };
std::string_view Name(Accelerator accelerator);  // "auto", "kvm", "tcg"
Result<Accelerator> ParseAccelerator(std::string_view text);

// Limits of what may be asked for, whatever the host has.
inline constexpr std::uint32_t kMaxVcpus = 240;  // q35 with xAPIC allows 255
inline constexpr Bytes kMaxMemory = Bytes::GiB(1024);
// Hot-plugged memory comes in the guest kernel's memory blocks (x86-64 below 64 GiB: 128 MiB).
inline constexpr Bytes kMemoryBlock = Bytes::MiB(128);
inline constexpr std::uint32_t kMemorySlots = 8;

struct VmConfig {
  VmId id;
  // An existing folder of this VM alone, mode 0700: sockets and the console log go there. The
  // caller made it and removes it after Stop().
  std::filesystem::path run_dir;

  // The guest. A kernel, and exactly one of initrd and image (a raw disk that holds the root
  // filesystem; the guest sees it read-only, so that clones can share it with their template).
  // Clones keep kernel and initrd empty, for theirs are in the template's memory; they name the
  // image when their template was booted with one, because its disk is one of the devices.
  std::filesystem::path kernel;
  std::filesystem::path initrd;
  std::filesystem::path image;
  std::string kernel_params;  // appended to those of the driver

  Accelerator accelerator = Accelerator::kAuto;

  // 0 means "default", which Validate() fills in: 1 vCPU and 2048 MiB at start; as maxima
  // (start plus everything that can be hot-added) the larger of the start value and 8 vCPUs, or of
  // the start value and 8 GiB.
  std::uint32_t vcpus = 0;
  std::uint32_t max_vcpus = 0;
  Bytes memory;
  Bytes max_memory;

  // Template use. At most one of the two; either needs `template_memory_fd`, which stays the
  // caller's: for kToBe a writable memfd of `memory` bytes that becomes the guest's RAM (shared),
  // for kFrom a sealed one that is mapped privately, copy-on-write.
  bool boot_to_be_template = false;
  bool boot_from_template = false;
  int template_memory_fd = -1;

  // Its vsock context id, which the driver chooses in Start() whatever is given; 0: it has none.
  std::uint32_t cid = 0;
};

// Only the defaults of vcpus, memory and their maxima; checks nothing.
VmConfig WithDefaults(VmConfig config);

// Fills defaults and checks every field. kInvalidArgument names the field by its name above: an
// id that is no name; a run_dir that is no folder; missing kernel; both or neither of initrd and
// image; paths that do not exist or are not files; memory that is not a multiple of kMemoryBlock;
// more than the maxima; both template uses at once; a template use without its memory, or a memory
// of another size, or, for a clone, one that is not sealed against writing; a clone with a kernel;
// an accelerator still kAuto.
Result<VmConfig> Validate(VmConfig config);

}  // namespace hatchery::hypervisor
