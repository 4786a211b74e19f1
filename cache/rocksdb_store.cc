// The only file that knows RocksDB.
#include <rocksdb/db.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "cache/kv_store.h"

namespace hatchery::cache {

namespace {

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
  explicit RocksDbStore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}

  Result<void> Write(const Batch& batch, Durability durability) override {
    rocksdb::WriteBatch changes;
    for (const auto& change : batch.changes()) {
      const auto key = FullKey(change.table, change.key);
      const auto status = change.is_delete ? changes.Delete(key) : changes.Put(key, change.value);
      if (!status.ok()) return ConvertStatus(status, "metadata store");
    }
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
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace

Result<std::unique_ptr<KvStore>> OpenRocksDb(const std::filesystem::path& path) {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  // A few thousand small records: the defaults are sized for another trade.
  options.write_buffer_size = 4 << 20;
  options.max_write_buffer_number = 2;
  options.max_background_jobs = 1;
  options.max_open_files = 64;
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // The tail of the log may be half written after a crash of the host; all before it counts.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(1 << 20);
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  rocksdb::DB* db = nullptr;
  const auto status = rocksdb::DB::Open(options, path.string(), &db);
  if (!status.ok()) return ConvertStatus(status, "opening the metadata store " + path.string());
  return std::make_unique<RocksDbStore>(std::unique_ptr<rocksdb::DB>(db));
}

}  // namespace hatchery::cache
