// The metadata store's records, typed: who reads and writes which protobuf under which key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
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
  std::vector<record::EventRecord> events;  // oldest first
};

// kDataLoss names a record that cannot be read.
Result<StoredState> LoadRecords(const KvStore& store);

// Every change of state that is written down. The daemon may die before or after any of them: the
// torture test makes it do so at each one.
enum class WritePoint {
  kTemplateNamed,
  kTemplateForgotten,
  kPoolSet,
  kPoolErased,
  kPoolRefitted,
  kPoolLearned,
  kBuildBegun,
  kBuildEnded,
  kVmSpawning,
  kVmLoaded,
  kVmWarming,
  kVmWarm,
  kVmAssigned,
  kVmUpdated,
  kVmReleased,
  kVmFailed,
  kVmForgotten,
  kVmNotTakenOver,
  kLeasesSwept,
  kLeaseRenewed,
  kLeaseLapsed,
  kRequestsRestored,
  kRequestForgotten,
  kRequestClosed,
  kHealthChanged,
  kEventsDropped,
};
inline constexpr std::size_t kWritePoints =
    static_cast<std::size_t>(WritePoint::kEventsDropped) + 1;
// "vm-assigned" …
std::string_view Name(WritePoint point);

// One atomic change. Collect, then Commit(); uncommitted changes are dropped.
class RecordBatch {
 public:
  explicit RecordBatch(WritePoint point) : point_(point) { batch_.label = Name(point); }

  void Put(const record::TemplateNameRecord& r);
  void Put(const record::PoolRecord& r);
  void Put(const record::VmRecord& r);
  void Put(const record::LeaseRecord& r);
  void Put(const record::RequestRecord& r);
  void DeleteTemplateName(std::string_view name);
  void DeletePool(const record::PoolRecord& r);
  void DeleteVm(const VmId& id);
  void DeleteLease(const LeaseId& id);
  void DeleteRequest(const std::string& key);
  void Put(const record::EventRecord& r);
  void DeleteEvent(std::uint64_t revision);

  // What `later` changes, after what this does.
  void Append(const RecordBatch& later) { batch_.Append(later.batch_); }

  WritePoint point() const { return point_; }

  // Writes nothing when nothing was collected.
  Result<void> Commit(KvStore& store, Durability durability = Durability::kProcess) const;

 private:
  WritePoint point_;
  KvStore::Batch batch_;
};

// Whether a leased VM's acquire has come so far that its caller may have had the answer: its guest
// has confirmed its new identity, or it was handed over. Records of before there was `confirmed`
// have a boot_id then.
inline bool IsConfirmed(const record::VmRecord& vm) {
  return vm.confirmed() || !vm.boot_id().empty();
}

// The key of a request's record: ids are a tenant's own.
std::string RequestKey(const std::string& tenant, const RequestId& id);
inline std::string RequestKey(const record::RequestRecord& r) {
  return RequestKey(r.tenant(), RequestId(r.request_id()));
}

// template '/' vcpus '/' bytes.
std::string PoolKey(const record::PoolRecord& r);

}  // namespace hatchery::cache
