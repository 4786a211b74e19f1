#include "cache/catalog.h"

#include "base/log.h"

namespace hatchery::cache {

namespace {

constexpr std::size_t kShortestDigestPrefix = 12;

bool IsHexPrefix(const std::string& text) {
  return text.size() >= kShortestDigestPrefix && text.size() <= 64 &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// Why a template cannot be used, and what to do.
Error Explain(const std::string& name, const Error& why) {
  Error error = Annotate(why, "template '" + name + "'").error();
  if (error.code == Code::kDataLoss) {
    error.message += "; make it again with 'hatchery template create " + name + "'";
  }
  return error;
}

}  // namespace

Result<std::string> TemplateNameOrDefault(const std::string& name) {
  if (name.empty()) return std::string(kDefaultTemplate);
  RETURN_IF_ERROR(ValidateName("template_name", name));
  return name;
}

Catalog::Catalog(Executor executor, KvStore& store, tmpl::Store& templates, tmpl::Builder& builder,
                 Vms& vms, const Settings& settings, const Clock& clock, DefaultGuest default_guest)
    : executor_(executor),
      store_(store),
      templates_(templates),
      builder_(builder),
      vms_(vms),
      settings_(settings),
      clock_(clock),
      default_guest_(std::move(default_guest)),
      build_ended_(executor),
      deletions_(executor) {}

void Catalog::Restore(const std::vector<record::TemplateNameRecord>& names) {
  for (const auto& name : names) {
    names_[name.name()] = {TemplateDigest(name.digest()), nullptr, ""};
  }
  for (const auto& entry : templates_.List()) {
    bool named = false;
    for (const auto& [name, version] : names_) named |= version.digest == entry.digest;
    if (!named) retired_.insert(entry.digest);
  }
}

Task<tmpl::BuildRequest> Catalog::MakeBuildRequest(TemplateSpec spec,
                                                   std::function<void(std::string)> say,
                                                   Deadline deadline) {
  if (spec.guest.kernel.empty() && spec.guest.initrd.empty() && spec.guest.image.empty()) {
    ASSIGN_OR_CO_RETURN(spec.guest, co_await default_guest_(say, deadline));
  }
  tmpl::BuildRequest request;
  request.kernel = spec.guest.kernel;
  request.initrd = spec.guest.initrd;
  request.image = spec.guest.image;
  request.kernel_params = spec.kernel_params.value_or(settings_.kernel_params);
  request.shape.vcpus = spec.vcpus.value_or(settings_.shape.vcpus);
  request.shape.max_vcpus =
      spec.max_vcpus.value_or(std::max(settings_.shape.max_vcpus, request.shape.vcpus));
  request.shape.memory = spec.memory.value_or(settings_.shape.memory);
  request.shape.max_memory =
      spec.max_memory.value_or(std::max(settings_.shape.max_memory, request.shape.memory));
  // In the configuration 0 means "default"; from a caller it is a mistake.
  if (request.shape.vcpus == 0) co_return InvalidArgument("vcpus", "must be at least 1");
  if (request.shape.memory == Bytes()) co_return InvalidArgument("memory", "must not be 0");
  request.accelerator = spec.accelerator.value_or(settings_.accelerator);
  co_return request;
}

Task<Catalog::Created> Catalog::Create(TemplateSpec spec, bool force,
                                       std::function<void(std::string)> say, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const std::string name, TemplateNameOrDefault(spec.name));
  while (building_.contains(name)) {
    say("waiting for another build of '" + name + "'");
    CO_RETURN_IF_ERROR(co_await build_ended_.Wait(deadline));
  }
  CO_RETURN_IF_ERROR(CheckOpen(name));
  building_.insert(name);
  struct Building {
    Catalog& catalog;
    const std::string& name;
    ~Building() {
      catalog.building_.erase(name);
      catalog.build_ended_.NotifyAll();
    }
  } building{*this, name};

  const auto boot_timeout = spec.boot_timeout.value_or(settings_.boot_timeout);
  ASSIGN_OR_CO_RETURN(auto request, co_await MakeBuildRequest(std::move(spec), say, deadline));
  request.force = force;
  if (const auto current = names_.find(name); current != names_.end()) {
    request.current = current->second.digest;
  }
  ASSIGN_OR_CO_RETURN(const auto build, vms_.BeginBuild(name));
  request.vm_id = build->id();
  auto built = co_await builder_.Build(
      std::move(request), [&](std::string_view step) { say(std::string(step)); },
      Sooner(deadline, After(boot_timeout)));
  if (!built) co_return Annotate(built.error(), "template '" + name + "'");
  if (co_await IsCancelled()) co_return Cancelled("cancelled");

