// hatchery-launch DESCRIPTION DESCRIPTORS PROGRAM NAME [ARGUMENT…]: confines itself as it is told
// (confine.h) and becomes PROGRAM, with NAME and the arguments as its argv. posix_spawn(3) can do
// none of that. DESCRIPTION is the bytes of a confine::Description as hexadecimal digits;
// DESCRIPTORS are those that stay open besides 0 to 2, ascending, each followed by a comma. Started
// by PosixSpawner only.
#include <stdlib.h>

#include "base/confine.h"

namespace {

int Digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool Decode(const char* text, hatchery::confine::Description& description) {
  auto* const bytes = reinterpret_cast<unsigned char*>(&description);
  if (strlen(text) != 2 * sizeof(description)) return false;
  for (std::size_t i = 0; i < sizeof(description); ++i) {
    const int high = Digit(text[2 * i]), low = Digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i] = static_cast<unsigned char>(high * 16 + low);
  }
  return hatchery::confine::Valid(description);
}

void CloseAllBut(const char* kept) {
  unsigned next = 3;
  while (*kept != '\0') {
    char* end = nullptr;
    const auto fd = static_cast<unsigned>(strtoul(kept, &end, 10));
    if (*end != ',') break;
    if (fd > next) close_range(next, fd - 1, 0);
    if (fd >= next) next = fd + 1;
    kept = end + 1;
  }
  close_range(next, ~0u, 0);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace hatchery::confine;
  Description description;
  if (argc < 5 || !Decode(argv[1], description)) {
    errno = EINVAL;
    Complain(2, "a program", "hatchery-launch is hatcheryd's own");
    return kExitCode;
  }
  const char* failed = Enter(description);
  if (failed == nullptr) failed = Drop(description);
  CloseAllBut(argv[2]);
  if (failed == nullptr) failed = Limit(description);
  if (failed == nullptr) {
    execve(argv[3], argv + 4, environ);
    failed = "running it as its user";
  }
  Complain(2, argv[4], failed);
  return kExitCode;
}
