// The default guest: a Debian kernel and an initramfs that holds the agent as /init, busybox, and
// the kernel modules by which host and guest find each other. The initramfs is the guest's root; a
// disk image as root would be a further file of GuestImage.
//
// Everything is built in a folder that may be used meanwhile: image.json, which says what the files
// are made of, goes first and comes back last, so that Find() sees a whole image or none. The same
// inputs give the same bytes, and are built once.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/offload.h"
#include "base/process.h"
#include "base/task.h"

namespace hatchery::image {

struct GuestImage {
  std::filesystem::path kernel;  // vmlinuz, as the package has it
  std::filesystem::path initrd;
  bool operator==(const GuestImage&) const = default;
};

struct BuildOptions {
  std::filesystem::path out_dir;
  // The agent that becomes /init: a static hatchery-agent, or another that sets the machine up and
  // answers on the virtio-serial port org.hatchery.agent.0.
  std::filesystem::path agent;
  // Downloaded packages are kept here; empty: "packages" in out_dir.
  std::filesystem::path cache_dir = {};
  // A kernel, or a metapackage that depends on one (linux-image-amd64 has VMGENID and 9p).
  std::string kernel_package = "linux-image-cloud-amd64";
};

// Builds the image in out_dir, or finds that it is there already. `progress` is told, line by line,
// what is being done; it is called on the loop. Errors say what to do about them:
// kFailedPrecondition (the agent is not static, a tool is missing, another build is running),
// kNotFound (no such package), kResourceExhausted (disk full), kPermissionDenied. On failure,
// out_dir keeps the image it had unless publishing had begun, and then has none.
Task<GuestImage> Build(ProcessSpawner& spawner, WorkerPool& workers, BuildOptions options,
                       std::function<void(std::string)> progress, Deadline deadline);

// The image in a folder, if a complete one is there. Reads image.json and the files' sizes, not
// their content.
std::optional<GuestImage> Find(const std::filesystem::path& dir);

// Where images are kept unless told otherwise: /var/lib/hatchery/image for root, else
// hatchery/image in $XDG_DATA_HOME or ~/.local/share.
std::filesystem::path DefaultDir();

}  // namespace hatchery::image
