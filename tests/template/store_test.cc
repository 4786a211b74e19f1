#include "template/store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <fstream>

#include "base/files.h"
#include "base/run.h"
#include "template/memory.h"

namespace hatchery::tmpl {
namespace {

constexpr std::size_t kChunks = 6;
constexpr Bytes kMemory = Bytes(kChunks * kChunk.count());

class StoreTest : public testing::Test {
 protected:
  asio::io_context io_;
  WorkerPool workers_{2};
  TempDir dir_ = TempDir::Create("/tmp", "store-").value();
  fs::path root_ = dir_.path() / "templates";

  std::unique_ptr<Store> Open() { return Store::Open(root_, workers_).value(); }

  static Manifest Described() {
    Manifest m;
    m.created = WallTime(std::chrono::seconds(1'700'000'000));
    m.shape = {.vcpus = 1, .max_vcpus = 2, .memory = kMemory, .max_memory = Bytes::GiB(1)};
    m.inputs = {{"driver", "fake"}};
    return m;
  }

  // Chunks 0 and 4 hold a page of letters each, chunk 1 a page of written zeros, the rest is holes.
  static UniqueFd Memory() {
    UniqueFd fd = CreateMemory(kMemory).value();
    Put(fd.get(), 'a', kPage);
    Put(fd.get(), '\0', kChunk.count());
    Put(fd.get(), 'b', 4 * kChunk.count() + 7 * kPage);
    return fd;
  }
  static void Put(int fd, char letter, std::size_t at) {
    const std::string page(kPage, letter);
    ASSERT_EQ(::pwrite(fd, page.data(), page.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(kPage));
  }
  static UniqueFd State(std::string_view content = "device state") {
    UniqueFd fd(::memfd_create("state", MFD_CLOEXEC));
    EXPECT_TRUE(WriteAll(fd.get(), content).has_value());  // the offset is left at the end
    return fd;
  }

  Result<std::shared_ptr<const LoadedTemplate>> Publish(Store& store) {
    return RunUntilDone(io_, store.Publish(Described(), Memory(), State()));
  }
  TemplateDigest Published(Store& store) {
    auto loaded = Publish(store);
    EXPECT_TRUE(loaded.has_value()) << ToString(loaded.error());
    return (*loaded)->manifest().digest;
  }
  auto Load(Store& store, TemplateDigest digest) { return RunUntilDone(io_, store.Load(digest)); }
  Result<void> Verify(Store& store, TemplateDigest digest) {
    return RunUntilDone(io_, store.Verify(digest, {}));
  }

  std::size_t CountInRoot() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(root_), fs::directory_iterator()));
  }
  fs::path File(const TemplateDigest& digest, const char* name) {
    return root_ / digest.str() / name;
  }
  static void Flip(const fs::path& path, std::streamoff at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char c = static_cast<char>(file.get() ^ 1);
    file.seekp(at);
    file.put(c);
    ASSERT_TRUE(file.good());
  }
};

TEST_F(StoreTest, WhatIsPublishedComesBackAfterARestart) {
  TemplateDigest digest;
  {
    auto store = Open();
    auto published = Publish(*store).value();
    digest = published->manifest().digest;
    EXPECT_EQ(Load(*store, digest).value(), published) << "kept while somebody holds it";
  }
  auto store = Open();
  EXPECT_TRUE(Verify(*store, digest).has_value());
  auto loaded = Load(*store, digest);
  ASSERT_TRUE(loaded.has_value()) << ToString(loaded.error());
  const Manifest& m = (*loaded)->manifest();
  EXPECT_EQ(m.digest, digest);
  EXPECT_FALSE(m.memory_chunks[0].empty());
  for (std::size_t zeros : {1, 2, 3, 5}) EXPECT_TRUE(m.memory_chunks[zeros].empty()) << zeros;

  UniqueFd original = Memory();
  for (std::size_t chunk = 0; chunk < kChunks; ++chunk) {
    const auto at = static_cast<off_t>(chunk * kChunk.count());
    EXPECT_EQ(ReadSparse((*loaded)->memory_fd(), at, kChunk.count()).value(),
              ReadSparse(original.get(), at, kChunk.count()).value());
  }
  for (int twice = 0; twice < 2; ++twice) {
    UniqueFd state = (*loaded)->OpenState().value();
    char buffer[64];
    const ssize_t n = ::read(state.get(), buffer, sizeof(buffer));
    EXPECT_EQ(std::string_view(buffer, static_cast<std::size_t>(n)), "device state");
  }
}

class TakeBackTest : public StoreTest {
 protected:
  static ino_t FileOf(int fd) {
    struct stat info{};
    EXPECT_EQ(::fstat(fd, &info), 0);
    return info.st_ino;
  }
  // A store that has not loaded it, and is told that this process holds it.
  std::unique_ptr<Store> Restarted() {
    auto store = Open();
    store->SetHolders([](const TemplateDigest&) { return std::vector<pid_t>{::getpid()}; });
    return store;
  }
};

TEST_F(TakeBackTest, MemoryThatACloneHoldsIsNotReadAgain) {
  const auto clones = Publish(*Open()).value();
  auto store = Restarted();
  const auto loaded = Load(*store, clones->manifest().digest);
  ASSERT_TRUE(loaded.has_value()) << ToString(loaded.error());
  EXPECT_EQ(FileOf((*loaded)->memory_fd()), FileOf(clones->memory_fd()));
}

TEST_F(TakeBackTest, MemoryThatIsNotTheTemplatesIsRefused) {
  const TemplateDigest digest = Published(*Open());
  // Sealed and of the right size, as only one page of it is wrong.
  UniqueFd tampered = Memory();
  Put(tampered.get(), 'x', 4 * kChunk.count());
  ASSERT_TRUE(SealMemory(tampered.get()).has_value());
  auto store = Restarted();
  const auto loaded = Load(*store, digest);
  ASSERT_TRUE(loaded.has_value()) << ToString(loaded.error());
  EXPECT_NE(FileOf((*loaded)->memory_fd()), FileOf(tampered.get()));
  EXPECT_TRUE(ReadSparse((*loaded)->memory_fd(), 4 * kChunk.count(), kPage).value().empty());
}

TEST_F(TakeBackTest, MemoryThatCouldStillChangeIsRefused) {
  const TemplateDigest digest = Published(*Open());
  const UniqueFd writable = Memory();
  auto store = Restarted();
  const auto loaded = Load(*store, digest);
  ASSERT_TRUE(loaded.has_value()) << ToString(loaded.error());
  EXPECT_NE(FileOf((*loaded)->memory_fd()), FileOf(writable.get()));
}

TEST_F(StoreTest, ZerosOccupyNothingInMemoryOrOnDisk) {
  auto store = Open();
  auto published = Publish(*store).value();
  const Bytes state_page = Bytes(kPage);
  EXPECT_EQ(published->ResidentSize().value(), Bytes(2 * kPage) + state_page);
  auto entries = store->List();
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_LE(entries[0].disk_size, Bytes::KiB(64));
  EXPECT_EQ(fs::file_size(File(published->manifest().digest, "memory")), kMemory.count());

  const TemplateDigest digest = published->manifest().digest;
  published.reset();
  EXPECT_EQ(Load(*store, digest).value()->ResidentSize().value(), Bytes(2 * kPage) + state_page);
}

TEST_F(StoreTest, NobodyCanWriteToALoadedTemplate) {
  auto store = Open();
  auto published = Publish(*store).value();
  const TemplateDigest digest = published->manifest().digest;
  auto sealed = [](int fd) {
    return ::pwrite(fd, "x", 1, 0) == -1 && ::ftruncate(fd, 0) == -1 &&
           ::mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED &&
           ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage) == -1;
  };
  EXPECT_TRUE(sealed(published->memory_fd()));
  published.reset();
  EXPECT_TRUE(sealed(Load(*store, digest).value()->memory_fd()));
}

TEST_F(StoreTest, RefusesMemoryThatAVmmStillWrites) {
  auto store = Open();
  UniqueFd memory = Memory();
  void* vmm = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  ASSERT_NE(vmm, MAP_FAILED);
  auto published = RunUntilDone(io_, store->Publish(Described(), std::move(memory), State()));
  ASSERT_FALSE(published.has_value());
  EXPECT_EQ(published.error().code, Code::kFailedPrecondition);
  EXPECT_EQ(CountInRoot(), 0u);
  ::munmap(vmm, kPage);
}

TEST_F(StoreTest, RefusesMemoryOfAnotherSizeThanTheShapes) {
  auto store = Open();
  auto memory = CreateMemory(Bytes::MiB(2)).value();
  auto published = RunUntilDone(io_, store->Publish(Described(), std::move(memory), State()));
  EXPECT_EQ(published.error().code, Code::kInvalidArgument);
  EXPECT_EQ(CountInRoot(), 0u);
}

TEST_F(StoreTest, RefusesAManifestThatCouldNotBeReadBack) {
  auto store = Open();
  Manifest m = Described();
  m.shape.vcpus = 3;  // more than max_vcpus
  auto published = RunUntilDone(io_, store->Publish(m, Memory(), State()));
  EXPECT_EQ(published.error().code, Code::kInvalidArgument);
  EXPECT_EQ(CountInRoot(), 0u);
}

TEST_F(StoreTest, TheSameTemplateTwiceIsOne) {
  auto store = Open();
  const TemplateDigest first = Published(*store);
  EXPECT_EQ(Published(*store), first);
  EXPECT_EQ(CountInRoot(), 1u);
}

TEST_F(StoreTest, DamageIsNamedByFileAndChunk) {
  struct Case {
    const char* name;
    std::function<void(const fs::path&)> damage;  // of the template's folder
    std::string_view says;
  };
  const auto b = static_cast<std::streamoff>(4 * kChunk.count() + 7 * kPage);
  const Case cases[] = {
      {"a byte of memory", [=](const fs::path& f) { Flip(f / "memory", b); }, "chunk 4"},
      {"a byte in a hole", [](const fs::path& f) { Flip(f / "memory", 5 * 2097152 + 1); },
       "chunk 5"},
      {"memory cut", [](const fs::path& f) { fs::resize_file(f / "memory", 4096); }, "'memory'"},
      {"memory grown", [](const fs::path& f) { fs::resize_file(f / "memory", 1 << 25); },
       "'memory'"},
      {"memory gone", [](const fs::path& f) { fs::remove(f / "memory"); }, "'memory'"},
      {"a byte of state", [](const fs::path& f) { Flip(f / "state", 3); }, "'state'"},
      {"state cut", [](const fs::path& f) { fs::resize_file(f / "state", 3); }, "'state'"},
      {"state gone", [](const fs::path& f) { fs::remove(f / "state"); }, "'state'"},
      {"a byte of manifest", [](const fs::path& f) { Flip(f / "manifest", 30); }, "manifest"},
      {"manifest cut", [](const fs::path& f) { fs::resize_file(f / "manifest", 9); }, "manifest"},
      {"manifest empty", [](const fs::path& f) { fs::resize_file(f / "manifest", 0); }, "manifest"},
      {"manifest gone", [](const fs::path& f) { fs::remove(f / "manifest"); }, "manifest"},
  };
  for (const Case& c : cases) {
    auto store = Open();
    const TemplateDigest digest = Published(*store);
    c.damage(root_ / digest.str());
    auto verified = Verify(*store, digest);
    auto loaded = Load(*store, digest);
    ASSERT_FALSE(verified.has_value()) << c.name;
    ASSERT_FALSE(loaded.has_value()) << c.name;
    for (const Error& error : {verified.error(), loaded.error()}) {
      EXPECT_EQ(error.code, Code::kDataLoss) << c.name;
      EXPECT_NE(error.message.find(c.says), std::string::npos) << c.name << ": " << error.message;
      EXPECT_NE(error.message.find(digest.str()), std::string::npos) << error.message;
    }
    ASSERT_TRUE(RunUntilDone(io_, store->Delete(digest)).has_value()) << c.name;
  }
}

TEST_F(StoreTest, AnotherTemplatesManifestIsRefused) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  const TemplateDigest other(std::string(64, '0'));
  fs::rename(root_ / digest.str(), root_ / other.str());
  EXPECT_EQ(store->Get(other).error().code, Code::kDataLoss);
}

