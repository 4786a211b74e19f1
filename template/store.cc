#include "template/store.h"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <unordered_map>

#include "base/files.h"
#include "base/log.h"
#include "base/notifier.h"
#include "base/sha256.h"
#include "template/chunks.h"
#include "template/memory.h"
#include "template/take_back.h"
#include "template/template_files.h"

namespace hatchery::tmpl {

namespace {

constexpr std::string_view kDraftPrefix = ".draft-";

using Loaded = std::shared_ptr<const LoadedTemplate>;

// Whatever names a digest, before it becomes a path.
Result<void> CheckDigest(const TemplateDigest& digest) {
  if (IsDigest(digest.str())) return {};
  return InvalidArgument("digest", "a template's digest is 64 lower-case hexadecimal digits");
}

// What a folder's files occupy. Files that vanish meanwhile count nothing.
Bytes DiskSize(const fs::path& folder) {
  Bytes size;
  for (const char* name : {"manifest", "memory", "state"}) {
    UniqueFd fd(::open((folder / name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) continue;
    size += AllocatedSize(fd.get()).value_or(Bytes());
  }
  return size;
}

// Makes a draft a template. True if it is new, false if it was there: with the same digest, so with
// the same content.
Result<bool> MoveIntoPlace(const fs::path& draft, const fs::path& folder) {
  if (::rename(draft.c_str(), folder.c_str()) != 0) {
    if (errno == EEXIST || errno == ENOTEMPTY) return false;
    return ErrnoError(errno, "renaming " + draft.string());
  }
  if (auto synced = SyncDirectory(folder.parent_path()); !synced) {
    (void)RemoveAll(folder);
    return std::unexpected(synced.error());
  }
  return true;
}

}  // namespace

Result<UniqueFd> LoadedTemplate::OpenState() const { return Reopen(state_.get(), O_RDONLY); }

Result<Bytes> LoadedTemplate::ResidentSize() const {
  ASSIGN_OR_RETURN(Bytes memory, AllocatedSize(memory_.get()));
  ASSIGN_OR_RETURN(Bytes state, AllocatedSize(state_.get()));
  return memory + state;
}

struct Store::Impl {
  Impl(fs::path r, WorkerPool& w) : root(std::move(r)), workers(w) {}

  fs::path Folder(const TemplateDigest& digest) const { return root / digest.str(); }
  Loaded FindLoaded(const TemplateDigest& digest) {
    const auto found = loaded.find(digest);
    if (found == loaded.end()) return nullptr;
    auto held = found->second.lock();
    if (!held) loaded.erase(found);
    return held;
  }

  Task<void> WriteDraft(const fs::path& draft, Manifest& manifest, int memory_fd, int state_fd,
                        std::string& state);
  Task<Loaded> Read(TemplateDigest digest);
  Task<UniqueFd> ReadMemory(const fs::path& folder, const Manifest& manifest);
  Task<UniqueFd> FromHolders(const Manifest& manifest);

  const fs::path root;
  WorkerPool& workers;
  Holders holders;
  std::unordered_map<TemplateDigest, std::weak_ptr<const LoadedTemplate>> loaded;
  // Reads in progress, for whoever wants the same.
  std::unordered_map<TemplateDigest, std::shared_ptr<OneShot<Result<Loaded>>>> loading;
};

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;

Result<std::unique_ptr<Store>> Store::Open(fs::path root, WorkerPool& workers) {
  RETURN_IF_ERROR(MakeDirectories(root, 0700));
  std::error_code error;
  std::vector<fs::path> drafts;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with(kDraftPrefix)) drafts.push_back(it->path());
  }
  if (error) return ErrnoError(error.value(), "listing " + root.string());
  for (const fs::path& draft : drafts) {
    log::Info({}, "removing what an interrupted build left: " + draft.string());
    RETURN_IF_ERROR(RemoveAll(draft));
  }
  return std::unique_ptr<Store>(new Store(std::make_unique<Impl>(std::move(root), workers)));
}

// Writes everything that makes a template into the folder `draft`, durably, and completes the
// manifest.
Task<void> Store::Impl::WriteDraft(const fs::path& draft, Manifest& manifest, int memory_fd,
                                   int state_fd, std::string& state) {
  const std::size_t chunks = ChunkCount(manifest.shape.memory);
  CO_RETURN_IF_ERROR(co_await ForEachChunk(workers, chunks, [memory_fd](std::size_t chunk) {
    return PunchZeros(memory_fd, static_cast<off_t>(chunk * kChunk.count()), kChunk.count());
  }));
  // Sealed before it is hashed: what the hashes say is what clones will see.
  CO_RETURN_IF_ERROR(SealMemory(memory_fd));
  ASSIGN_OR_CO_RETURN(UniqueFd file, CreateMemoryFile(draft, manifest.shape.memory));
  manifest.memory_chunks.assign(chunks, {});
  CO_RETURN_IF_ERROR(co_await ForEachChunk(
      workers, chunks,
      [&manifest, memory_fd, file = file.get()](std::size_t chunk) -> Result<void> {
        ASSIGN_OR_RETURN(manifest.memory_chunks[chunk], WriteChunk(memory_fd, file, chunk));
        return {};
      }));
  auto finish = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(state, ReadFile(ProcPath(state_fd), kMaxStateSize));
    manifest.state_size = Bytes(state.size());
    manifest.state_sha256 = Sha256Of(state);
    manifest.digest = ComputeDigest(manifest);
    return FinishFolder(draft, file.get(), state, manifest);
  };
  co_return co_await workers.Run(finish);
}

