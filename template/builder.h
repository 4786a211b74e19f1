// Making a template: boot, agent answers, caches dropped, channel closed, paused, saved, published.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
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
  // has changed and `force` is not set. With kAuto, any accelerator it was built with will do.
  TemplateDigest current;
};

// "booting", "agent answers", "saving", "publishing": what starts now. Called on the loop; not at
// all when a template is reused.
using Steps = std::function<void(std::string_view step)>;

// Loop thread only.
class Builder {
 public:
  Builder(hypervisor::Driver& driver, Booter& booter, Store& store, WorkerPool& workers);

  struct Built {
    std::shared_ptr<const LoadedTemplate> loaded;
    bool reused = false;
    std::chrono::nanoseconds boot_time{};  // start to agent answering; 0 when reused
    std::chrono::nanoseconds save_time{};  // agent told to prepare until published; likewise
  };

  // The guest must answer before `deadline`, which includes saving and writing. kInvalidArgument or
  // kNotFound name what is wrong with the request; kAborted: a file of the guest changed meanwhile.
  // On failure or cancellation nothing is left: no VMM, no folder, no draft. Of the guest's agent
  // it needs grpc.Health alone; one that has no PrepareSave makes a larger template.
  Task<Built> Build(BuildRequest request, Steps steps, Deadline deadline);

  // Whether clones of `manifest` can run here, now: kFailedPrecondition names the entry of the
  // fingerprint that differs (a VMM was upgraded, the template came from another host), or the disk
  // image whose content did.
  Task<void> CheckCompatible(const Manifest& manifest, Deadline deadline);

 private:
  using Inputs = std::map<std::string, std::string>;

  Task<Inputs> HashInputs(const BuildRequest& request);
  Task<std::string> HashFile(std::filesystem::path path);
  Task<std::shared_ptr<const LoadedTemplate>> FindReusable(const BuildRequest& request,
                                                           const Inputs& inputs, const Shape& shape,
                                                           Deadline deadline);
  // Device state of the VM, which is paused afterwards. Closes the agent's channel.
  Task<UniqueFd> Save(BootedVm& booted, Manifest& manifest, const Steps& steps, Deadline deadline);

  hypervisor::Driver& driver_;
  Booter& booter_;
  Store& store_;
  WorkerPool& workers_;
  // Content hashes by path, good while the file's identity is the same.
  struct Hashed {
    std::string identity;
    std::string sha256;
  };
  std::map<std::filesystem::path, Hashed> hashes_;
};

}  // namespace hatchery::tmpl
