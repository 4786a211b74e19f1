// What a process gives up before it becomes a program that is not trusted: the one place that does
// it, for all who start such programs. Included by a launcher and by a library in somebody else's
// process: system calls only, no C++ runtime, no allocation, no output but Complain()'s.
//
// The order is: Enter(), Drop(), the descriptors, Limit() and the program. Each returns null, or
// says what it could not do, with errno set; the process is then to end with kExitCode.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace hatchery::confine {

inline constexpr std::size_t kMaxGroups = 8;
inline constexpr std::size_t kMaxCgroups = 4;
inline constexpr std::uint64_t kAsItIs = UINT64_MAX;
// A command that cannot be run, to shells.
inline constexpr int kExitCode = 126;

struct Description {
  std::uint32_t change_ids;  // 0: the ids below mean nothing
  std::uint32_t uid, gid;
  std::uint32_t groups;
  std::uint32_t group[kMaxGroups];
  std::uint32_t no_new_privileges;
  std::uint32_t cgroups;
  std::int32_t cgroup[kMaxCgroups];  // what OpenMembers() opened, base/cgroup.h
  std::uint64_t core_size, open_files, processes;
};

inline bool Valid(const Description& d) {
  return d.groups <= kMaxGroups && d.cgroups <= kMaxCgroups;
}

inline bool SetLimit(int resource, std::uint64_t value) {
  if (value == kAsItIs) return true;
  const rlimit limit{value, value};
  return syscall(SYS_prlimit64, 0, resource, &limit, nullptr) == 0;
}

inline const char* Limit(const Description& d) {
  if (!SetLimit(RLIMIT_CORE, d.core_size) || !SetLimit(RLIMIT_NOFILE, d.open_files) ||
      !SetLimit(RLIMIT_NPROC, d.processes)) {
    return "setting its resource limits";
  }
  return nullptr;
}

// Whether it is version 2's group.
inline bool IsFolder(int fd) {
  struct stat info{};
  return fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
}

// The calling thread, which is to be the only one, and closes the descriptors.
inline const char* Enter(const Description& d) {
  for (std::uint32_t i = 0; i < d.cgroups; ++i) {
    int file = d.cgroup[i];
    if (IsFolder(file)) {
      file = openat(d.cgroup[i], "cgroup.procs", O_WRONLY | O_CLOEXEC);
      close(d.cgroup[i]);
    }
    if (file < 0 || write(file, "0", 1) != 1) return "entering its control group";
    close(file);
  }
  return nullptr;
}

// Of the calling thread alone: there must be no other yet.
inline const char* Drop(const Description& d) {
  if (d.change_ids != 0) {
    if (syscall(SYS_setgroups, static_cast<std::size_t>(d.groups), d.group) != 0) {
      return "setting its groups";
    }
    if (syscall(SYS_setresgid, d.gid, d.gid, d.gid) != 0) return "setting its group id";
    if (syscall(SYS_setresuid, d.uid, d.uid, d.uid) != 0) return "setting its user id";
    // As after an exec, which may follow or not.
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return "owning its files in /proc";
  }
  if (d.no_new_privileges != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return "giving up new privileges";
  }
  return nullptr;
}

// "NAME: WHAT: the error's name" on a descriptor.
inline void Complain(int fd, const char* name, const char* what) {
  const char* const error = strerrorname_np(errno);
  const char* const parts[] = {
      "cannot start ", name, ": ", what, ": ", error != nullptr ? error : "unknown error", "\n"};
  char text[512];
  std::size_t size = 0;
  for (const char* part : parts) {
    for (; *part != '\0' && size < sizeof(text); ++part) text[size++] = *part;
  }
  (void)!write(fd, text, size);
}

}  // namespace hatchery::confine
