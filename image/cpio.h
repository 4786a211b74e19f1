// The initramfs's archive format, "newc" cpio (Linux's Documentation/driver-api/early-userspace/
// buffer-format.rst): per entry
//
//   "070701" | 13 fields of 8 hexadecimal digits | name, NUL | pad to 4 | data | pad to 4
//
// and a last entry called TRAILER!!!. The same entries give the same bytes: sorted by path, inodes
// numbered in that order, owned by root, dated 1970. Uncompressed, because unpacking is slow under
// emulation. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hatchery::image {

struct CpioEntry {
  std::string path;        // from the root, without a leading slash
  std::uint32_t mode = 0;  // type and permissions, as in stat(2)
  std::string data = {};   // a file's content, a symlink's target
  // Device numbers, for device nodes.
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
};

CpioEntry Directory(std::string path, std::uint32_t permissions = 0755);
CpioEntry File(std::string path, std::string content, std::uint32_t permissions = 0644);
CpioEntry Symlink(std::string path, std::string target);
CpioEntry CharacterDevice(std::string path, std::uint32_t permissions, std::uint32_t major,
                          std::uint32_t minor);

// The archive. kInvalidArgument on a path that is empty, absolute or there twice, and on an entry
// whose folder is not among the entries (the kernel would drop it silently).
Result<std::string> PackCpio(std::vector<CpioEntry> entries);

}  // namespace hatchery::image
