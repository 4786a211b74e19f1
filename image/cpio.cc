#include "image/cpio.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <set>
#include <utility>

namespace hatchery::image {

namespace {

constexpr std::string_view kTrailer = "TRAILER!!!";

void PutField(std::string& out, std::size_t value) {
  char digits[9];
  std::snprintf(digits, sizeof(digits), "%08x", static_cast<unsigned>(value));
  out.append(digits, 8);
}

void Pad(std::string& out) { out.resize((out.size() + 3) & ~std::size_t{3}, '\0'); }

void PutEntry(std::string& out, const CpioEntry& entry, std::size_t inode) {
  out += "070701";
  PutField(out, inode);
  PutField(out, entry.mode);
  PutField(out, 0);  // uid
  PutField(out, 0);  // gid
  PutField(out, 1);  // links
  PutField(out, 0);  // mtime
  PutField(out, entry.data.size());
  PutField(out, 0);  // major and minor of the device that the archive was made on
  PutField(out, 0);
  PutField(out, entry.major);
  PutField(out, entry.minor);
  PutField(out, entry.path.size() + 1);
  PutField(out, 0);  // checksum: none in this variant
  out += entry.path;
  out += '\0';
  Pad(out);
  out += entry.data;
  Pad(out);
}

}  // namespace

CpioEntry Directory(std::string path, std::uint32_t permissions) {
  return {.path = std::move(path), .mode = S_IFDIR | permissions};
}
CpioEntry File(std::string path, std::string content, std::uint32_t permissions) {
  return {.path = std::move(path), .mode = S_IFREG | permissions, .data = std::move(content)};
}
CpioEntry Symlink(std::string path, std::string target) {
  return {.path = std::move(path), .mode = S_IFLNK | 0777, .data = std::move(target)};
}
CpioEntry CharacterDevice(std::string path, std::uint32_t permissions, std::uint32_t major,
                          std::uint32_t minor) {
  return {.path = std::move(path), .mode = S_IFCHR | permissions, .major = major, .minor = minor};
}

Result<std::string> PackCpio(std::vector<CpioEntry> entries) {
  // Folders come before what is in them: a path sorts before its own continuations.
  std::ranges::sort(entries, {}, &CpioEntry::path);
  std::set<std::string_view> folders;
  std::string archive;
  std::size_t inode = 0;
  const CpioEntry* previous = nullptr;
  for (const auto& entry : entries) {
    if (entry.path.empty() || entry.path.front() == '/') {
      return InvalidArgument("path", "initramfs path '" + entry.path + "' is not relative");
    }
    if (previous != nullptr && previous->path == entry.path) {
      return InvalidArgument("path", "initramfs path '" + entry.path + "' is there twice");
    }
    const auto slash = entry.path.rfind('/');
    if (slash != std::string::npos &&
        !folders.contains(std::string_view(entry.path).substr(0, slash))) {
      return InvalidArgument("path", "initramfs path '" + entry.path + "' has no folder");
    }
    if (entry.data.size() > std::numeric_limits<std::uint32_t>::max()) {
      return InvalidArgument("data", "initramfs file '" + entry.path + "' is larger than 4 GiB");
    }
    if (S_ISDIR(entry.mode)) folders.insert(entry.path);
    PutEntry(archive, entry, ++inode);
    previous = &entry;
  }
  PutEntry(archive, {.path = std::string(kTrailer)}, 0);
  return archive;
}

}  // namespace hatchery::image
