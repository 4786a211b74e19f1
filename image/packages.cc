#include "image/packages.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <system_error>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/sha256.h"

namespace hatchery::image {

namespace {

// Debian Policy 5.6.1. Also keeps a name from being read as an option.
Result<void> ValidatePackageName(const std::string& name) {
  const bool good =
      name.size() >= 2 && std::isalnum(static_cast<unsigned char>(name[0])) != 0 &&
      std::ranges::all_of(name, [](unsigned char c) {
        return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '+' || c == '-' || c == '.';
      });
  if (!good) return InvalidArgument("kernel_package", "'" + name + "' is no Debian package name");
  return {};
}

std::string_view Field(std::string_view stanza, std::string_view name) {
  const std::string key = std::string(name) + ": ";
  for (std::size_t at = 0; at < stanza.size();) {
    const auto end = std::min(stanza.find('\n', at), stanza.size());
    const auto line = stanza.substr(at, end - at);
    if (line.starts_with(key)) return line.substr(key.size());
    if (line.empty()) break;  // the next stanza
    at = end + 1;
  }
  return {};
}

// The last lines of what a tool wrote: that is where it says what was wrong.
std::string LastWords(const CommandOutput& output) {
  constexpr std::size_t kMost = 600;
  std::string text = output.err.empty() ? output.out : output.err;
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.pop_back();
  }
  if (text.size() > kMost) text = "…" + text.substr(text.size() - kMost);
  return text.empty() ? "it said nothing" : text;
}

// The only package in a folder that apt-get downloaded to.
Result<fs::path> OnlyPackageIn(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".deb") return entry.path();
  }
  return NotFound("apt-get reported success, but left no package in " + folder.string());
}

}  // namespace

Result<Package> ParsePackage(std::string_view stanza) {
  Package package{.name = std::string(Field(stanza, "Package")),
                  .version = std::string(Field(stanza, "Version")),
                  .depends = std::string(Field(stanza, "Depends")),
                  .sha256 = std::string(Field(stanza, "SHA256"))};
  const std::string_view path = Field(stanza, "Filename");
  package.file_name = path.substr(path.rfind('/') + 1);
  if (package.name.empty() || package.version.empty() || package.file_name.empty() ||
      package.sha256.empty()) {
    return DataLoss("apt-cache does not say where package '" + package.name +
                    "' is to be had (it may be installed, but in no list); run 'apt-get update'");
  }
  return package;
}

Result<std::string> FindDependency(const Package& package, std::string_view prefix) {
  std::string_view rest = package.depends;
  while (!rest.empty()) {
    const auto comma = std::min(rest.find(','), rest.size());
    auto one = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    one.remove_prefix(std::min(one.find_first_not_of(' '), one.size()));
    one = one.substr(0, one.find_first_of(" (|:"));
    if (one.starts_with(prefix)) return std::string(one);
  }
  return NotFound("package " + package.name + " depends on no " + std::string(prefix) + "*");
}

Task<std::string> PackageSource::RunTool(std::vector<std::string> argv) {
  const std::string name = argv[0];
  auto output = co_await RunCommand(spawner_, std::move(argv), deadline_);
  if (!output && output.error().code == Code::kNotFound) {
    co_return FailedPrecondition(
        name + " is not installed; the guest image is made with Debian's apt, dpkg and kmod");
  }
  if (!output) co_return std::unexpected(output.error());
  const auto& status = output->status;
  if (status.how != ExitStatus::How::kExited || status.value != 0) {
    co_return Internal(name + " failed (" + ToString(status) + "): " + LastWords(*output));
  }
  co_return std::move(output->out);
}

Task<Package> PackageSource::Find(std::string name) {
  CO_RETURN_IF_ERROR(ValidatePackageName(name));
  const std::vector<std::string> show = {"apt-cache", "show", "--no-all-versions", name};
  auto stanza = co_await RunTool(show);
  if (!stanza && stanza.error().code == Code::kInternal && ::geteuid() == 0 && !lists_updated_) {
    lists_updated_ = true;
    progress_("apt does not know " + name + ": updating its lists");
    const auto updated = co_await RunTool({"apt-get", "update"});
    stanza = updated ? co_await RunTool(show) : updated;
  }
  if (!stanza && stanza.error().code == Code::kInternal) {
    co_return NotFound("no Debian package '" + name +
                       "' is known here; run 'apt-get update' as root and check the network: " +
                       stanza.error().message);
  }
  if (!stanza) co_return std::unexpected(stanza.error());
  co_return ParsePackage(*stanza);
}

Task<fs::path> PackageSource::Fetch(Package package, fs::path cache) {
  const fs::path cached = cache / package.file_name;
  const auto hash = [](fs::path path) { return [path] { return Sha256OfFile(path); }; };
  std::error_code ignored;
  if (fs::exists(cached, ignored)) {
    ASSIGN_OR_CO_RETURN(const std::string digest, co_await workers_.Run(hash(cached)));
    if (digest == package.sha256) co_return cached;
    progress_(cached.string() + " is damaged: fetching it again");
  }
  progress_("fetching " + package.name + " " + package.version);
  ASSIGN_OR_CO_RETURN(TempDir folder, TempDir::Create(cache, ".fetch-"));
  // apt-get downloads to its working folder. As root it would drop to the user _apt, who cannot
  // write there.
  auto fetched =
      co_await RunTool({"env", "--chdir=" + folder.path().string(), "apt-get", "download", "-q",
                        "-o", "APT::Sandbox::User=root", package.name + "=" + package.version});
  if (!fetched) {
    co_return Annotate(fetched.error(), "downloading " + package.name +
                                            " (check the network, run 'apt-get update')");
  }
  ASSIGN_OR_CO_RETURN(const fs::path file, OnlyPackageIn(folder.path()));
  ASSIGN_OR_CO_RETURN(const std::string digest, co_await workers_.Run(hash(file)));
  if (digest != package.sha256) {
    co_return DataLoss("what was downloaded as " + package.name + " has SHA-256 " + digest +
                       ", but apt's lists say " + package.sha256 + "; run 'apt-get update'");
  }
  fs::rename(file, cached, ignored);
  if (ignored) co_return ErrnoError(ignored.value(), "keeping " + cached.string());
  co_return cached;
}

Task<void> PackageSource::Extract(fs::path file, fs::path into) {
  CO_RETURN_IF_ERROR(co_await RunTool({"dpkg-deb", "-x", file.string(), into.string()}));
  co_return Result<void>();
}

}  // namespace hatchery::image
