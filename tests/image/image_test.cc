// The whole build on tiny packages, with apt's two programs replaced by scripts.
#include "image/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/files.h"
#include "base/run.h"
#include "base/sha256.h"
#include "image/elf.h"
#include "image/packages.h"

namespace hatchery::image {
namespace {

using std::chrono::minutes;
using testing::Contains;
using testing::HasSubstr;

// Starts what stands in for a program, or says that it is not installed.
class SubstitutingSpawner final : public ProcessSpawner {
 public:
  explicit SubstitutingSpawner(Executor executor) : real_(std::move(executor)) {}

  Result<std::unique_ptr<Process>> Spawn(const SpawnRequest& request) override {
    SpawnRequest changed = request;
    // apt-get download is started by env, in a folder.
    for (auto& word : changed.argv) {
      if (missing.contains(word)) return NotFound("starting " + word);
      if (const auto it = substitutes.find(word); it != substitutes.end()) word = it->second;
    }
    return real_.Spawn(changed);
  }

  std::map<std::string, std::string> substitutes;
  std::set<std::string> missing;

 private:
  PosixSpawner real_;
};

class ImageTest : public testing::Test {
 public:
  ImageTest() {
    Write("pool/linux-image-9.deb", MakeDeb("linux-image-9", [&](const fs::path& tree) {
            Put(tree / "boot/vmlinuz-9.1", "the kernel");
            const fs::path modules = tree / "lib/modules/9.1";
            // All that the image needs, some loadable and the rest built in.
            Put(modules / "modules.builtin",
                "kernel/virtio_pci_modern_dev.ko\nkernel/virtio_pci_legacy_dev.ko\n"
                "kernel/virtio_pci.ko\nkernel/virtio_console.ko\nkernel/virtio-rng.ko\n"
                "kernel/vsock.ko\nkernel/vmw_vsock_virtio_transport_common.ko\n"
                "kernel/vmw_vsock_virtio_transport.ko\n");
            Put(modules / "modules.dep",
                "kernel/virtio.ko: kernel/virtio_ring.ko\n"
                "kernel/virtio_ring.ko:\n");
            Put(modules / "kernel/virtio.ko", "module virtio");
            Put(modules / "kernel/virtio_ring.ko", "module virtio_ring");
          }));
    Write("pool/busybox-static.deb", MakeDeb("busybox-static", [&](const fs::path& tree) {
            Put(tree / "bin/busybox", "#!/bin/sh\nprintf '[\\nbusybox\\nsh\\n'\n");
            fs::permissions(tree / "bin/busybox", fs::perms(0755));
          }));
    WriteStanzas();
    Script("apt-cache", "cat " + Path("lists/$3"));
    // Its lists know one package more after an update.
    Script("apt-get", "echo \"$@\" >> " + Path("fetched") + "\nif [ $1 = update ]; then cp " +
                          Path("lists/linux-image-9") + " " + Path("lists/linux-image-new") +
                          "; exit; fi\nfor last; do :; done; cp " + Path("pool/${last%%=*}.deb") +
                          " .");
    spawner_.substitutes = {{"apt-cache", Path("apt-cache")}, {"apt-get", Path("apt-get")}};
    options_ = {.out_dir = dir_.path() / "out",
                .agent = dir_.path() / "agent",
                .kernel_package = "linux-image-meta"};
    WriteStaticProgram(options_.agent);
  }

  std::string Path(const std::string& name) const { return (dir_.path() / name).string(); }
  static void Put(const fs::path& path, const std::string& content) {
    MakeDirectories(path.parent_path()).value();
    WriteFileAtomically(path, content).value();
  }
  void Write(const std::string& name, const std::string& content) { Put(Path(name), content); }
  void Script(const std::string& name, const std::string& body) {
    Write(name, "#!/bin/sh\nset -e\n" + body + "\n");
    fs::permissions(Path(name), fs::perms(0755));
  }

