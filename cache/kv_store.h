// The metadata store's seam: an ordered map from (table, key) to bytes that survives the daemon.
// RocksDB in production, a map in memory in tests; both pass tests/cache/kv_store_contract.
//
// Thread-safe, and quick enough for the loop (RocksDB: 2.7 us a write without fsync).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace hatchery::cache {

enum class Table : char {
  kTemplateNames = 't',
  kPools = 'p',
  kVms = 'v',
  kLeases = 'l',
  kRequests = 'r',
  kEvents = 'e',
};

// What a write must survive. A VM dies with its host, so a record of it need only survive the
// daemon, which the kernel's page cache guarantees without an fsync.
enum class Durability { kProcess, kHost };

class KvStore {
 public:
  virtual ~KvStore() = default;

  // Changes that become visible together or not at all.
  class Batch {
   public:
    void Put(Table table, std::string_view key, std::string value);
    void Delete(Table table, std::string_view key);
    // What `other` changes, after what this does.
    void Append(const Batch& other);
    struct Change {
      Table table;
      std::string key;
      bool is_delete = false;
      std::string value;
    };
    const std::vector<Change>& changes() const { return changes_; }
    // Which change of state this is, for people and for tests that fail one of them.
    std::string_view label;

   private:
    std::vector<Change> changes_;
  };

  // On failure (disk full, store damaged) nothing of the batch is visible.
  virtual Result<void> Write(const Batch& batch, Durability durability) = 0;

  // kNotFound when there is no such key.
  virtual Result<std::string> Get(Table table, std::string_view key) const = 0;

  // All of a table, in the order of its keys. kDataLoss when it cannot be read whole.
  virtual Result<std::vector<std::pair<std::string, std::string>>> Scan(Table table) const = 0;
};

class MemoryStore final : public KvStore {
 public:
  Result<void> Write(const Batch& batch, Durability durability) override;
  Result<std::string> Get(Table table, std::string_view key) const override;
  Result<std::vector<std::pair<std::string, std::string>>> Scan(Table table) const override;

  // Called before every write; an error refuses it. For fault injection.
  std::function<Result<void>(const Batch&)> before_write;

 private:
  std::map<std::pair<Table, std::string>, std::string> entries_;
};

// Opens (creating) the RocksDB database in the folder `path`. kFailedPrecondition when another
// process has it open, kDataLoss when it is damaged.
Result<std::unique_ptr<KvStore>> OpenRocksDb(const std::filesystem::path& path);

}  // namespace hatchery::cache