  if (!built->reused) {
    if (auto pointed = Point(name, built->loaded); !pointed) {
      retired_.insert(built->loaded->manifest().digest);
      built->loaded.reset();
      Collect();
      co_return std::unexpected(pointed.error());
    }
  } else {
    const auto version = names_.find(name);
    if (version == names_.end() || version->second.digest != built->loaded->manifest().digest) {
      co_return Aborted("template '" + name + "' was deleted meanwhile; try again");
    }
    version->second.loaded = built->loaded;
    version->second.problem.clear();
  }
  Created created;
  created.reused = built->reused;
  created.boot_time = built->boot_time;
  created.save_time = built->save_time;
  ASSIGN_OR_CO_RETURN(created.info, Get(name));
  co_return created;
}

Result<void> Catalog::Point(const std::string& name,
                            std::shared_ptr<const tmpl::LoadedTemplate> loaded) {
  if (all_closed_ > 0) RETURN_IF_ERROR(CheckOpen(name));
  const TemplateDigest digest = loaded->manifest().digest;
  record::TemplateNameRecord record;
  record.set_name(name);
  record.set_digest(digest.str());
  record.set_updated_unix_ns(UnixNanos(clock_.Now()));
  RecordBatch batch(WritePoint::kTemplateNamed);
  batch.Put(record);
  RETURN_IF_ERROR(batch.Commit(store_, Durability::kHost));
  const auto old = names_.find(name);
  if (old != names_.end() && old->second.digest != digest) retired_.insert(old->second.digest);
  retired_.erase(digest);
  names_[name] = {digest, std::move(loaded), ""};
  log::Info({.tmpl = digest.str()}, "template '" + name + "' has a new version");
  if (on_changed_) on_changed_(name);
  Collect();
  return {};
}

Task<std::shared_ptr<const tmpl::LoadedTemplate>> Catalog::Current(const std::string& name,
                                                                   Deadline deadline) {
  for (;;) {
    ASSIGN_OR_CO_RETURN(const TemplateDigest digest, DigestOf(name));
    CO_RETURN_IF_ERROR(CheckOpen(name));
    if (auto loaded = IfLoaded(name)) co_return loaded;
    auto load = [&]() -> Task<std::shared_ptr<const tmpl::LoadedTemplate>> {
      ASSIGN_OR_CO_RETURN(const auto manifest, templates_.Get(digest));
      CO_RETURN_IF_ERROR(co_await builder_.CheckCompatible(manifest, deadline));
      co_return co_await templates_.Load(digest);
    };
    auto loaded = co_await load();
    const auto version = names_.find(name);
    // Deleted or made anew while it was read: once more.
    if (version == names_.end() || version->second.digest != digest) continue;
    if (loaded) version->second.loaded = *loaded;
    version->second.problem = loaded ? "" : loaded.error().message;
    if (!loaded) {
      co_return std::unexpected(Explain(name, loaded.error()));
    }
    // As it is now: it may have been closed.
  }
}

Result<std::shared_ptr<const tmpl::Manifest>> Catalog::CurrentManifest(const std::string& name) {
  using Manifest = std::shared_ptr<const tmpl::Manifest>;
  ASSIGN_OR_RETURN(const TemplateDigest digest, DigestOf(name));
  RETURN_IF_ERROR(CheckOpen(name));
  Version& version = names_[name];
  if (const auto& loaded = version.loaded) return Manifest(loaded, &loaded->manifest());
  if (!version.manifest) {
    auto manifest = templates_.Get(digest);
    if (!manifest) {
      version.problem = manifest.error().message;
      return std::unexpected(Explain(name, manifest.error()));
    }
    version.manifest = std::make_shared<const tmpl::Manifest>(*std::move(manifest));
  }
  return version.manifest;
}

Result<void> Catalog::CheckOpen(const std::string& name) const {
  if (all_closed_ == 0 && !closed_.contains(name)) return {};
  return FailedPrecondition("template '" + name + "' is being deleted");
}

Task<void> Catalog::AwaitBuilds(std::function<void(const std::string&)> told, Deadline deadline) {
  while (!building_.empty()) {
    const std::string name = *building_.begin();
    told(name);
    auto ended = co_await build_ended_.Wait(deadline);
    if (!ended) co_return Annotate(ended.error(), "waiting for the build of '" + name + "' to end");
  }
  // Those that had no name to go to.
  co_await deletions_.Join();
  co_return Result<void>();
}

std::shared_ptr<const tmpl::LoadedTemplate> Catalog::IfLoaded(const std::string& name) const {
  const auto version = names_.find(name);
  return version == names_.end() ? nullptr : version->second.loaded;
}

Result<TemplateDigest> Catalog::DigestOf(const std::string& name) const {
  const auto version = names_.find(name);
  if (version == names_.end()) {
    return NotFound("no template named '" + name + "'; make one with 'hatchery template create " +
                    name + "' or 'hatchery factory init'");
  }
  return version->second.digest;
}

std::vector<std::string> Catalog::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, version] : names_) names.push_back(name);
  return names;
}