TEST_F(StoreTest, DraftsAreInvisibleAndSweptAtTheNextStart) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  // What a crash just before the rename leaves: a whole template under a draft's name.
  fs::copy(root_ / digest.str(), root_ / ".draft-abc123", fs::copy_options::recursive);
  EXPECT_EQ(store->List().size(), 1u);
  store = Open();
  EXPECT_FALSE(fs::exists(root_ / ".draft-abc123"));
  EXPECT_TRUE(Verify(*store, digest).has_value());
}

TEST_F(StoreTest, ListShowsWhatCannotBeReadAndSkipsStrangers) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  fs::resize_file(File(digest, "manifest"), 5);
  fs::create_directory(root_ / "lost+found");
  auto entries = store->List();
  ASSERT_EQ(entries.size(), 1u);
  EXPECT_EQ(entries[0].digest, digest);
  EXPECT_EQ(entries[0].manifest.error().code, Code::kDataLoss);
}

TEST_F(StoreTest, DeleteRemovesItFromDiskButNotFromWhoHoldsIt) {
  auto store = Open();
  auto published = Publish(*store).value();
  const TemplateDigest digest = published->manifest().digest;
  ASSERT_TRUE(RunUntilDone(io_, store->Delete(digest)).has_value());
  EXPECT_EQ(CountInRoot(), 0u);
  EXPECT_EQ(store->Get(digest).error().code, Code::kNotFound);
  EXPECT_EQ(Load(*store, digest).error().code, Code::kNotFound);
  EXPECT_EQ(RunUntilDone(io_, store->Delete(digest)).error().code, Code::kNotFound);
  EXPECT_EQ(ReadSparse(published->memory_fd(), 0, 2 * kPage).value().size(), 2 * kPage);
  EXPECT_TRUE(published->OpenState().has_value());
}

