#include "image/image.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <system_error>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/ids.h"
#include "base/json.h"
#include "base/sha256.h"
#include "image/elf.h"
#include "image/initramfs.h"
#include "image/packages.h"

namespace hatchery::image {

namespace {

// Raised when the same inputs give other bytes than before: older images are then built anew.
constexpr int kRecipe = 1;
// The kernel package is 26 MiB packed and about 110 MiB unpacked.
constexpr Bytes kSpaceNeeded = Bytes::MiB(256);
constexpr Bytes kMaxOutput = Bytes::MiB(256);
constexpr const char* kManifest = "image.json";

GuestImage ImageIn(const fs::path& dir) { return {dir / "vmlinuz", dir / "initrd.img"}; }

// image.json, or null if there is none that can be read.
Json ReadManifest(const fs::path& dir) {
  const auto text = ReadFile(dir / kManifest);
  if (!text) return {};
  auto manifest = ParseJson(*text, kManifest);
  return manifest && manifest->is_object() ? *std::move(manifest) : Json();
}

// What image.json says of an output; anything may stand in a file.
Json Recorded(const Json& manifest, const char* output, const char* what) {
  const auto record = manifest.find(output);
  if (record == manifest.end() || !record->is_object() || !record->contains(what)) return {};
  return (*record)[what];
}

bool HasRecordedSize(const Json& manifest, const char* output, const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return !error && Recorded(manifest, output, "size") == Json(size);
}

bool HasRecordedContent(const Json& manifest, const char* output, const fs::path& path) {
  if (!HasRecordedSize(manifest, output, path)) return false;
  const auto digest = Sha256OfFile(path);
  return digest && Recorded(manifest, output, "sha256") == Json(*digest);
}

Result<void> CheckSpace(const fs::path& dir) {
  std::error_code error;
  const auto space = fs::space(dir, error);
  if (!error && space.available < kSpaceNeeded.count()) {
    return ResourceExhausted(dir.string() + " has " + ToString(Bytes(space.available)) +
                             " left on its disk, and building the image takes " +
                             ToString(kSpaceNeeded) + "; free some space or choose another folder");
  }
  return {};
}

Result<void> MakeWritable(const fs::path& dir) {
  auto made = MakeDirectories(dir);
  if (made && ::access(dir.c_str(), W_OK) != 0) made = ErrnoError(errno, dir.string());
  if (!made) {
    return Annotate(made.error(), "cannot write there; choose another folder or another user");
  }
  return {};
}

// Where a package was unpacked, one of the places that Debian's releases put a thing.
Result<fs::path> FirstOf(const std::vector<fs::path>& places, std::string_view what) {
  std::error_code ignored;
  for (const auto& place : places) {
    if (fs::exists(place, ignored)) return place;
  }
  return NotFound("the package has no " + std::string(what) + "; choose another");
}

// The one folder in lib/modules is named for the kernel's version.
Result<fs::path> FindModulesDir(const fs::path& tree) {
  std::error_code error;
  // depmod looks in lib/, where older releases have it.
  if (!fs::exists(tree / "lib", error) && fs::exists(tree / "usr/lib/modules", error)) {
    fs::create_directory_symlink("usr/lib", tree / "lib", error);
  }
  for (const auto& entry : fs::directory_iterator(tree / "lib/modules", error)) {
    if (entry.is_directory(error)) return entry.path();
  }
  return NotFound("the kernel package has no lib/modules; choose another kernel package");
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    if (end > at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

Result<void> Publish(const fs::path& out, Json manifest, const std::string& kernel,
                     const std::string& initrd) {
  const GuestImage image = ImageIn(out);
  RETURN_IF_ERROR(RemoveAll(out / kManifest));
  RETURN_IF_ERROR(SyncDirectory(out));
  RETURN_IF_ERROR(WriteFileAtomically(image.kernel, kernel));
  RETURN_IF_ERROR(WriteFileAtomically(image.initrd, initrd));
  manifest["kernel"] = {{"size", kernel.size()}, {"sha256", ToHex(Sha256Of(kernel))}};
  manifest["initrd"] = {{"size", initrd.size()}, {"sha256", ToHex(Sha256Of(initrd))}};
  return WriteFileAtomically(out / kManifest, DumpJson(manifest, 2) + "\n");
}

// One build, with its tools and folders.
class Builder {
 public:
  Builder(ProcessSpawner& spawner, WorkerPool& workers, BuildOptions options, Progress progress,
          Deadline deadline)
      : workers_(workers),
        options_(std::move(options)),
        progress_(progress),
        packages_(spawner, workers, progress, deadline) {}

  Task<GuestImage> Run() {
    const fs::path& out = options_.out_dir;
    CO_RETURN_IF_ERROR(CheckStaticExecutable(options_.agent));
    if (options_.cache_dir.empty()) options_.cache_dir = out / "packages";
    CO_RETURN_IF_ERROR(MakeWritable(out));
    CO_RETURN_IF_ERROR(MakeWritable(options_.cache_dir));
    ASSIGN_OR_CO_RETURN(const UniqueFd lock,
                        LockFile(out / ".lock", "image folder " + out.string()));

    ASSIGN_OR_CO_RETURN(const Package kernel, co_await FindKernel());
    ASSIGN_OR_CO_RETURN(const Package busybox, co_await packages_.Find("busybox-static"));
    ASSIGN_OR_CO_RETURN(const Json manifest, co_await DescribeInputs(kernel, busybox));
    if (co_await IsBuilt(manifest)) {
      progress_("the image in " + out.string() + " is up to date");
      co_return ImageIn(out);
    }
    CO_RETURN_IF_ERROR(CheckSpace(out));
    ASSIGN_OR_CO_RETURN(const TempDir work, TempDir::Create(out, ".build-"));
    ASSIGN_OR_CO_RETURN(InitramfsParts parts, co_await Unpack(kernel, busybox, work.path()));
    const fs::path vmlinuz = work.path() / "kernel/boot" / ("vmlinuz-" + parts.kernel_version);
    progress_("packing the initramfs and publishing in " + out.string());
    CO_RETURN_IF_ERROR(co_await workers_.Run([&]() -> Result<void> {
      ASSIGN_OR_RETURN(const std::string content, ReadFile(vmlinuz, kMaxOutput));
      ASSIGN_OR_RETURN(const std::string initramfs, MakeInitramfs(parts));
      return Publish(out, manifest, content, initramfs);
    }));
    progress_("built the image of kernel " + parts.kernel_version);
    co_return ImageIn(out);
  }

 private:
  // A metapackage leads to the package with the files.
  Task<Package> FindKernel() {
    ASSIGN_OR_CO_RETURN(const Package package, co_await packages_.Find(options_.kernel_package));
    const auto real = FindDependency(package, "linux-image-");
    if (!real) co_return package;
    progress_(package.name + " stands for " + *real);
    co_return co_await packages_.Find(*real);
  }

  Task<Json> DescribeInputs(Package kernel, Package busybox) {
    ASSIGN_OR_CO_RETURN(const std::string agent, co_await workers_.Run([path = options_.agent] {
      return Sha256OfFile(path);
    }));
    const auto describe = [](const Package& package) {
      return Json{
          {"package", package.name}, {"version", package.version}, {"sha256", package.sha256}};
    };
    co_return Json{{"inputs",
                    {{"recipe", kRecipe},
                     {"kernel", describe(kernel)},
                     {"busybox", describe(busybox)},
                     {"agent", {{"sha256", agent}}}}}};
  }

  asio::awaitable<bool> IsBuilt(Json wanted) {
    auto same = co_await workers_.Run([out = options_.out_dir, wanted]() -> Result<bool> {
      const Json found = ReadManifest(out);
      const GuestImage image = ImageIn(out);
      return found.is_object() && found.contains("inputs") && found["inputs"] == wanted["inputs"] &&
             HasRecordedContent(found, "kernel", image.kernel) &&
             HasRecordedContent(found, "initrd", image.initrd);
    });
    co_return same.value_or(false);
  }

  Task<InitramfsParts> Unpack(Package kernel, Package busybox, fs::path work) {
    ASSIGN_OR_CO_RETURN(const fs::path kernel_file,
                        co_await packages_.Fetch(kernel, options_.cache_dir));
    ASSIGN_OR_CO_RETURN(const fs::path busybox_file,
                        co_await packages_.Fetch(busybox, options_.cache_dir));
    progress_("unpacking " + kernel_file.filename().string());
    CO_RETURN_IF_ERROR(co_await packages_.Extract(kernel_file, work / "kernel"));
    CO_RETURN_IF_ERROR(co_await packages_.Extract(busybox_file, work / "busybox"));
    InitramfsParts parts{.agent = options_.agent};
    ASSIGN_OR_CO_RETURN(parts.modules_dir, FindModulesDir(work / "kernel"));
    parts.kernel_version = parts.modules_dir.filename().string();
    ASSIGN_OR_CO_RETURN(
        parts.busybox,
        FirstOf({work / "busybox/bin/busybox", work / "busybox/usr/bin/busybox"}, "busybox"));
    ASSIGN_OR_CO_RETURN(const std::string applets,
                        co_await packages_.RunTool({parts.busybox.string(), "--list"}));
    parts.applets = Lines(applets);
    // Debian makes it when the package is installed, which this one never is.
    std::error_code ignored;
    if (!fs::exists(parts.modules_dir / "modules.dep", ignored)) {
      CO_RETURN_IF_ERROR(co_await RunDepmod(work / "kernel", parts.kernel_version));
    }
    co_return parts;
  }

  Task<void> RunDepmod(fs::path tree, std::string version) {
    // In sbin, which is not in every user's PATH.
    std::error_code ignored;
    const bool in_sbin = fs::exists("/usr/sbin/depmod", ignored);
    CO_RETURN_IF_ERROR(co_await packages_.RunTool(
        {in_sbin ? "/usr/sbin/depmod" : "depmod", "-b", tree.string(), version}));
    co_return Result<void>();
  }

  WorkerPool& workers_;
  BuildOptions options_;
  Progress progress_;
  PackageSource packages_;
};

}  // namespace

Task<GuestImage> Build(ProcessSpawner& spawner, WorkerPool& workers, BuildOptions options,
                       std::function<void(std::string)> progress, Deadline deadline) {
  if (!progress) progress = [](std::string) {};
  // Tools are run from the root folder.
  std::error_code ignored;
  options.out_dir = fs::absolute(options.out_dir, ignored);
  options.agent = fs::absolute(options.agent, ignored);
  if (!options.cache_dir.empty()) options.cache_dir = fs::absolute(options.cache_dir, ignored);
  Builder builder(spawner, workers, std::move(options), std::move(progress), deadline);
  auto image = co_await builder.Run();
  if (!image) co_return Annotate(image.error(), "building the guest image");
  co_return image;
}

std::optional<GuestImage> Find(const fs::path& dir) {
  const Json manifest = ReadManifest(dir);
  const GuestImage image = ImageIn(dir);
  if (!manifest.is_object() || !HasRecordedSize(manifest, "kernel", image.kernel) ||
      !HasRecordedSize(manifest, "initrd", image.initrd)) {
    return std::nullopt;
  }
  return image;
}

fs::path DefaultDir() {
  if (::geteuid() == 0) return "/var/lib/hatchery/image";
  if (const char* data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data == '/') {
    return fs::path(data) / "hatchery/image";
  }
  const char* home = std::getenv("HOME");
  return fs::path(home != nullptr ? home : "/tmp") / ".local/share/hatchery/image";
}

}  // namespace hatchery::image
