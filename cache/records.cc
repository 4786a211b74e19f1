#include "cache/records.h"

namespace hatchery::cache {

namespace {

template <class Record>
Result<void> ReadTable(const KvStore& store, Table table, std::vector<Record>& out) {
  ASSIGN_OR_RETURN(auto entries, store.Scan(table));
  for (const auto& [key, value] : entries) {
    Record record;
    if (!record.ParseFromString(value)) {
      return DataLoss("the metadata store's record '" + key + "' of table '" +
                      static_cast<char>(table) + "' cannot be read");
    }
    out.push_back(std::move(record));
  }
  return {};
}

}  // namespace

Result<StoredState> LoadRecords(const KvStore& store) {
  StoredState state;
  RETURN_IF_ERROR(ReadTable(store, Table::kTemplateNames, state.template_names));
  RETURN_IF_ERROR(ReadTable(store, Table::kPools, state.pools));
  RETURN_IF_ERROR(ReadTable(store, Table::kVms, state.vms));
  RETURN_IF_ERROR(ReadTable(store, Table::kLeases, state.leases));
  RETURN_IF_ERROR(ReadTable(store, Table::kRequests, state.requests));
  return state;
}

std::string PoolKey(const record::PoolRecord& r) {
  return r.template_name() + "/" + std::to_string(r.vcpus()) + "/" +
         std::to_string(r.memory_bytes());
}

void RecordBatch::Put(const record::TemplateNameRecord& r) {
  batch_.Put(Table::kTemplateNames, r.name(), r.SerializeAsString());
}
void RecordBatch::Put(const record::PoolRecord& r) {
  batch_.Put(Table::kPools, PoolKey(r), r.SerializeAsString());
}
void RecordBatch::Put(const record::VmRecord& r) {
  batch_.Put(Table::kVms, r.id(), r.SerializeAsString());
}
void RecordBatch::Put(const record::LeaseRecord& r) {
  batch_.Put(Table::kLeases, r.id(), r.SerializeAsString());
}
void RecordBatch::Put(const record::RequestRecord& r) {
  batch_.Put(Table::kRequests, r.request_id(), r.SerializeAsString());
}
void RecordBatch::DeleteTemplateName(std::string_view name) {
  batch_.Delete(Table::kTemplateNames, name);
}
void RecordBatch::DeletePool(const record::PoolRecord& r) {
  batch_.Delete(Table::kPools, PoolKey(r));
}
void RecordBatch::DeleteVm(const VmId& id) { batch_.Delete(Table::kVms, id.str()); }
void RecordBatch::DeleteLease(const LeaseId& id) { batch_.Delete(Table::kLeases, id.str()); }
void RecordBatch::DeleteRequest(const RequestId& id) { batch_.Delete(Table::kRequests, id.str()); }

Result<void> RecordBatch::Commit(KvStore& store, Durability durability) {
  auto batch = std::exchange(batch_, {});
  if (batch.changes().empty()) return {};
  return store.Write(batch, durability);
}

}  // namespace hatchery::cache
