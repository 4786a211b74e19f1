// One contract for every metadata store, run on the one in memory and on RocksDB.
#include "cache/kv_store.h"

#include <gtest/gtest.h>

#include "base/files.h"

namespace hatchery::cache {
namespace {

struct Opened {
  std::optional<TempDir> dir;
  std::unique_ptr<KvStore> store;
};

Opened OpenMemory() { return {std::nullopt, std::make_unique<MemoryStore>()}; }
Opened OpenRocks() {
  auto dir = TempDir::Create("/tmp", "hatchery-kv-").value();
  auto store = OpenRocksDb(dir.path() / "db").value();
  return {std::move(dir), std::move(store)};
}

class KvStoreContract : public testing::TestWithParam<Opened (*)()> {
 protected:
  Opened opened_ = GetParam()();
  KvStore& store_ = *opened_.store;
};

TEST_P(KvStoreContract, ReadsWhatWasWritten) {
  KvStore::Batch batch;
  batch.Put(Table::kVms, "a", std::string("1\0x", 3));
  batch.Put(Table::kLeases, "a", "2");
  ASSERT_TRUE(store_.Write(batch, Durability::kProcess).has_value());
  EXPECT_EQ(store_.Get(Table::kVms, "a").value(), std::string("1\0x", 3));
  EXPECT_EQ(store_.Get(Table::kLeases, "a").value(), "2");
  EXPECT_EQ(store_.Get(Table::kVms, "b").error().code, Code::kNotFound);
}

TEST_P(KvStoreContract, LaterChangesOfABatchWin) {
  KvStore::Batch batch;
  batch.Put(Table::kVms, "a", "1");
  batch.Put(Table::kVms, "a", "2");
  batch.Put(Table::kVms, "b", "1");
  batch.Delete(Table::kVms, "b");
  ASSERT_TRUE(store_.Write(batch, Durability::kHost).has_value());
  EXPECT_EQ(store_.Get(Table::kVms, "a").value(), "2");
  EXPECT_FALSE(store_.Get(Table::kVms, "b").has_value());
}

TEST_P(KvStoreContract, ScansOneTableInOrder) {
  KvStore::Batch batch;
  batch.Put(Table::kPools, "b/1", "x");
  batch.Put(Table::kPools, "a/1", "y");
  batch.Put(Table::kTemplateNames, "a", "z");
  batch.Put(Table::kRequests, "q", "w");
  ASSERT_TRUE(store_.Write(batch, Durability::kProcess).has_value());
  using Entries = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(store_.Scan(Table::kPools).value(), (Entries{{"a/1", "y"}, {"b/1", "x"}}));
  EXPECT_EQ(store_.Scan(Table::kVms).value(), Entries{});
}

TEST_P(KvStoreContract, DeletingWhatIsNotThereIsNoError) {
  KvStore::Batch batch;
  batch.Delete(Table::kVms, "nobody");
  EXPECT_TRUE(store_.Write(batch, Durability::kProcess).has_value());
}

INSTANTIATE_TEST_SUITE_P(Memory, KvStoreContract, testing::Values(&OpenMemory));
INSTANTIATE_TEST_SUITE_P(RocksDb, KvStoreContract, testing::Values(&OpenRocks));

TEST(RocksDbStore, KeepsItsRecordsWhenReopened) {
  auto dir = TempDir::Create("/tmp", "hatchery-kv-").value();
  {
    auto store = OpenRocksDb(dir.path() / "db").value();
    KvStore::Batch batch;
    batch.Put(Table::kVms, "a", "1");
    ASSERT_TRUE(store->Write(batch, Durability::kProcess).has_value());
  }
  EXPECT_EQ(OpenRocksDb(dir.path() / "db").value()->Get(Table::kVms, "a").value(), "1");
}

TEST(RocksDbStore, RefusesASecondOpenerAndNamesTheFolder) {
  auto dir = TempDir::Create("/tmp", "hatchery-kv-").value();
  auto first = OpenRocksDb(dir.path() / "db").value();
  auto second = OpenRocksDb(dir.path() / "db");
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
  EXPECT_NE(second.error().message.find(dir.path().string()), std::string::npos);
}

TEST(RocksDbStore, SaysThatADamagedStoreIsDamaged) {
  auto dir = TempDir::Create("/tmp", "hatchery-kv-").value();
  {
    auto store = OpenRocksDb(dir.path() / "db").value();
  }
  ASSERT_TRUE(WriteFileAtomically(dir.path() / "db" / "CURRENT", "nonsense").has_value());
  EXPECT_EQ(OpenRocksDb(dir.path() / "db").error().code, Code::kDataLoss);
}

}  // namespace
}  // namespace hatchery::cache