std::vector<TemplateInfo> Catalog::List() const {
  std::vector<TemplateInfo> all;
  std::map<TemplateDigest, const tmpl::Store::Entry*> on_disk;
  const auto entries = templates_.List();
  for (const auto& entry : entries) on_disk[entry.digest] = &entry;
  auto info = [&](const std::string& name, const TemplateDigest& digest) {
    TemplateInfo i;
    i.name = name;
    i.digest = digest;
    i.clones = vms_.CountOf(digest.str());
    if (const auto state = vms_.quarantine().Of(digest.str())) {
      i.quarantined_until = clock_.Now() + std::chrono::duration_cast<WallTime::duration>(
                                               state->until - clock_.SinceBoot());
      i.problem = "its last " + std::to_string(state->failures) +
                  " clones failed, the last one with: " + state->last_error;
    }
    if (const auto found = on_disk.find(digest); found != on_disk.end()) {
      i.manifest = found->second->manifest;
      i.disk_size = found->second->disk_size;
      if (!i.manifest) i.problem = i.manifest.error().message;
    } else {
      i.manifest = NotFound("template " + digest.str() + " is not on disk");
      i.problem = "its files are missing";
    }
    return i;
  };
  for (const auto& [name, version] : names_) {
    all.push_back(info(name, version.digest));
    if (!version.problem.empty()) all.back().problem = version.problem;
  }
  for (const auto& digest : retired_) all.push_back(info("", digest));
  return all;
}

Result<TemplateInfo> Catalog::Get(const std::string& name_or_digest) const {
  std::vector<TemplateInfo> matches;
  for (auto& info : List()) {
    if (info.name == name_or_digest) return info;
    if (IsHexPrefix(name_or_digest) && info.digest.str().starts_with(name_or_digest)) {
      matches.push_back(std::move(info));
    }
  }
  if (matches.empty()) {
    RETURN_IF_ERROR(ValidateName("name", name_or_digest.substr(0, 64)));
    return NotFound("no template named '" + name_or_digest + "'");
  }
  for (const auto& match : matches) {
    if (match.digest != matches.front().digest) {
      return InvalidArgument("name", "'" + name_or_digest + "' is the start of several digests");
    }
  }
  return std::move(matches.front());
}

Task<void> Catalog::Verify(const std::string& name_or_digest, tmpl::Progress progress) {
  ASSIGN_OR_CO_RETURN(const auto info, Get(name_or_digest));
  auto verified = co_await templates_.Verify(info.digest, std::move(progress));
  if (!verified) co_return Annotate(verified.error(), "template '" + name_or_digest + "'");
  co_return Result<void>();
}

Task<void> Catalog::Delete(const std::string& name) {
  ASSIGN_OR_CO_RETURN(const TemplateDigest digest, DigestOf(name));
  bool named_twice = false;
  for (const auto& [other, version] : names_) {
    named_twice |= other != name && version.digest == digest;
  }
  const std::size_t clones = vms_.CountOf(digest.str());
  if (clones > 0 && !named_twice) {
    co_return FailedPrecondition("template '" + name + "' has " + std::to_string(clones) +
                                 " VMs; release them, or drain it with --drain");
  }
  RecordBatch batch(WritePoint::kTemplateForgotten);
  batch.DeleteTemplateName(name);
  CO_RETURN_IF_ERROR(batch.Commit(store_, Durability::kHost));
  names_.erase(name);
  if (!named_twice) retired_.insert(digest);
  log::Info({.tmpl = digest.str()}, "template '" + name + "' deleted");
  if (on_changed_) on_changed_(name);
  Collect();
  co_await deletions_.Join();
  if (retired_.contains(digest) && vms_.CountOf(digest.str()) == 0) {
    co_return Unavailable("the files of template " + digest.str() +
                          " could not be deleted; the log says why, and it is tried again later");
  }
  co_return Result<void>();
}

void Catalog::Collect() {
  for (auto it = retired_.begin(); it != retired_.end();) {
    if (vms_.CountOf(it->str()) > 0) {
      ++it;
      continue;
    }
    vms_.quarantine().Forget(it->str());
    auto remove = [](Catalog& self, TemplateDigest digest) -> asio::awaitable<void> {
      auto deleted = co_await self.templates_.Delete(digest);
      if (deleted || deleted.error().code == Code::kNotFound) co_return;
      log::Error({.tmpl = digest.str()}, "deleting a template: " + ToString(deleted.error()));
      self.retired_.insert(digest);
    };
    const TemplateDigest digest = *it;
    it = retired_.erase(it);
    deletions_.Spawn("delete template " + digest.str(), remove(*this, digest));
  }
}

asio::awaitable<void> Catalog::Stop() { co_await deletions_.Join(); }

}  // namespace hatchery::cache
