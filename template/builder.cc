#include "template/builder.h"

#include <optional>

#include "base/log.h"
#include "base/notifier.h"
#include "base/sha256.h"
#include "template/memory.h"

namespace hatchery::tmpl {

namespace {

using Loaded = std::shared_ptr<const LoadedTemplate>;
using hypervisor::Accelerator;

hypervisor::VmConfig ConfigOf(const BuildRequest& request) {
  hypervisor::VmConfig config;
  config.id = request.vm_id;
  config.kernel = request.kernel;
  config.initrd = request.initrd;
  config.image = request.image;
  config.kernel_params = request.kernel_params;
  config.accelerator = request.accelerator;
  config.vcpus = request.shape.vcpus;
  config.max_vcpus = request.shape.max_vcpus;
  config.memory = request.shape.memory;
  config.max_memory = request.shape.max_memory;
  config.boot_to_be_template = true;
  return hypervisor::WithDefaults(std::move(config));
}

// What a driver is asked to describe: made from the manifest alone, so that building a template and
// checking it later ask for the same.
hypervisor::VmConfig DescribedConfig(const std::map<std::string, std::string>& inputs,
                                     const Shape& shape, Accelerator accelerator) {
  auto input = [&](const char* name) {
    const auto found = inputs.find(name);
    return found == inputs.end() ? std::string() : found->second;
  };
  hypervisor::VmConfig config;
  config.image = input("image_path");
  config.kernel_params = input("kernel_params");
  config.accelerator = accelerator;
  config.vcpus = shape.vcpus;
  config.max_vcpus = shape.max_vcpus;
  config.memory = shape.memory;
  config.max_memory = shape.max_memory;
  return config;
}

// Before anything is hashed or made; the driver looks closer.
Result<void> CheckRequest(const BuildRequest& request) {
  RETURN_IF_ERROR(ValidateName("vm_id", request.vm_id.str()));
  if (request.kernel.empty()) return InvalidArgument("kernel", "must name a kernel image");
  if (request.initrd.empty() == request.image.empty()) {
    return InvalidArgument("initrd", "exactly one of initrd and image must be given");
  }
  const hypervisor::VmConfig config = ConfigOf(request);
  if (!config.memory.IsMultipleOf(hypervisor::kMemoryBlock)) {
    return InvalidArgument("memory", ToString(config.memory) + " is not a multiple of " +
                                         ToString(hypervisor::kMemoryBlock));
  }
  return {};
}

// The files of a guest, by what they are called in Manifest::inputs.
std::map<std::string, std::filesystem::path> FilesOf(const BuildRequest& request) {
  std::map<std::string, std::filesystem::path> files = {{"kernel", request.kernel}};
  if (!request.initrd.empty()) files["initrd"] = request.initrd;
  if (!request.image.empty()) files["image"] = request.image;
  return files;
}

// Store::Publish(), cancelled at the deadline.
Task<Loaded> PublishBefore(Store& store, Manifest manifest, UniqueFd memory, UniqueFd state,
                           Deadline deadline) {
  const Executor executor = co_await asio::this_coro::executor;
  std::optional<Result<Loaded>> result;
  Notifier changed(executor);
  TaskScope scope(executor);
  auto publish = [&]() -> asio::awaitable<void> {
    result = co_await store.Publish(std::move(manifest), std::move(memory), std::move(state));
    changed.NotifyAll();
  };
  scope.Spawn("publish a template", publish());
  std::optional<Error> stopped;
  if (co_await IsCancelled()) stopped = Error{Code::kCancelled, "cancelled"};
  while (!result && !stopped) {
    if (auto woken = co_await changed.Wait(deadline); !woken) stopped = woken.error();
  }
  scope.Cancel();
  co_await scope.Join();
  // It may have been through all the same.
  if (stopped && !*result) co_return Annotate(*stopped, "publishing the template");
  co_return *std::move(result);
}

}  // namespace

Builder::Builder(hypervisor::Driver& driver, Booter& booter, Store& store, WorkerPool& workers)
    : driver_(driver), booter_(booter), store_(store), workers_(workers) {}

Task<std::string> Builder::HashFile(std::filesystem::path path) {
  ASSIGN_OR_CO_RETURN(const std::string identity, FileIdentity(path));
  if (const auto known = hashes_.find(path);
      known != hashes_.end() && known->second.identity == identity) {
    co_return known->second.sha256;
  }
  ASSIGN_OR_CO_RETURN(std::string hash,
                      co_await workers_.Run([path] { return Sha256OfFile(path); }));
  hashes_[path] = {identity, hash};
  co_return hash;
}

Task<Builder::Inputs> Builder::HashInputs(const BuildRequest& request) {
  Inputs inputs = {{"driver", std::string(driver_.name())},
                   {"kernel_params", request.kernel_params}};
  if (!request.image.empty()) inputs["image_path"] = request.image;
  for (const auto& [name, path] : FilesOf(request)) {
    ASSIGN_OR_CO_RETURN(inputs[name], co_await HashFile(path));
  }
  co_return inputs;
}

Task<Loaded> Builder::FindReusable(const BuildRequest& request, const Inputs& inputs,
                                   const Shape& shape, Deadline deadline) {
  if (request.force || request.current.empty()) co_return nullptr;
  auto current = store_.Get(request.current);
  if (!current) {
    log::Warning({.tmpl = request.current.str()}, "building anew: " + current.error().message);
    co_return nullptr;
  }
  const bool any = request.accelerator == Accelerator::kAuto;
  if (!any && request.accelerator != current->accelerator) co_return nullptr;
  if (!driver_.MayHave(current->accelerator)) co_return nullptr;
  ASSIGN_OR_CO_RETURN(
      const auto fingerprint,
      co_await driver_.Describe(DescribedConfig(inputs, shape, current->accelerator), deadline));
  if (ComputeInputsHash(inputs, fingerprint, shape) !=
      ComputeInputsHash(current->inputs, current->fingerprint, current->shape)) {
    co_return nullptr;
  }
  auto loaded = co_await store_.Load(request.current);
  if (!loaded && loaded.error().code == Code::kDataLoss) {
    log::Warning({.tmpl = request.current.str()}, "building anew: " + loaded.error().message);
    co_return nullptr;
  }
  co_return loaded;
}

Task<UniqueFd> Builder::Save(BootedVm& booted, Manifest& manifest, const Steps& steps,
                             Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const auto versions, co_await booted.agent->Version(deadline));
  const bool foreign = versions.protocol != agent::kProtocol;
  manifest.agent_version = (foreign ? "kata-agent " : "") + versions.agent;
  auto prepared = co_await booted.agent->PrepareSave(deadline);
  if (!prepared) {
    if (prepared.error().code != Code::kUnimplemented) co_return std::unexpected(prepared.error());
    log::Info({.vm = booted.vm->config().id.str()},
              "the guest's agent cannot prepare for being saved: its caches are saved too");
  }
  if (steps) steps("saving");
  // Closed before the guest stops: bytes in the channel would be in every clone.
  booted.agent.reset();
  CO_RETURN_IF_ERROR(co_await booted.vm->Pause(deadline));
  ASSIGN_OR_CO_RETURN(UniqueFd state, CreateMemory(Bytes()));
  CO_RETURN_IF_ERROR(co_await booted.vm->Save(state.get(), deadline));
  co_return state;
}

