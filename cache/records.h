// The metadata store's records, typed: who reads and writes which protobuf under which key.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/status.h"
#include "cache/kv_store.h"
#include "hatchery/store/v1/records.pb.h"

namespace hatchery::cache {

namespace record = hatchery::store::v1;

// Every record, as it was when the daemon last ran.
struct StoredState {
  std::vector<record::TemplateNameRecord> template_names;
  std::vector<record::PoolRecord> pools;
  std::vector<record::VmRecord> vms;
  std::vector<record::LeaseRecord> leases;
  std::vector<record::RequestRecord> requests;
};

// kDataLoss names a record that cannot be read.
Result<StoredState> LoadRecords(const KvStore& store);

// One atomic change. Collect, then Commit(); uncommitted changes are dropped.
class RecordBatch {
 public:
  void Put(const record::TemplateNameRecord& r);
  void Put(const record::PoolRecord& r);
  void Put(const record::VmRecord& r);
  void Put(const record::LeaseRecord& r);
  void Put(const record::RequestRecord& r);
  void DeleteTemplateName(std::string_view name);
  void DeletePool(const record::PoolRecord& r);
  void DeleteVm(const VmId& id);
  void DeleteLease(const LeaseId& id);
  void DeleteRequest(const RequestId& id);

  Result<void> Commit(KvStore& store, Durability durability = Durability::kProcess);

 private:
  KvStore::Batch batch_;
};

// template '/' vcpus '/' bytes.
std::string PoolKey(const record::PoolRecord& r);

}  // namespace hatchery::cache
