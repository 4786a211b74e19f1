#include "tests/torture/controls.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace hatchery::torture {

Result<Controls*> MapControls(const std::filesystem::path& path) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file || ::ftruncate(file.get(), sizeof(Controls)) != 0) {
    return ErrnoError(errno, "opening " + path.string());
  }
  void* const page =
      ::mmap(nullptr, sizeof(Controls), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (page == MAP_FAILED) return ErrnoError(errno, "mapping " + path.string());
  return static_cast<Controls*>(page);
}

}  // namespace hatchery::torture
