// What a ZygoteSpawner and the library that it loads into the program say to each other, over a
// SOCK_SEQPACKET pair: one message asks for a process, one answers.
//
//   request   RequestHeader, then `targets` of the descriptors that come along (SCM_RIGHTS, in this
//             order) as int32 each, then the working directory and every argument, each ended by a
//             zero byte
//   answer    the new process's pid as int32, a child of who asked by then; or a negative errno,
//             and nothing was started
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/confine.h"

namespace hatchery::hypervisor::qemu::zygote {

struct RequestHeader {
  std::uint32_t magic;
  std::uint32_t descriptors;
  std::uint32_t huge_pages;  // 0: none for this process
  std::uint32_t new_session;
  std::uint32_t confined;  // 0: `confinement` means nothing
  std::uint32_t reserved;
  confine::Description confinement;
};

inline constexpr std::uint32_t kMagic = 0x3379677a;  // "zgy3"
inline constexpr std::size_t kMaxRequest = 64 << 10;
inline constexpr std::size_t kMaxDescriptors = 32;
// The arguments of a zygote: this name, the number of its end of the pair, and so many bytes of
// room for what the processes that come of it are to show as theirs in /proc/PID/cmdline.
inline constexpr const char* kName = "--hatchery-zygote";
inline constexpr std::size_t kArgumentRoom = 8 << 10;

}  // namespace hatchery::hypervisor::qemu::zygote
