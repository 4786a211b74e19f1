#include "cache/records.h"

namespace hatchery::cache {

namespace {

template <class Record>
Result<void> ReadTable(const KvStore& store, Table table, std::vector<Record>& out) {
  ASSIGN_OR_RETURN(auto entries, store.Scan(table));
  for (const auto& [key, value] : entries) {
    const auto named = [&] {
      return "the metadata store's record '" + key + "' of table '" + static_cast<char>(table) +
             "'";
    };
    Record record;
    if (!record.ParseFromString(value)) return DataLoss(named() + " cannot be read");
    // It would outlive what it says it is of.
    if constexpr (requires { record.id(); }) {
      if (record.id() != key) return DataLoss(named() + " is of '" + record.id() + "'");
    }
    out.push_back(std::move(record));
  }
  return {};
}

// In the order of the numbers.
std::string EventKey(std::uint64_t revision) {
  constexpr std::size_t kDigits = 20;
  const std::string digits = std::to_string(revision);
  return std::string(kDigits - digits.size(), '0') + digits;
}

}  // namespace

Result<StoredState> LoadRecords(const KvStore& store) {
  StoredState state;
  RETURN_IF_ERROR(ReadTable(store, Table::kTemplateNames, state.template_names));
  RETURN_IF_ERROR(ReadTable(store, Table::kPools, state.pools));
  RETURN_IF_ERROR(ReadTable(store, Table::kVms, state.vms));
  RETURN_IF_ERROR(ReadTable(store, Table::kLeases, state.leases));
  RETURN_IF_ERROR(ReadTable(store, Table::kRequests, state.requests));
  RETURN_IF_ERROR(ReadTable(store, Table::kEvents, state.events));
  return state;
}

std::string_view Name(WritePoint point) {
  switch (point) {
    case WritePoint::kTemplateNamed: return "template-named";
    case WritePoint::kTemplateForgotten: return "template-forgotten";
    case WritePoint::kPoolSet: return "pool-set";
    case WritePoint::kPoolErased: return "pool-erased";
    case WritePoint::kPoolRefitted: return "pool-refitted";
    case WritePoint::kPoolLearned: return "pool-learned";
    case WritePoint::kBuildBegun: return "build-begun";
    case WritePoint::kBuildEnded: return "build-ended";
    case WritePoint::kVmSpawning: return "vm-spawning";
    case WritePoint::kVmLoaded: return "vm-loaded";
    case WritePoint::kVmWarming: return "vm-warming";
    case WritePoint::kVmWarm: return "vm-warm";
    case WritePoint::kVmAssigned: return "vm-assigned";
    case WritePoint::kVmUpdated: return "vm-updated";
    case WritePoint::kVmReleased: return "vm-released";
    case WritePoint::kVmFailed: return "vm-failed";
    case WritePoint::kVmForgotten: return "vm-forgotten";
    case WritePoint::kVmNotTakenOver: return "vm-not-taken-over";
    case WritePoint::kLeasesSwept: return "leases-swept";
    case WritePoint::kLeaseRenewed: return "lease-renewed";
    case WritePoint::kLeaseLapsed: return "lease-lapsed";
    case WritePoint::kRequestsRestored: return "requests-restored";
    case WritePoint::kRequestForgotten: return "request-forgotten";
    case WritePoint::kRequestClosed: return "request-closed";
    case WritePoint::kHealthChanged: return "health-changed";
    case WritePoint::kEventsDropped: return "events-dropped";
  }
  return "unknown";
}

std::string RequestKey(const std::string& tenant, const RequestId& id) {
  return tenant.empty() ? id.str() : tenant + "/" + id.str();
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
  batch_.Put(Table::kRequests, RequestKey(r), r.SerializeAsString());
}
void RecordBatch::DeleteTemplateName(std::string_view name) {
  batch_.Delete(Table::kTemplateNames, name);
}
void RecordBatch::DeletePool(const record::PoolRecord& r) {
  batch_.Delete(Table::kPools, PoolKey(r));
}
void RecordBatch::DeleteVm(const VmId& id) { batch_.Delete(Table::kVms, id.str()); }
void RecordBatch::DeleteLease(const LeaseId& id) { batch_.Delete(Table::kLeases, id.str()); }
void RecordBatch::DeleteRequest(const std::string& key) { batch_.Delete(Table::kRequests, key); }
void RecordBatch::Put(const record::EventRecord& r) {
  batch_.Put(Table::kEvents, EventKey(r.revision()), r.SerializeAsString());
}
void RecordBatch::DeleteEvent(std::uint64_t revision) {
  batch_.Delete(Table::kEvents, EventKey(revision));
}

Result<void> RecordBatch::Commit(KvStore& store, Durability durability) const {
  if (batch_.changes().empty()) return {};
  return store.Write(batch_, durability);
}

}  // namespace hatchery::cache