TEST_F(StoreTest, LoadsAtOnceShareOneRead) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  TaskScope scope(io_.get_executor());
  std::vector<std::shared_ptr<const LoadedTemplate>> got;
  auto load = [](Store& s, TemplateDigest d, decltype(got)& out) -> asio::awaitable<void> {
    auto loaded = co_await s.Load(d);
    EXPECT_TRUE(loaded.has_value());
    if (loaded) out.push_back(*loaded);
  };
  for (int i = 0; i < 3; ++i) scope.Spawn("load", load(*store, digest, got));
  RunUntilDone(io_,
               [](TaskScope& s) -> Task<void> {
                 co_await s.Join();
                 co_return Result<void>();
               }(scope))
      .value();
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got[0], got[2]);
}

TEST_F(StoreTest, ACancelledLoadDoesNotFailWhoWaitsForIt) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  TaskScope first(io_.get_executor()), second(io_.get_executor());
  std::optional<Result<std::shared_ptr<const LoadedTemplate>>> a, b;
  auto load = [](Store& s, TemplateDigest d, decltype(a)& out) -> asio::awaitable<void> {
    out = co_await s.Load(d);
  };
  first.Spawn("load", load(*store, digest, a));
  second.Spawn("load", load(*store, digest, b));
  RunUntilDone(io_,
               [](TaskScope& one, TaskScope& two) -> Task<void> {
                 // Both have begun by the time this runs; workers answer by posting, so none has
                 // ended.
                 one.Cancel();
                 co_await one.Join();
                 co_await two.Join();
                 co_return Result<void>();
               }(first, second))
      .value();
  EXPECT_EQ(a->error().code, Code::kCancelled);
  EXPECT_TRUE(b->has_value());
}

