// Making a template: boot, agent answers, caches dropped, channel closed, paused, saved, published.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "template/boot.h"
#include "template/store.h"

namespace hatchery::tmpl {

struct BuildRequest {
  VmId vm_id;  // of the VM that is booted for it and is gone afterwards
  std::filesystem::path kernel;
  std::filesystem::path initrd;  // exactly one of initrd and image
  std::filesystem::path image;
  std::string kernel_params;
  Shape shape;  // zeros mean the defaults of hypervisor/config.h
  hypervisor::Accelerator accelerator = hypervisor::Accelerator::kAuto;
  // Build even if the same inputs were built before.
  bool force = false;
  // The template that is there now under the same name, if any: reused when nothing it depends on
  // has changed and `force` is not set.
  TemplateDigest current;
};

// "booting", "agent answers", "saving", "publishing": what starts now. Called on the loop.
using Steps = std::function<void(std::string_view step)>;

// Loop thread only.
class Builder {
 public:
  Builder(hypervisor::Driver& driver, Booter& booter, Store& store, WorkerPool& workers);

  struct Built {
    std::shared_ptr<const LoadedTemplate> loaded;
    bool reused = false;
    std::chrono::nanoseconds boot_time{};  // start to agent answering; 0 when reused
    std::chrono::nanoseconds save_time{};
  };

  // The guest must answer before `deadline`, which includes saving and writing. On failure or
  // cancellation nothing is left: no VMM, no folder, no draft.
  Task<Built> Build(BuildRequest request, Steps steps, Deadline deadline);

  // Whether clones of `manifest` can run here, now: kFailedPrecondition names the entry of the
  // fingerprint that differs (a VMM was upgraded, the template came from another host).
  Task<void> CheckCompatible(const Manifest& manifest, Deadline deadline);

 private:
  hypervisor::Driver& driver_;
  Booter& booter_;
  Store& store_;
  WorkerPool& workers_;
};

}  // namespace hatchery::tmpl
