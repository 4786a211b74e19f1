#include "hypervisor/isolation.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/files.h"

namespace hatchery::hypervisor {
namespace {

using testing::HasSubstr;

class IsolationTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::getuid(), 0u) << "only root can give VMMs users of their own";
    fs::create_directory(config_.run_dir);
  }
  static std::shared_ptr<Isolation> Make(std::string uids, std::string cgroup = "none") {
    return Isolation::Create({.uids = std::move(uids),
                              .cgroup = std::move(cgroup),
                              .owner = "isolation-test-" + std::to_string(::getpid())})
        .value();
  }

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-isolation-").value();
  VmConfig config_{.id = VmId("vm-1"),
                   .run_dir = dir_.path() / "vm-1",
                   .max_vcpus = 2,
                   .max_memory = Bytes::MiB(256)};
};

TEST_F(IsolationTest, ACellHasAUserAndTheRunFolder) {
  const auto isolation = Make("1900000000");
  const auto cell = isolation->Enclose(config_);
  ASSERT_TRUE(cell.has_value()) << ToString(cell.error());
  EXPECT_EQ(cell->uid, 1'900'000'000u);
  struct stat info{};
  ASSERT_EQ(::stat(config_.run_dir.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 1'900'000'000u);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
  const auto confined = isolation->Confine(*cell).value();
  EXPECT_EQ(confined.confinement.ids->uid, 1'900'000'000u);
  EXPECT_TRUE(confined.confinement.no_new_privileges);
  EXPECT_EQ(confined.confinement.core_size, 0u);
  EXPECT_EQ(confined.confinement.open_files, 1024u);
  EXPECT_EQ(confined.confinement.processes, IsolationSettings().pids);
  const auto second = isolation->Enclose(config_);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kResourceExhausted);
  isolation->Free(*cell);
  EXPECT_TRUE(isolation->Enclose(config_).has_value());
  EXPECT_THAT(isolation->Describe(), HasSubstr("own uid each (1900000000-1900000000)"));
}

TEST_F(IsolationTest, TheUserOfAVmThatLivesIsNobodyElses) {
  const auto isolation = Make("1900000000");
  const Cell cell{.uid = 1'900'000'000, .cgroup = {}};
  const auto given = [&] { return isolation->Enclose(config_).has_value(); };
  isolation->Claim(cell);
  EXPECT_FALSE(given()) << "taken over";
  isolation->Abandon(cell, IdentifyProcess(::getpid()).value());
  EXPECT_FALSE(given()) << "not watched any more";
  isolation->Free(cell);
  VmConfig nowhere = config_;
  nowhere.run_dir = dir_.path() / "none";
  EXPECT_EQ(isolation->Enclose(nowhere).error().code, Code::kNotFound);
  EXPECT_TRUE(given()) << "what could not be isolated keeps nothing";
}

TEST_F(IsolationTest, VouchesForProcessesWithAUserOfItsVmsOnly) {
  const auto isolation = Make("1900000000-1900000009");
  const auto vouches_for = [&](uid_t uid) {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const UniqueFd ours(ready[0]);
    UniqueFd theirs(ready[1]);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::setresuid(uid, uid, uid) != 0) ::_exit(1);
      (void)!::write(theirs.get(), "x", 1);
      for (;;) ::pause();
    }
    theirs.Reset();
    char byte = 0;
    EXPECT_EQ(::read(ours.get(), &byte, 1), 1);
    const bool vouches = isolation->Vouches(child);
    EXPECT_EQ(::kill(child, SIGKILL), 0);
    EXPECT_EQ(::waitpid(child, nullptr, 0), child);
    return vouches;
  };
  EXPECT_TRUE(vouches_for(1'900'000'000));
  EXPECT_TRUE(vouches_for(1'900'000'009));
  EXPECT_FALSE(vouches_for(1'899'999'999));
  EXPECT_FALSE(vouches_for(1'900'000'010));
  EXPECT_FALSE(vouches_for(0));
}

TEST_F(IsolationTest, NamesAFileThatAVmmMayNotRead) {
  const auto isolation = Make("1900000000");
  const auto cell = isolation->Enclose(config_).value();
  const auto path = dir_.path() / "kernel";
  std::ofstream(path) << "k";
  fs::permissions(path, fs::perms::owner_read);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto refused = isolation->MayRead(cell, fd.get(), path);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::kPermissionDenied);
  for (const char* part : {path.c_str(), "1900000000", "chmod a+r", "[vmm] uids"}) {
    EXPECT_THAT(refused.error().message, HasSubstr(part));
  }
  fs::permissions(path, fs::perms::others_read, fs::perm_options::add);
  EXPECT_TRUE(isolation->MayRead(cell, fd.get(), path).has_value())
      << "although nobody else may enter its folder";
  EXPECT_EQ(::geteuid(), 0u);
  fs::permissions(path, fs::perms::none);
  EXPECT_TRUE(ReadFile(path).has_value()) << "we are ourselves again";
}

TEST_F(IsolationTest, GroupsOfVmsThatAreGoneAreRemoved) {
  const auto isolation = Make("none", "auto");
  const auto cell = isolation->Enclose(config_).value();
  if (cell.cgroup.empty()) {
    EXPECT_THAT(isolation->Describe(), HasSubstr("no cgroups: ")) << "and then there is a reason";
    return;
  }
  VmConfig kept_config = config_;
  kept_config.id = VmId("vm-2");
  const auto kept = isolation->Enclose(kept_config).value();
  const pid_t stray = ::fork();
  if (stray == 0) {
    for (;;) ::pause();
  }
  for (const auto& member : OpenMembers(cell.cgroup).value()) {
    ASSERT_TRUE(WriteAll(member.get(), std::to_string(stray)).has_value());
  }
  EXPECT_TRUE(isolation->Vouches(stray));
  EXPECT_EQ(isolation->Confine(cell).value().confinement.cgroups.size(), cell.cgroup.size())
      << "its VMM enters them";
  EXPECT_FALSE(isolation->Vouches(::getpid()));
  isolation->RemoveGroups([](const VmId& id) { return id == VmId("vm-2"); });
  int status = 0;
  ASSERT_EQ(::waitpid(stray, &status, 0), stray);
  while (isolation->removals_pending()) isolation->RetryRemovals();
  for (const auto& folder : cell.cgroup) EXPECT_FALSE(fs::exists(folder)) << folder;
  for (const auto& folder : kept.cgroup) EXPECT_TRUE(fs::exists(folder)) << folder;
  isolation->Free(kept);
  for (const auto& folder : kept.cgroup) EXPECT_FALSE(fs::exists(folder)) << folder;
}

TEST_F(IsolationTest, AGroupThatStillHasAMemberIsRemovedLater) {
  const auto isolation = Make("none", "auto");
  const auto cell = isolation->Enclose(config_).value();
  if (cell.cgroup.empty()) return;  // as above
  const pid_t member = ::fork();
  if (member == 0) {
    for (;;) ::pause();
  }
  for (const auto& members : OpenMembers(cell.cgroup).value()) {
    ASSERT_TRUE(WriteAll(members.get(), std::to_string(member)).has_value());
  }
  isolation->Free(cell);
  EXPECT_TRUE(isolation->removals_pending());
  ASSERT_EQ(::kill(member, SIGKILL), 0);
  ASSERT_EQ(::waitpid(member, nullptr, 0), member);
  while (isolation->removals_pending()) isolation->RetryRemovals();
  for (const auto& folder : cell.cgroup) EXPECT_FALSE(fs::exists(folder)) << folder;
}

TEST_F(IsolationTest, GoesOnWithoutGroupsWhereThereAreNone) {
  const auto isolation = Make("1900000000", "../elsewhere");
  EXPECT_THAT(isolation->Describe(), HasSubstr("no cgroups: "));
  const auto cell = isolation->Enclose(config_);
  ASSERT_TRUE(cell.has_value());
  EXPECT_TRUE(cell->cgroup.empty());
}

}  // namespace
}  // namespace hatchery::hypervisor