TEST_F(StoreTest, ACancelledPublishLeavesNothing) {
  auto store = Open();
  TaskScope scope(io_.get_executor());
  std::optional<Result<std::shared_ptr<const LoadedTemplate>>> result;
  scope.Spawn("publish",
              [](Store& s, Manifest m, UniqueFd memory, UniqueFd state,
                 decltype(result)& out) -> asio::awaitable<void> {
                out = co_await s.Publish(std::move(m), std::move(memory), std::move(state));
              }(*store, Described(), Memory(), State(), result));
  RunUntilDone(io_,
               [](TaskScope& s) -> Task<void> {
                 s.Cancel();
                 co_await s.Join();
                 co_return Result<void>();
               }(scope))
      .value();
  EXPECT_EQ(result->error().code, Code::kCancelled);
  EXPECT_EQ(CountInRoot(), 0u);
}

TEST_F(StoreTest, VerifyTellsHowFarItIs) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  Bytes last;
  auto verified = RunUntilDone(io_, store->Verify(digest, [&](Bytes done, Bytes total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, kMemory);
    last = done;
  }));
  EXPECT_TRUE(verified.has_value());
  EXPECT_EQ(last, kMemory);
}

TEST_F(StoreTest, NothingButADigestTouchesThePath) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  std::string upper = digest.str();
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  for (const std::string& bad : {std::string(), std::string("../templates/") + digest.str(), upper,
                                 digest.str() + "/", digest.str().substr(1), std::string(".")}) {
    const TemplateDigest d(bad);
    EXPECT_EQ(store->Get(d).error().code, Code::kInvalidArgument) << bad;
    EXPECT_EQ(Load(*store, d).error().code, Code::kInvalidArgument) << bad;
    EXPECT_EQ(Verify(*store, d).error().code, Code::kInvalidArgument) << bad;
    EXPECT_EQ(RunUntilDone(io_, store->Delete(d)).error().code, Code::kInvalidArgument) << bad;
  }
  EXPECT_EQ(CountInRoot(), 1u);
}

