#include "image/elf.h"

#include <elf.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "base/fd.h"

namespace hatchery::image {

namespace {

template <class T>
bool ReadAt(int fd, off_t offset, T& out) {
  return ::pread(fd, &out, sizeof(out), offset) == static_cast<ssize_t>(sizeof(out));
}

}  // namespace

Result<void> CheckStaticExecutable(const std::filesystem::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    return Annotate(ErrnoError(errno, "opening " + path.string()).error(),
                    "the guest's agent cannot be read; build the target hatchery-agent or name "
                    "its binary");
  }
  const auto refuse = [&](const char* what) {
    return FailedPrecondition(path.string() + " " + what +
                              "; the guest's agent has to be a static 64-bit ELF executable "
                              "(the build target hatchery-agent)");
  };
  Elf64_Ehdr header{};
  if (!ReadAt(fd.get(), 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 ||
      (header.e_type != ET_EXEC && header.e_type != ET_DYN) ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    return refuse("is no such executable");
  }
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    if (!ReadAt(fd.get(), static_cast<off_t>(header.e_phoff + i * sizeof(segment)), segment)) {
      return refuse("is cut short");
    }
    if (segment.p_type == PT_INTERP) return refuse("is dynamically linked");
  }
  return {};
}

}  // namespace hatchery::image