  // A real package, as bytes.
  template <class Fill>
  std::string MakeDeb(const std::string& name, Fill fill) {
    auto tree = TempDir::Create(dir_.path(), "tree-").value();
    Put(tree.path() / "DEBIAN/control", "Package: " + name +
                                            "\nVersion: 1\nArchitecture: all\n"
                                            "Maintainer: nobody <n@example.org>\nDescription: x\n");
    fill(tree.path());
    const std::string file = Path(name + ".built");
    const auto built = RunUntilDone(
        io_,
        RunCommand(spawner_, {"dpkg-deb", "-b", tree.path().string(), file}, After(minutes(1))));
    EXPECT_EQ(built.value().status.value, 0) << built.value().err;
    return ReadFile(file).value();
  }

  void WriteStanzas() {
    const auto stanza = [&](const std::string& name, const std::string& depends) {
      Write("lists/" + name,
            "Package: " + name + "\nVersion: 1\n" + depends + "Filename: pool/" + name +
                ".deb\nSHA256: " + Sha256OfFile(Path("pool/" + name + ".deb")).value_or("none") +
                "\n");
    };
    stanza("linux-image-9", "Depends: kmod, linux-base (>= 4)\n");
    stanza("linux-image-meta", "Depends: linux-image-9 (= 1)\n");
    stanza("busybox-static", "");
  }

  static void WriteStaticProgram(const fs::path& path, const std::string& more = "") {
    // An ELF header without segments is all that is looked at.
    std::string elf(
        "\x7f"
        "ELF\x02\x01\x01",
        7);
    elf.resize(64, '\0');
    elf[16] = 2;   // ET_EXEC
    elf[54] = 56;  // e_phentsize
    Put(path, elf + more);
  }

  Result<GuestImage> BuildIt() {
    said_.clear();
    return RunUntilDone(
        io_, Build(
                 spawner_, workers_, options_, [this](std::string line) { said_.push_back(line); },
                 After(minutes(2))));
  }

  asio::io_context io_;
  WorkerPool workers_{1};
  SubstitutingSpawner spawner_{io_.get_executor()};
  TempDir dir_ = TempDir::Create("/tmp", "image-").value();
  BuildOptions options_;
  std::vector<std::string> said_;
};

TEST_F(ImageTest, BuildsFromPackages) {
  EXPECT_EQ(Find(options_.out_dir), std::nullopt);
  const auto image = BuildIt();
  ASSERT_TRUE(image.has_value()) << ToString(image.error());
  EXPECT_EQ(Find(options_.out_dir), *image);
  EXPECT_EQ(ReadFile(image->kernel).value(), "the kernel");
  const std::string initrd = ReadFile(image->initrd).value();
  EXPECT_THAT(initrd, HasSubstr("/lib/modules/9.1/kernel/virtio_ring.ko\n"
                                "/lib/modules/9.1/kernel/virtio.ko\n"));
  EXPECT_THAT(initrd, HasSubstr("module virtio_ring"));
  EXPECT_THAT(initrd, HasSubstr("bin/["));
  // Nothing of the work is left.
  for (const auto& entry : fs::directory_iterator(options_.out_dir)) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".build-")) << entry.path();
  }
}

TEST_F(ImageTest, TheSameInputsAreNotBuiltAgain) {
  const auto image = BuildIt().value();
  const auto written = fs::last_write_time(image.initrd);
  ASSERT_TRUE(BuildIt().has_value());
  EXPECT_THAT(said_, Contains(HasSubstr("up to date")));
  EXPECT_EQ(fs::last_write_time(image.initrd), written);
}

TEST_F(ImageTest, TheSameInputsGiveTheSameBytesElsewhere) {
  const std::string first = ReadFile(BuildIt().value().initrd).value();
  options_.out_dir = dir_.path() / "elsewhere";
  EXPECT_EQ(ReadFile(BuildIt().value().initrd).value(), first);
}

