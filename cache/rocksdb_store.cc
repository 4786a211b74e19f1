// The only file that knows RocksDB.
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/statvfs.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <mutex>

#include "base/bytes.h"
#include "base/log.h"
#include "cache/kv_store.h"

namespace hatchery::cache {

namespace {

constexpr std::size_t kWriteBuffer = 4 << 20;
// RocksDB must never meet a full disk: Debian's is built with assertions, and after one append that
// failed a later one, be it to its info log, aborts the process. So we refuse first, while a full
// write buffer and a new log still fit. What ends things (and so gives room back) may go deeper.
constexpr Bytes kHeadroom = Bytes::MiB(16);
constexpr Bytes kHeadroomToEnd = Bytes(3 * kWriteBuffer);
// How long a look at the disk holds: writing as much as the headroom takes several times as long.
// An acquire writes twice within less.
constexpr auto kLookAgain = std::chrono::milliseconds(1);

Result<void> CheckHeadroom(const std::filesystem::path& path, Bytes needed) {
  struct statvfs fs{};
  if (::statvfs(path.c_str(), &fs) != 0) return ErrnoError(errno, "looking at " + path.string());
  const Bytes left(static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize);
  if (left >= needed) return {};
  return MakeError(Code::kResourceExhausted, "the disk of the metadata store " + path.string() +
                                                 " is full: " + ToString(left) + " left of the " +
                                                 ToString(needed) + " it needs; free some space");
}

// What RocksDB has to say goes to our log, not to a file of its own.
class InfoLog final : public rocksdb::Logger {
 public:
  InfoLog() : rocksdb::Logger(rocksdb::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void LogHeader(const char*, va_list) override {}
  void Logv(const char* format, va_list arguments) override {
    std::array<char, 1024> line{};
    (void)std::vsnprintf(line.data(), line.size(), format, arguments);
    log::Warning({}, std::string("metadata store: ") + line.data());
  }
};

std::unexpected<Error> ConvertStatus(const rocksdb::Status& status, std::string_view what) {
  Code code = Code::kInternal;
  if (status.IsCorruption()) code = Code::kDataLoss;
  if (status.IsNoSpace() || status.IsMemoryLimit()) code = Code::kResourceExhausted;
  if (status.IsNotFound()) code = Code::kNotFound;
  if (status.IsIOError() && status.ToString().find("lock") != std::string::npos) {
    code = Code::kFailedPrecondition;
  }
  return MakeError(code, std::string(what) + ": " + status.ToString());
}

std::string FullKey(Table table, std::string_view key) {
  std::string full(1, static_cast<char>(table));
  full.append("/").append(key);
  return full;
}

class RocksDbStore final : public KvStore {
 public:
  RocksDbStore(std::filesystem::path path, std::unique_ptr<rocksdb::DB> db)
      : path_(std::move(path)), db_(std::move(db)) {}

  Result<void> Write(const Batch& batch, Durability durability) override {
    rocksdb::WriteBatch changes;
    bool ends = false;
    for (const auto& change : batch.changes()) {
      ends |= change.is_delete;
      const auto key = FullKey(change.table, change.key);
      const auto status = change.is_delete ? changes.Delete(key) : changes.Put(key, change.value);
      if (!status.ok()) return ConvertStatus(status, "metadata store");
    }
    RETURN_IF_ERROR(KeepHeadroom(ends ? kHeadroomToEnd : kHeadroom));
    rocksdb::WriteOptions options;
    options.sync = durability == Durability::kHost;
    const auto status = db_->Write(options, &changes);
    if (!status.ok()) return ConvertStatus(status, "writing to the metadata store");
    return {};
  }

  Result<std::string> Get(Table table, std::string_view key) const override {
    std::string value;
    const auto status = db_->Get(rocksdb::ReadOptions(), FullKey(table, key), &value);
    if (status.IsNotFound()) return NotFound("no record '" + std::string(key) + "'");
    if (!status.ok()) return ConvertStatus(status, "reading the metadata store");
    return value;
  }

  Result<std::vector<std::pair<std::string, std::string>>> Scan(Table table) const override {
    std::vector<std::pair<std::string, std::string>> all;
    const auto prefix = FullKey(table, "");
    const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions()));
    for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
      all.emplace_back(it->key().ToString().substr(prefix.size()), it->value().ToString());
    }
    if (!it->status().ok()) return ConvertStatus(it->status(), "reading the metadata store");
    return all;
  }

 private:
  // Looks again where the last look is too old to tell.
  Result<void> KeepHeadroom(Bytes needed) {
    const auto now = std::chrono::steady_clock::now();
    const std::lock_guard lock(mutex_);
    if (needed <= seen_ && now - looked_at_ < kLookAgain) return {};
    seen_ = Bytes();
    RETURN_IF_ERROR(CheckHeadroom(path_, needed));
    seen_ = needed;
    looked_at_ = now;
    return {};
  }

  std::filesystem::path path_;
  std::unique_ptr<rocksdb::DB> db_;
  std::mutex mutex_;
  Bytes seen_;  // under mutex_: that much was left at looked_at_
  std::chrono::steady_clock::time_point looked_at_;
};

}  // namespace

Result<std::unique_ptr<KvStore>> OpenRocksDb(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoError(error.value(), "creating " + path.string());
  RETURN_IF_ERROR(CheckHeadroom(path, kHeadroom));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  // A few thousand small records: the defaults are sized for another trade.
  options.write_buffer_size = kWriteBuffer;
  options.max_write_buffer_number = 2;
  options.max_background_jobs = 1;
  options.max_open_files = 64;
  // One thread writes: it need not be ready for others.
  options.allow_concurrent_memtable_write = false;
  options.enable_write_thread_adaptive_yield = false;
  options.info_log = std::make_shared<InfoLog>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // The tail of the log may be half written after a crash of the host; all before it counts.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(1 << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  rocksdb::DB* db = nullptr;
  const auto status = rocksdb::DB::Open(options, path.string(), &db);
  if (status.IsCorruption()) {
    return MakeError(Code::kDataLoss, "the metadata store " + path.string() +
                                          " is damaged; restore it, or move it away to start " +
                                          "without records: " + status.ToString());
  }
  if (!status.ok()) return ConvertStatus(status, "opening the metadata store " + path.string());
  return std::make_unique<RocksDbStore>(path, std::unique_ptr<rocksdb::DB>(db));
}

}  // namespace hatchery::cache