Task<Builder::Built> Builder::Build(BuildRequest request, Steps steps, Deadline deadline) {
  CO_RETURN_IF_ERROR(CheckRequest(request));
  const hypervisor::VmConfig config = ConfigOf(request);
  Manifest manifest;
  manifest.shape = {.vcpus = config.vcpus,
                    .max_vcpus = config.max_vcpus,
                    .memory = config.memory,
                    .max_memory = config.max_memory};
  ASSIGN_OR_CO_RETURN(manifest.inputs, co_await HashInputs(request));
  ASSIGN_OR_CO_RETURN(Loaded reusable,
                      co_await FindReusable(request, manifest.inputs, manifest.shape, deadline));
  if (reusable) co_return Built{.loaded = std::move(reusable), .reused = true};

  if (steps) steps("booting");
  ASSIGN_OR_CO_RETURN(BootedVm booted, co_await booter_.Boot(config, deadline));
  if (steps) steps("agent answers");
  const auto begin = std::chrono::steady_clock::now();
  manifest.accelerator = booted.vm->config().accelerator;
  auto state = co_await Save(booted, manifest, steps, deadline);
  booted.agent.reset();
  // Gone before it is published: what a VMM can still write cannot be sealed.
  auto destroyed = co_await booter_.Destroy(std::move(booted.vm));
  if (!state) co_return Annotate(state.error(), "saving the guest");
  CO_RETURN_IF_ERROR(destroyed);

  // The guest was booted from what was there later than what was hashed; was it the same?
  ASSIGN_OR_CO_RETURN(const Inputs now, co_await HashInputs(request));
  if (now != manifest.inputs) {
    co_return MakeError(Code::kAborted, "a file of the guest changed while it was booted");
  }
  ASSIGN_OR_CO_RETURN(
      manifest.fingerprint,
      co_await driver_.Describe(
          DescribedConfig(manifest.inputs, manifest.shape, manifest.accelerator), deadline));
  manifest.created = std::chrono::system_clock::now();
  if (steps) steps("publishing");
  ASSIGN_OR_CO_RETURN(Loaded loaded,
                      co_await PublishBefore(store_, std::move(manifest), std::move(booted.memory),
                                             *std::move(state), deadline));
  co_return Built{.loaded = std::move(loaded),
                  .boot_time = booted.boot_time,
                  .save_time = std::chrono::steady_clock::now() - begin};
}

Task<void> Builder::CheckCompatible(const Manifest& manifest, Deadline deadline) {
  const std::string who = "template " + manifest.digest.str() + " cannot be cloned here: ";
  if (const auto driver = manifest.inputs.find("driver");
      driver != manifest.inputs.end() && driver->second != driver_.name()) {
    co_return FailedPrecondition(who + "it was built by the driver '" + driver->second + "'");
  }
  ASSIGN_OR_CO_RETURN(
      const auto here,
      co_await driver_.Describe(
          DescribedConfig(manifest.inputs, manifest.shape, manifest.accelerator), deadline));
  const std::string difference = FirstDifference(manifest.fingerprint, here);
  if (!difference.empty()) co_return FailedPrecondition(who + difference);
  if (!driver_.MayHave(manifest.accelerator)) {
    co_return FailedPrecondition(who + "this host has no " +
                                 std::string(Name(manifest.accelerator)));
  }
  const auto path = manifest.inputs.find("image_path");
  if (path == manifest.inputs.end()) co_return Result<void>();
  auto hash = co_await HashFile(path->second);
  if (!hash) co_return FailedPrecondition(who + hash.error().message);
  const auto image = manifest.inputs.find("image");
  if (image == manifest.inputs.end() || *hash != image->second) {
    co_return FailedPrecondition(who + "the image " + path->second + " has changed");
  }
  co_return Result<void>();
}

}  // namespace hatchery::tmpl
