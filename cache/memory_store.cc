#include "cache/kv_store.h"

namespace hatchery::cache {

void KvStore::Batch::Put(Table table, std::string_view key, std::string value) {
  changes_.push_back({table, std::string(key), false, std::move(value)});
}

void KvStore::Batch::Append(const Batch& other) {
  changes_.insert(changes_.end(), other.changes_.begin(), other.changes_.end());
}
void KvStore::Batch::Delete(Table table, std::string_view key) {
  changes_.push_back({table, std::string(key), true, {}});
}

Result<void> MemoryStore::Write(const Batch& batch, Durability) {
  if (before_write) RETURN_IF_ERROR(before_write(batch));
  for (const auto& change : batch.changes()) {
    const std::pair key(change.table, change.key);
    if (change.is_delete) {
      entries_.erase(key);
    } else {
      entries_[key] = change.value;
    }
  }
  return {};
}

Result<std::string> MemoryStore::Get(Table table, std::string_view key) const {
  const auto found = entries_.find({table, std::string(key)});
  if (found == entries_.end()) return NotFound("no record '" + std::string(key) + "'");
  return found->second;
}

Result<std::vector<std::pair<std::string, std::string>>> MemoryStore::Scan(Table table) const {
  std::vector<std::pair<std::string, std::string>> all;
  for (auto it = entries_.lower_bound({table, ""});
       it != entries_.end() && it->first.first == table; ++it) {
    all.emplace_back(it->first.second, it->second);
  }
  return all;
}

}  // namespace hatchery::cache
