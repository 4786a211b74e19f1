// What the metadata store holds when the daemon starts. Each line is a table's letter, a key and a
// record in protobuf's text form: v vm-1 id: "vm-1" phase: VM_PHASE_WARM handle: "fake 1 vm-1"
// Three VMs live: vm-1 and vm-2, paused, and vm-3, which runs.
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <map>
#include <set>

#include "base/log.h"
#include "template/memory.h"
#include "tests/cache/fixture.h"
#include "tests/fuzz/fuzz.h"

namespace hatchery::cache {
namespace {

using fuzz::Require;

class Silence final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int, const std::string&) override {}
};

template <class Record>
std::optional<std::string> Parse(std::string_view text) {
  Silence silence;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&silence);
  Record record;
  if (!parser.ParseFromString(std::string(text), &record)) return std::nullopt;
  return record.SerializeAsString();
}

// Bytes that are no record are stored as they are.
std::string Value(Table table, std::string_view text) {
  std::optional<std::string> value;
  switch (table) {
    case Table::kTemplateNames: value = Parse<record::TemplateNameRecord>(text); break;
    case Table::kPools: value = Parse<record::PoolRecord>(text); break;
    case Table::kVms: value = Parse<record::VmRecord>(text); break;
    case Table::kLeases: value = Parse<record::LeaseRecord>(text); break;
    case Table::kRequests: value = Parse<record::RequestRecord>(text); break;
    case Table::kEvents: value = Parse<record::EventRecord>(text); break;
  }
  return value.value_or(std::string(text));
}

KvStore::Batch Read(std::string_view text) {
  KvStore::Batch batch;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const auto space = line.find(' ', 2);
    if (line.size() < 3 || space == std::string_view::npos) continue;
    if (std::string_view("tpvlre").find(line[0]) == std::string_view::npos) continue;
    const auto table = static_cast<Table>(line[0]);
    batch.Put(table, line.substr(2, space - 2), Value(table, line.substr(space + 1)));
  }
  return batch;
}

template <class T>
void PutAll(RecordBatch& batch, const T& records) {
  for (const auto& record : records) batch.Put(record);
}

std::map<std::string, std::string> Content(const KvStore& store) {
  std::map<std::string, std::string> all;
  for (const char table : std::string_view("tpvlre")) {
    for (const auto& [key, value] : store.Scan(static_cast<Table>(table)).value()) {
      all[table + key] = value;
    }
  }
  return all;
}

// What was read is the same after it was written and read again.
void CheckSurvives(const KvStore& store) {
  auto state = LoadRecords(store);
  fuzz::RequireWords(state);
  std::map<std::string, std::string> before;
  for (int round = 0; round < 2 && state; ++round) {
    MemoryStore copy;
    RecordBatch batch(WritePoint::kVmUpdated);
    PutAll(batch, state->template_names);
    PutAll(batch, state->pools);
    PutAll(batch, state->vms);
    PutAll(batch, state->leases);
    PutAll(batch, state->requests);
    PutAll(batch, state->events);
    Require(batch.Commit(copy).has_value(), "records can be written");
    Require(round == 0 || Content(copy) == before, "records survive");
    before = Content(copy);
    state = LoadRecords(copy);
    Require(state.has_value(), "what was written can be read");
  }
}

void MakeVm(Outside& outside, hypervisor::Driver& driver, const std::string& id, bool runs) {
  static const UniqueFd memory = [] {
    UniqueFd fd = tmpl::CreateMemory(Bytes::MiB(128)).value();
    tmpl::SealMemory(fd.get()).value();
    return fd;
  }();
  static const UniqueFd saved = tmpl::CreateSealed("hatchery fake device state 1\n").value();
  hypervisor::VmConfig config;
  config.id = VmId(id);
  config.run_dir = outside.dir.path() / "vms" / id;
  config.accelerator = hypervisor::Accelerator::kTcg;
  config.memory = Bytes::MiB(128);
  config.boot_from_template = true;
  config.template_memory_fd = memory.get();
  Require(MakeDirectories(config.run_dir).has_value(), "a folder can be made");
  const auto vm = driver.Create(config).value();
  RunUntilDone(outside.io, vm->Start(After(kLong))).value();
  RunUntilDone(outside.io, vm->Load(saved.get(), After(kLong))).value();
  if (runs) RunUntilDone(outside.io, vm->Resume(After(kLong))).value();
}

// Records, VMs and leases belong together after a start.
void CheckTogether(Outside& outside, Cache& cache) {
  std::set<std::string> leased;
  for (const auto& [key, value] : outside.store.Scan(Table::kVms).value()) {
    record::VmRecord vm;
    Require(vm.ParseFromString(value), "a VM's record can be read");
    Require(vm.id() == key, "a record is where it belongs");
    const auto known = cache.vms().Find(VmId(key));
    Require(known != nullptr, "what is on record is known");
    // One that is being ended may be dead before its record is gone.
    const bool ending =
        known->phase() == record::VM_PHASE_FAILED || known->phase() == record::VM_PHASE_RELEASED;
    Require(ending || outside.host.Find(VmId(key)) != nullptr, "what is on record is alive");
  }
  for (const auto& [key, value] : outside.store.Scan(Table::kLeases).value()) {
    record::LeaseRecord lease;
    Require(lease.ParseFromString(value), "a lease can be read");
    Require(cache.vms().Find(VmId(lease.vm_id())) != nullptr, "a lease has its VM");
    Require(leased.insert(lease.vm_id()).second, "no VM is leased twice");
  }
}

asio::awaitable<bool> Stop(Cache& cache) {
  co_await cache.Drain(After(kLong));
  co_await cache.Stop(After(kLong));
  co_return true;
}

}  // namespace
}  // namespace hatchery::cache

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  using namespace hatchery::cache;
  log::Configure(log::Level::kError, log::Format::kText);
  Outside outside;
  fuzz::Require(outside.store.Write(Read(fuzz::Text(data, size)), Durability::kProcess).has_value(),
                "the store takes the input");
  CheckSurvives(outside.store);
  fuzz::Require(MakeDirectories(outside.dir.path() / "vms").has_value(), "a folder can be made");
  CacheUnderTest under_test(outside, {});
  MakeVm(outside, under_test.driver, "vm-1", false);
  MakeVm(outside, under_test.driver, "vm-2", false);
  MakeVm(outside, under_test.driver, "vm-3", true);
  auto& cache = under_test.cache;
  const auto started = RunUntilDone(outside.io, cache.Start(After(kLong)));
  fuzz::RequireWords(started);
  if (!started) return 0;
  CheckTogether(outside, cache);
  (void)cache.pools().List();
  (void)cache.catalog().List();
  fuzz::RequireWords(RunUntilDone(outside.io, cache.leases().Acquire({}, After(kLong))));
  (void)RunUntilDone(outside.io, Stop(cache));
  return 0;
}
