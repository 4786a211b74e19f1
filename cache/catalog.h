// Template names: which version each points at, how a version comes and goes.
//
// A name's current version is kept loaded once it has been used. A version that no name points at
// any more is deleted when the last VM that lives from it is gone. Loop thread only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cache/records.h"
#include "cache/settings.h"
#include "cache/vms.h"
#include "template/builder.h"
#include "template/store.h"

namespace hatchery::cache {

// Files of a guest; exactly one of initrd and image.
struct GuestFiles {
  std::filesystem::path kernel, initrd, image;
};

// Finds the default guest image, or builds it. Injected: where images come from is not the cache's
// business.
using DefaultGuest =
    std::function<Task<GuestFiles>(std::function<void(std::string)> say, Deadline deadline)>;

// What a caller may say of a template to be made; what is empty is taken from Settings.
struct TemplateSpec {
  std::string name;  // empty: "default"
  GuestFiles guest;  // all empty: the default guest
  std::optional<std::string> kernel_params;
  std::optional<std::uint32_t> vcpus, max_vcpus;
  std::optional<Bytes> memory, max_memory;
  std::optional<hypervisor::Accelerator> accelerator;
  std::optional<std::chrono::nanoseconds> boot_timeout;
};

inline constexpr std::string_view kDefaultTemplate = "default";

// `name`, or "default" when it is empty. kInvalidArgument on a name that cannot be one.
Result<std::string> TemplateNameOrDefault(const std::string& name);

struct TemplateInfo {
  std::string name;  // empty: an old version
  TemplateDigest digest;
  Result<tmpl::Manifest> manifest = NotFound("");
  Bytes disk_size;
  std::size_t clones = 0;
  std::string problem;                        // why it cannot be cloned from here, if that is known
  std::optional<WallTime> quarantined_until;  // while its clones keep failing
};

class Catalog {
 public:
  Catalog(Executor executor, KvStore& store, tmpl::Store& templates, tmpl::Builder& builder,
          Vms& vms, const Settings& settings, const Clock& clock, DefaultGuest default_guest);

  // Names as the metadata store has them; one whose version is not on disk is kept and reported.
  void Restore(const std::vector<record::TemplateNameRecord>& names);

  struct Created {
    TemplateInfo info;
    bool reused = false;
    std::chrono::nanoseconds boot_time{}, save_time{};
  };
  // Makes `spec.name` point at a template built from `spec`: the one it has, if nothing that it
  // depends on changed and not `force`. One build at a time per name; a second caller waits. On
  // failure the name is as it was.
  Task<Created> Create(TemplateSpec spec, bool force, std::function<void(std::string)> say,
                       Deadline deadline);
  // Told after a name got another version, or none.
  void OnChanged(std::function<void(const std::string& name)> listener) {
    on_changed_ = std::move(listener);
  }

  // The current version of `name`, loaded. kNotFound names it; kFailedPrecondition when it cannot
  // be cloned from here (see tmpl::Builder::CheckCompatible); kDataLoss when it is damaged.
  Task<std::shared_ptr<const tmpl::LoadedTemplate>> Current(const std::string& name,
                                                            Deadline deadline);
  // The same without waiting: null if it is not loaded yet or there is none.
  std::shared_ptr<const tmpl::LoadedTemplate> IfLoaded(const std::string& name) const;

  // What the current version is, without loading it: for who only wants to know its shape. As
  // Current(), but for the check of what it can be cloned with.
  Result<std::shared_ptr<const tmpl::Manifest>> CurrentManifest(const std::string& name);

  // While closed, both refuse with kFailedPrecondition, so that a drain comes to an end. Each
  // Close() has its Reopen().
  void Close(const std::string& name) { closed_.insert(name); }
  void Reopen(const std::string& name) { closed_.erase(closed_.find(name)); }

  // The same for all names, those that are being made included: Create() refuses, and what it built
  // is deleted.
  void CloseAll() { ++all_closed_; }
  void ReopenAll() { --all_closed_; }
  // Waits until nothing is being built; `told` which name it waits for.
  Task<void> AwaitBuilds(std::function<void(const std::string& name)> told, Deadline deadline);

  // kNotFound when there is no such name.
  Result<TemplateDigest> DigestOf(const std::string& name) const;

  std::vector<TemplateInfo> List() const;
  // By name, by digest, or by the first 12 or more digits of one.
  Result<TemplateInfo> Get(const std::string& name_or_digest) const;
  std::vector<std::string> Names() const;

  Task<void> Verify(const std::string& name_or_digest, tmpl::Progress progress);

  // Forgets a name; its version goes when its last VM is gone. kFailedPrecondition while VMs live
  // from it. (To drain first is the caller's business: cache.h.)
  Task<void> Delete(const std::string& name);

  // Deletes versions that nothing refers to any more. Called when a VM is gone; what could not be
  // deleted is tried again then.
  void Collect();

  asio::awaitable<void> Stop();

 private:
  struct Version {
    TemplateDigest digest;
    std::shared_ptr<const tmpl::LoadedTemplate> loaded;
    std::string problem;
    std::shared_ptr<const tmpl::Manifest> manifest = nullptr;  // once it was asked for
  };
  Result<void> CheckOpen(const std::string& name) const;
  Task<tmpl::BuildRequest> MakeBuildRequest(TemplateSpec spec, std::function<void(std::string)> say,
                                            Deadline deadline);
  Result<void> Point(const std::string& name, std::shared_ptr<const tmpl::LoadedTemplate> loaded);

  Executor executor_;
  KvStore& store_;
  tmpl::Store& templates_;
  tmpl::Builder& builder_;
  Vms& vms_;
  const Settings& settings_;
  const Clock& clock_;
  DefaultGuest default_guest_;
  std::map<std::string, Version> names_;
  std::set<std::string> building_;     // names
  std::multiset<std::string> closed_;  // likewise
  int all_closed_ = 0;
  Notifier build_ended_;
  std::function<void(const std::string&)> on_changed_;
  std::set<TemplateDigest> retired_;  // on disk, without a name
  TaskScope deletions_;
};

}  // namespace hatchery::cache