TEST_F(StoreTest, AWriteBeyondTheFileSizeLimitLeavesNothing) {
  auto store = Open();
  rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* handler = ::signal(SIGXFSZ, SIG_IGN);
  // Memory and state are made before: a memfd is a file to this limit, too.
  UniqueFd memory = Memory(), state = State();
  const rlimit small{.rlim_cur = 1 << 20, .rlim_max = old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  auto published =
      RunUntilDone(io_, store->Publish(Described(), std::move(memory), std::move(state)));
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, handler);
  ASSERT_FALSE(published.has_value());
  EXPECT_EQ(published.error().code, Code::kResourceExhausted) << ToString(published.error());
  EXPECT_EQ(CountInRoot(), 0u);
}

TEST_F(StoreTest, AFullDiskLeavesNothing) {
  fs::create_directory(root_);
  ASSERT_EQ(::mount("none", root_.c_str(), "tmpfs", 0, "size=64k"), 0)
      << "tests run as root, to mount a small filesystem";
  {
    auto store = Open();
    UniqueFd memory = Memory();
    for (std::size_t page = 0; page < 100; ++page) Put(memory.get(), 'x', page * kPage);
    auto published = RunUntilDone(io_, store->Publish(Described(), std::move(memory), State()));
    EXPECT_FALSE(published.has_value());
    EXPECT_EQ(published.error().code, Code::kResourceExhausted) << ToString(published.error());
    EXPECT_EQ(CountInRoot(), 0u);
    // And once there is room again, it works.
    auto smaller = Publish(*store);
    EXPECT_TRUE(smaller.has_value()) << ToString(smaller.error());
  }
  ::umount2(root_.c_str(), MNT_DETACH);
}

TEST_F(StoreTest, FilesAreForTheirOwnerOnly) {
  auto store = Open();
  const TemplateDigest digest = Published(*store);
  for (const fs::path& path : {root_, root_ / digest.str(), File(digest, "memory"),
                               File(digest, "state"), File(digest, "manifest")}) {
    struct stat info;
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 077, 0u) << path;
  }
}

}  // namespace
}  // namespace hatchery::tmpl
