// Connections of other users, made by this process: a thread of ours takes their credentials, as
// the kernel knows them per thread, and connects. Takes root.
#pragma once

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/fd.h"

namespace hatchery::cache::rpc {

// Whether we may; tests that need it fail where not.
inline bool CanBeOthers() { return ::geteuid() == 0; }

// Connected to the unix socket at `path` as `uid`, whose group has the same number.
inline UniqueFd ConnectAs(const std::filesystem::path& path, uid_t uid,
                          std::vector<gid_t> groups = {}) {
  UniqueFd connection;
  std::thread([&] {
    // glibc's wrappers would change every thread.
    bool changed = ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
    changed = changed && ::syscall(SYS_setresgid, uid, uid, uid) == 0;
    changed = changed && ::syscall(SYS_setresuid, uid, uid, uid) == 0;
    EXPECT_TRUE(changed) << "becoming uid " << uid;
    auto connected = ConnectUnix(path);
    EXPECT_TRUE(connected.has_value()) << ToString(connected.error());
    if (connected) connection = *std::move(connected);
  }).join();
  return connection;
}

inline std::shared_ptr<grpc::Channel> ChannelAs(const std::filesystem::path& path, uid_t uid,
                                                std::vector<gid_t> groups = {}) {
  return grpc::CreateInsecureChannelFromFd("unix", ConnectAs(path, uid, groups).Release());
}

}  // namespace hatchery::cache::rpc
