#include "cmd/hatchery/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/files.h"

namespace hatchery::cli {
namespace {

using testing::HasSubstr;

class DoctorTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& content) {
    ASSERT_TRUE(MakeDirectories((root_ / path).parent_path()).has_value());
    ASSERT_TRUE(WriteFileAtomically(root_ / path, content, 0755).has_value());
  }

  TempDir folder_ = *TempDir::Create(fs::temp_directory_path(), "doctor-test-");
  fs::path root_ = folder_.path();
};

TEST_F(DoctorTest, TellsAMissingKvmFromOneThatMakesNoVm) {
  auto findings = CheckKvmDevice(root_);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].verdict, Verdict::kWarn);
  EXPECT_THAT(findings[0].found, HasSubstr("there is no /dev/kvm"));

  Write("dev/kvm", "a plain file answers no ioctl");
  findings = CheckKvmDevice(root_);
  ASSERT_EQ(findings.size(), 3u);
  EXPECT_EQ(findings[0].verdict, Verdict::kOk);
  EXPECT_EQ(findings[1].verdict, Verdict::kOk);
  EXPECT_EQ(findings[2].check, "kvm_create_vm");
  EXPECT_EQ(findings[2].verdict, Verdict::kWarn);
}

TEST_F(DoctorTest, KnowsWhichQemuIsNewEnough) {
  auto verdict = [](std::string_view output) { return CheckQemuVersion("qemu", output).verdict; };
  EXPECT_EQ(verdict("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"), Verdict::kOk);
  EXPECT_EQ(verdict("QEMU emulator version 10.0.0"), Verdict::kOk);
  EXPECT_EQ(verdict("QEMU emulator version 7.1.9"), Verdict::kFail);
  EXPECT_EQ(verdict("QEMU emulator version 6.2"), Verdict::kFail);
  EXPECT_EQ(verdict("hello"), Verdict::kFail);
  EXPECT_EQ(verdict("version "), Verdict::kFail);
  EXPECT_EQ(verdict(""), Verdict::kFail);
}

TEST_F(DoctorTest, ReadsMemoryAndHugePages) {
  Write("proc/meminfo",
        "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 524288 kB\n"
        "HugePages_Total:      12\n");
  Write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  EXPECT_EQ(CheckMemory(root_).found, "512 MiB available of 8 GiB");
  EXPECT_EQ(CheckMemory(root_).verdict, Verdict::kWarn);
  EXPECT_THAT(CheckHugePages(root_).found, HasSubstr("transparent: madvise; reserved: 12"));
}

TEST_F(DoctorTest, SurvivesAHostThatTellsNothing) {
  EXPECT_EQ(CheckMemory(root_).verdict, Verdict::kWarn);
  EXPECT_THAT(CheckHugePages(root_).found, HasSubstr("transparent: absent"));
  EXPECT_EQ(CheckCgroup(root_).verdict, Verdict::kWarn);
  EXPECT_EQ(CheckVsock(root_).verdict, Verdict::kOk);
}

TEST_F(DoctorTest, TellsAVsockDeviceThatGivesNoContextId) {
  EXPECT_THAT(CheckVsock(root_).found, HasSubstr("there is no /dev/vhost-vsock"));
  Write("dev/vhost-vsock", "a plain file answers no ioctl");
  const Finding finding = CheckVsock(root_);
  EXPECT_EQ(finding.verdict, Verdict::kWarn);
  EXPECT_THAT(finding.found, HasSubstr("cannot be used"));
  EXPECT_THAT(finding.fix, HasSubstr("group kvm"));
}

TEST_F(DoctorTest, TellsCgroupVersions) {
  Write("sys/fs/cgroup/memory/tasks", "");
  EXPECT_EQ(CheckCgroup(root_).found, "version 1");
  Write("sys/fs/cgroup/cgroup.controllers", "");
  EXPECT_EQ(CheckCgroup(root_).found, "version 2");
}

TEST_F(DoctorTest, NamesTheToolsThatAreMissing) {
  EXPECT_THAT(CheckImageTools(root_, "/usr/bin:/bin").found, HasSubstr("no apt-get and dpkg"));
  Write("bin/apt-get", "");
  EXPECT_THAT(CheckImageTools(root_, "/usr/bin:/bin").found, HasSubstr("no dpkg"));
  Write("usr/bin/dpkg", "");
  EXPECT_EQ(CheckImageTools(root_, "/usr/bin:/bin").verdict, Verdict::kOk);
}

TEST_F(DoctorTest, ASealedMemfdCannotBeWritten) {
  EXPECT_EQ(CheckMemfd().verdict, Verdict::kOk) << CheckMemfd().found;
}

TEST_F(DoctorTest, WarnsOfALowHardLimitOnly) {
  EXPECT_EQ(CheckOpenFiles(1024, 1 << 20).verdict, Verdict::kOk);
  EXPECT_EQ(CheckOpenFiles(1024, 1024).verdict, Verdict::kWarn);
  EXPECT_THAT(CheckOpenFiles(1024, ~0ull).found, HasSubstr("unlimited"));
}

TEST_F(DoctorTest, LooksAtTheFolderTheStateDirWouldBeMadeIn) {
  EXPECT_EQ(CheckStateDir(root_).verdict, Verdict::kOk);
  EXPECT_THAT(CheckStateDir(root_ / "a/b").found, HasSubstr("can be made"));
  Write("file", "");
  EXPECT_EQ(CheckStateDir(root_ / "file/x").verdict, Verdict::kFail);
}

TEST(DoctorReport, FailsOnlyWhenSomethingNeededIsMissing) {
  std::vector<Finding> findings = {{"one_thing", Verdict::kOk, "fine", ""},
                                   {"two", Verdict::kWarn, "slow", "speed it up"}};
  EXPECT_FALSE(AnyFailed(findings));
  EXPECT_EQ(ToText(findings),
            "ok    one thing  fine\n"
            "warn  two        slow\n"
            "                 -> speed it up\n");
  findings[0].verdict = Verdict::kFail;
  EXPECT_TRUE(AnyFailed(findings));
  EXPECT_EQ(ToJson(findings)["ok"], false);
  EXPECT_EQ(ToJson(findings)["findings"][0]["verdict"], "fail");
}

}  // namespace
}  // namespace hatchery::cli
