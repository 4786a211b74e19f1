// hatchery-launch DESCRIPTION PROGRAM NAME [ARGUMENT…]: confines itself as it is told (confine.h)
// and becomes PROGRAM, with NAME and the arguments as its argv. posix_spawn(3) can do none of that.
// DESCRIPTION is the bytes of a confine::Description as hexadecimal digits. Started by PosixSpawner
// only.
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

}  // namespace

int main(int argc, char** argv) {
  using namespace hatchery::confine;
  Description description;
  if (argc < 4 || !Decode(argv[1], description)) {
    errno = EINVAL;
    Complain(2, "a program", "hatchery-launch is hatcheryd's own");
    return kExitCode;
  }
  const char* failed = Drop(description);
  if (failed == nullptr) failed = Limit(description);
  if (failed == nullptr) failed = Enter(description);
  if (failed == nullptr) {
    execve(argv[2], argv + 3, environ);
    failed = "running it as its user";
  }
  Complain(2, argv[3], failed);
  return kExitCode;
}