TEST_F(ImageTest, AChangedAgentOrADamagedOutputIsBuiltAnewWithoutDownload) {
  auto image = BuildIt().value();
  const std::string first = ReadFile(image.initrd).value();
  WriteStaticProgram(options_.agent, "changed");
  ASSERT_TRUE(BuildIt().has_value());
  EXPECT_NE(ReadFile(image.initrd).value(), first);
  Put(image.kernel, "the damage");  // of the same size
  ASSERT_TRUE(BuildIt().has_value());
  EXPECT_EQ(ReadFile(image.kernel).value(), "the kernel");
  EXPECT_EQ(std::ranges::count(ReadFile(Path("fetched")).value(), '\n'), 2);
}

TEST_F(ImageTest, ADamagedPackageInTheCacheIsFetchedAgain) {
  Put(options_.out_dir / "packages/busybox-static.deb", "half a package");
  ASSERT_TRUE(BuildIt().has_value());
  EXPECT_THAT(said_, Contains(HasSubstr("damaged")));
}

TEST_F(ImageTest, RefusesADownloadThatIsNotWhatTheListsSay) {
  Write("pool/busybox-static.deb", "another package");
  const auto image = BuildIt();
  EXPECT_EQ(image.error().code, Code::kDataLoss);
  EXPECT_THAT(image.error().message, HasSubstr("apt-get update"));
  EXPECT_EQ(Find(options_.out_dir), std::nullopt);
}

TEST_F(ImageTest, SaysWhatToDoWithoutApt) {
  spawner_.missing = {"apt-cache"};
  EXPECT_EQ(BuildIt().error().code, Code::kFailedPrecondition);
  EXPECT_THAT(BuildIt().error().message, HasSubstr("apt-cache is not installed"));
}

TEST_F(ImageTest, SaysWhatToDoAboutAnUnknownPackage) {
  options_.kernel_package = "linux-image-none";
  const auto image = BuildIt();
  EXPECT_THAT(image.error().message, HasSubstr("linux-image-none"));
  options_.kernel_package = "--option";
  EXPECT_EQ(BuildIt().error().field, "kernel_package");
}

TEST_F(ImageTest, UpdatesAptsListsWhenTheyLackThePackage) {
  ASSERT_EQ(::geteuid(), 0u) << "only root can update apt's lists";
  options_.kernel_package = "linux-image-new";
  const auto image = BuildIt();
  ASSERT_TRUE(image.has_value()) << ToString(image.error());
  EXPECT_THAT(said_, Contains(HasSubstr("updating its lists")));
}

TEST_F(ImageTest, RefusesADynamicOrMissingAgent) {
  options_.agent = "/bin/sh";
  auto image = BuildIt();
  EXPECT_EQ(image.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(image.error().message, HasSubstr("dynamically linked"));
  options_.agent = "/etc/hostname";
  EXPECT_THAT(BuildIt().error().message, HasSubstr("ELF"));
  options_.agent = Path("nowhere");
  EXPECT_THAT(BuildIt().error().message, HasSubstr("hatchery-agent"));
}

TEST_F(ImageTest, SaysThatItCannotWrite) {
  options_.out_dir = options_.agent / "below-a-file";
  EXPECT_THAT(BuildIt().error().message, HasSubstr("choose another folder"));
}

TEST_F(ImageTest, AManifestOfNonsenseIsNoImage) {
  const auto image = BuildIt().value();
  for (const char* text : {"", "[]", "{}", R"({"kernel":1,"initrd":{"size":"big"}})"}) {
    Put(options_.out_dir / "image.json", text);
    EXPECT_EQ(Find(options_.out_dir), std::nullopt) << text;
  }
  EXPECT_TRUE(BuildIt().has_value());
  EXPECT_EQ(Find(options_.out_dir), image);
}

TEST(FindDependency, ReadsTheFirstThatFits) {
  const Package package{.name = "meta", .depends = "kmod, linux-image-6.1-cloud (= 6.1-2), x"};
  EXPECT_EQ(FindDependency(package, "linux-image-").value(), "linux-image-6.1-cloud");
  EXPECT_EQ(FindDependency(package, "initramfs-").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace hatchery::image