Task<Loaded> Store::Publish(Manifest manifest, UniqueFd memory_fd, UniqueFd state_fd) {
  const Bytes memory = manifest.shape.memory;
  const off_t size = ::lseek(memory_fd.get(), 0, SEEK_END);
  if (memory == Bytes() || !memory.IsMultipleOf(kChunk) || size < 0 ||
      static_cast<std::uint64_t>(size) != memory.count()) {
    co_return InvalidArgument("memory", "the memory file has " + std::to_string(size) +
                                            " bytes, the shape says " + ToString(memory) +
                                            ", a multiple of " + ToString(kChunk));
  }
  ASSIGN_OR_CO_RETURN(TempDir draft, TempDir::Create(impl_->root, kDraftPrefix));
  std::string state;
  CO_RETURN_IF_ERROR(
      co_await impl_->WriteDraft(draft.path(), manifest, memory_fd.get(), state_fd.get(), state));
  ASSIGN_OR_CO_RETURN(UniqueFd sealed_state, CreateSealed(state));
  if (co_await IsCancelled()) co_return Cancelled("cancelled before the template was published");
  ASSIGN_OR_CO_RETURN(
      const bool is_new,
      co_await impl_->workers.Run([from = draft.path(), to = impl_->Folder(manifest.digest)] {
        return MoveIntoPlace(from, to);
      }));
  if (is_new) draft.Keep();
  const TemplateDigest digest = manifest.digest;
  auto loaded = std::make_shared<const LoadedTemplate>(std::move(manifest), std::move(memory_fd),
                                                       std::move(sealed_state));
  impl_->loaded[digest] = loaded;
  co_return loaded;
}

Task<UniqueFd> Store::Impl::FromHolders(const Manifest& manifest) {
  // Some may be dying. But whoever holds something else is reason enough to ask nobody any more:
  // what was hashed in vain is time that somebody waits.
  constexpr std::size_t kAsked = 3;
  auto pids = holders ? holders(manifest.digest) : std::vector<pid_t>();
  pids.resize(std::min(pids.size(), kAsked));
  for (const pid_t pid : pids) {
    auto memory = co_await TakeBack(workers, pid, manifest);
    if (co_await IsCancelled()) co_return Cancelled("cancelled");
    const std::string whose = "the memory of VMM " + std::to_string(pid);
    if (memory) {
      log::Info({.tmpl = manifest.digest.str()}, "using " + whose + ", a clone");
      co_return memory;
    }
    log::Info({.tmpl = manifest.digest.str()}, whose + ": " + memory.error().message);
    if (memory.error().code == Code::kDataLoss) break;
  }
  co_return NotFound("nobody holds it");
}

Task<UniqueFd> Store::Impl::ReadMemory(const fs::path& folder, const Manifest& manifest) {
  if (auto held = co_await FromHolders(manifest)) co_return held;
  if (co_await IsCancelled()) co_return Cancelled("cancelled");
  ASSIGN_OR_CO_RETURN(UniqueFd file, OpenMemoryFile(folder, manifest));
  ASSIGN_OR_CO_RETURN(UniqueFd memory, CreateMemory(manifest.shape.memory));
  CO_RETURN_IF_ERROR(co_await ForEachChunk(
      workers, ChunkCount(manifest.shape.memory),
      [&](std::size_t chunk) { return ReadChunk(file.get(), memory.get(), manifest, chunk); }));
  CO_RETURN_IF_ERROR(SealMemory(memory.get()));
  co_return memory;
}

