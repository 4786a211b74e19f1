// Doctor's proof: the default guest is booted for real, since nothing less says whether KVM works.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cmd/hatchery/doctor.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::cli {

// Boots the guest of `image_dir` until its agent answers: under KVM if `kvm` (its device was found
// good), and under emulation if that does not work. Takes up to a minute and a half on a bad host,
// a few seconds on a good one, and tells `progress` what it waits for; what it starts is gone
// afterwards, also after an interrupt.
std::vector<Finding> CheckBoots(const std::filesystem::path& image_dir,
                                const std::string& qemu_binary, bool kvm,
                                const std::function<void(std::string)>& progress,
                                Interrupt& interrupt);

}  // namespace hatchery::cli
