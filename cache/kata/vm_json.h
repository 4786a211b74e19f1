// The JSON inside the messages of Kata's VM cache protocol (proto/kata/cache.proto), under the
// names that Kata's Go structs have. Pure functions of what is true of a VM or a template.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/status.h"
#include "hypervisor/driver.h"

namespace hatchery::cache::kata {

// What a client takes a VM over from: GrpcVM.hypervisor.
std::string HypervisorJson(const VmId& id, const std::filesystem::path& control,
                           const hypervisor::Handover& handover);

// What is true of all VMs that are handed over.
struct Facts {
  std::uint32_t vcpus = 0, max_vcpus = 0;
  Bytes memory;
  bool vsock = false;
  std::string kernel_params;  // those that the template was made with, beside the driver's own
  // SHA-256, in hexadecimal, of what the template was made from: "kernel", "initrd", "image".
  std::map<std::string, std::string> inputs;
  // Files that hold just that, where they are known; empty otherwise.
  std::string kernel, initrd, image;
  std::string vmm;  // the VMM's program
};

// GrpcVMConfig.Data and .AgentConfig of a client that would want just these VMs. What is not known
// or has Kata's default is left out.
std::string MakeVmConfig(const Facts& facts);
std::string MakeAgentConfig(const Facts& facts);

// Reads a file's SHA-256, in hexadecimal.
using HashFile = std::function<Result<std::string>(const std::string& path)>;

// Each field of a configuration that is not true of the VMs, in a sentence: "NumVCPUs is 2, and the
// VMs have 1". Empty: a client of this configuration gets what it expects. Blocking, as `hash` is.
std::vector<std::string> Contradictions(std::string_view vm_config, std::string_view agent_config,
                                        const Facts& facts, const HashFile& hash);

}  // namespace hatchery::cache::kata