Task<Loaded> Store::Impl::Read(TemplateDigest digest) {
  const fs::path folder = Folder(digest);
  ASSIGN_OR_CO_RETURN(Manifest manifest,
                      co_await workers.Run([&] { return ReadManifest(folder, digest); }));
  ASSIGN_OR_CO_RETURN(std::string state,
                      co_await workers.Run([&] { return ReadState(folder, manifest); }));
  ASSIGN_OR_CO_RETURN(UniqueFd memory, co_await ReadMemory(folder, manifest));
  ASSIGN_OR_CO_RETURN(UniqueFd sealed_state, CreateSealed(state));
  co_return std::make_shared<const LoadedTemplate>(std::move(manifest), std::move(memory),
                                                   std::move(sealed_state));
}

void Store::SetHolders(Holders holders) { impl_->holders = std::move(holders); }

Task<Loaded> Store::Load(TemplateDigest digest) {
  CO_RETURN_IF_ERROR(CheckDigest(digest));
  for (;;) {
    if (auto held = impl_->FindLoaded(digest)) co_return held;
    const auto found = impl_->loading.find(digest);
    if (found == impl_->loading.end()) break;
    const auto other = found->second;
    auto shared = co_await other->Wait(Deadline::max());
    if (!shared) co_return std::unexpected(shared.error());
    // Who was reading may have been cancelled; we were not.
    if (*shared || shared->error().code != Code::kCancelled) co_return *std::move(shared);
  }
  auto reading = std::make_shared<OneShot<Result<Loaded>>>(co_await asio::this_coro::executor);
  impl_->loading.emplace(digest, reading);
  auto result = co_await impl_->Read(digest);
  if (!result) result = Annotate(result.error(), "template " + digest.str());
  // Deleted meanwhile: good for who asked before, no longer for who asks now.
  const bool current = impl_->loading.contains(digest) && impl_->loading[digest] == reading;
  if (current) impl_->loading.erase(digest);
  if (current && result) impl_->loaded[digest] = *result;
  reading->Set(result);
  co_return result;
}

Result<Manifest> Store::Get(const TemplateDigest& digest) const {
  RETURN_IF_ERROR(CheckDigest(digest));
  auto manifest = ReadManifest(impl_->Folder(digest), digest);
  if (!manifest && manifest.error().code == Code::kDataLoss) {
    return Annotate(manifest.error(), "template " + digest.str());
  }
  return manifest;
}

std::vector<Store::Entry> Store::List() const {
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator it(impl_->root, error), end; !error && it != end;
       it.increment(error)) {
    TemplateDigest digest(it->path().filename().string());
    if (!IsDigest(digest.str())) continue;
    entries.push_back({digest, Get(digest), DiskSize(it->path())});
  }
  std::ranges::sort(entries, {}, &Entry::digest);
  return entries;
}

Task<void> Store::Verify(TemplateDigest digest, Progress progress) {
  CO_RETURN_IF_ERROR(CheckDigest(digest));
  const fs::path folder = impl_->Folder(digest);
  auto verify = [&]() -> Task<void> {
    ASSIGN_OR_CO_RETURN(Manifest manifest,
                        co_await impl_->workers.Run([&] { return ReadManifest(folder, digest); }));
    CO_RETURN_IF_ERROR(co_await impl_->workers.Run([&] { return ReadState(folder, manifest); }));
    ASSIGN_OR_CO_RETURN(UniqueFd file, OpenMemoryFile(folder, manifest));
    co_return co_await ForEachChunk(
        impl_->workers, ChunkCount(manifest.shape.memory),
        [&](std::size_t chunk) { return ReadChunk(file.get(), -1, manifest, chunk); },
        [&](std::size_t chunks) {
          if (progress) progress(Bytes(chunks * kChunk.count()), manifest.shape.memory);
        });
  };
  auto result = co_await verify();
  if (!result && result.error().code == Code::kDataLoss) {
    co_return Annotate(result.error(), "template " + digest.str());
  }
  co_return result;
}

Task<void> Store::Delete(TemplateDigest digest) {
  CO_RETURN_IF_ERROR(CheckDigest(digest));
  impl_->loaded.erase(digest);
  impl_->loading.erase(digest);
  // It goes as it came, by one rename: a crash half way leaves a draft.
  co_return co_await impl_->workers.Run([root = impl_->root, digest]() -> Result<void> {
    ASSIGN_OR_RETURN(TempDir trash, TempDir::Create(root, kDraftPrefix));
    if (::rename((root / digest.str()).c_str(), (trash.path() / "deleted").c_str()) != 0) {
      if (errno == ENOENT) return NotFound("no template with digest " + digest.str());
      return ErrnoError(errno, "deleting template " + digest.str());
    }
    RETURN_IF_ERROR(SyncDirectory(root));
    return RemoveAll(trash.path());
  });
}

}  // namespace hatchery::tmpl
