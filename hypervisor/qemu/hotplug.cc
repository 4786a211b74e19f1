#include "hypervisor/qemu/hotplug.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace hatchery::hypervisor::qemu {

namespace {

constexpr std::string_view kPeripheral = "/machine/peripheral/";

// Did QEMU itself say no? Then it is as before; otherwise nobody knows.
bool IsRefusal(const Error& error) {
  return error.code == Code::kInternal || error.code == Code::kNotFound ||
         error.code == Code::kUnimplemented;
}

struct Slot {
  std::string type;
  Json props;
  std::string owner;  // QOM path of the vCPU in it; empty: free
};

Result<std::vector<Slot>> ReadSlots(const Json& answer) {
  std::vector<Slot> slots;
  for (const Json& entry : answer) {
    if (!entry.is_object() || !entry.contains("type") || !entry["type"].is_string() ||
        !entry.contains("props") || !entry["props"].is_object()) {
      return DataLoss("query-hotpluggable-cpus: unexpected answer from QEMU");
    }
    const auto owner = entry.find("qom-path");
    slots.push_back({entry["type"].get<std::string>(), entry["props"],
                     owner != entry.end() && owner->is_string() ? owner->get<std::string>() : ""});
  }
  // QEMU lists the highest first; the guest numbers its CPUs from the lowest.
  std::ranges::reverse(slots);
  return slots;
}

Result<std::vector<Instance::Dimm>> ReadDimms(const Json& answer, Bytes at_most) {
  std::vector<Instance::Dimm> dimms;
  for (const Json& device : answer) {
    if (!device.is_object() || !device.contains("data") || !device["data"].is_object() ||
        Number(device["data"], "size") <= 0) {
      return DataLoss("query-memory-devices: unexpected answer from QEMU");
    }
    const Json& data = device["data"];
    const Bytes size(static_cast<std::uint64_t>(Number(data, "size")));
    if (size > at_most) {
      return DataLoss("query-memory-devices: QEMU has more memory than the VM may have");
    }
    at_most = at_most - size;
    // "/objects/mem-0"
    const std::string backend = Text(data, "memdev");
    dimms.push_back({Text(data, "id"), backend.substr(backend.rfind('/') + 1), size});
  }
  return dimms;
}

Task<void> DropLooseBackends(std::shared_ptr<Instance> vm, Deadline deadline) {
  while (!vm->loose_backends.empty()) {
    const std::string id = vm->loose_backends.back();
    auto dropped = co_await vm->Execute("object-del", {{"id", id}}, deadline);
    if (!dropped) co_return std::unexpected(dropped.error());
    std::erase(vm->loose_backends, id);
  }
  co_return Result<void>();
}

bool HasDimm(const Instance& vm, const std::string& id) {
  return std::ranges::find(vm.dimms, id, &Instance::Dimm::id) != vm.dimms.end();
}

// How long the guest may take before it is asked again: a request that comes while it is taking in
// another device gets lost (seen with Linux 6.1).
constexpr auto kAskAgain = std::chrono::milliseconds(500);

// Asks the guest to let go of a device, and waits until `gone()`.
template <class Gone>
Task<void> Unplug(std::shared_ptr<Instance> vm, std::string id, Gone gone, Deadline deadline) {
  vm->refused.erase(id);
  for (;;) {
    auto asked = co_await vm->Execute("device_del", {{"id", id}}, deadline);
    // It may have gone since the last time, without our having heard of it yet.
    if (!asked && asked.error().code != Code::kNotFound) {
      // QEMU asks the guest only if its firmware or kernel has said that it can be asked.
      if (IsRefusal(asked.error())) co_return FailedPrecondition(asked.error().message);
      co_return std::unexpected(asked.error());
    }
    const Deadline next = After(kAskAgain);
    auto waited = co_await vm->WaitUntil([&] { return gone() || vm->refused.contains(id); },
                                         Sooner(deadline, next));
    if (gone()) co_return Result<void>();
    if (waited) co_return FailedPrecondition("the guest did not let go of " + id);
    if (waited.error().code != Code::kDeadlineExceeded || next >= deadline) {
      co_return Annotate(waited.error(), "waiting for the guest to let go of " + id);
    }
  }
}

}  // namespace

Bytes HotAddedMemory(const Instance& vm) {
  Bytes sum;
  for (const auto& dimm : vm.dimms) sum += dimm.size;
  return sum;
}

Task<void> AddVcpus(std::shared_ptr<Instance> vm, std::uint32_t count, Deadline deadline,
                    bool* broken) {
  const std::uint32_t now = vm->config.vcpus + vm->hot_vcpus;
  if (count > vm->config.max_vcpus - now) {
    co_return ResourceExhausted("the VM has " + std::to_string(now) + " of at most " +
                                std::to_string(vm->config.max_vcpus) +
                                " vCPUs: " + std::to_string(count) + " more do not fit");
  }
  *broken = true;
  ASSIGN_OR_CO_RETURN(const Json answer,
                      co_await vm->Execute("query-hotpluggable-cpus", {}, deadline));
  ASSIGN_OR_CO_RETURN(const std::vector<Slot> slots, ReadSlots(answer));
  auto slot = slots.begin();
  for (std::uint32_t added = 0; added < count; ++added) {
    slot = std::find_if(slot, slots.end(), [](const Slot& s) { return s.owner.empty(); });
    if (slot == slots.end())
      co_return Internal("QEMU has fewer vCPU slots than it was started with");
    Json arguments = slot->props;
    arguments["driver"] = slot->type;
    arguments["id"] = DeviceId("cpu", vm->hot_vcpus);
    ++slot;
    auto plugged = co_await vm->Execute("device_add", arguments, deadline);
    if (!plugged) {
      *broken = added > 0 || !IsRefusal(plugged.error());
      co_return std::unexpected(plugged.error());
    }
    ++vm->hot_vcpus;
  }
  *broken = false;
  co_return Result<void>();
}

Task<void> AddMemory(std::shared_ptr<Instance> vm, Bytes size, Deadline deadline, bool* broken) {
  if (size == Bytes() || !size.IsMultipleOf(kMemoryBlock)) {
    co_return InvalidArgument("memory",
                              ToString(size) + " is not a multiple of " + ToString(kMemoryBlock));
  }
  const Bytes now = vm->config.memory + HotAddedMemory(*vm);
  if (size > vm->config.max_memory - now) {
    co_return ResourceExhausted("the VM has " + ToString(now) + " of at most " +
                                ToString(vm->config.max_memory) + ": " + ToString(size) +
                                " more do not fit");
  }
  if (vm->dimms.size() >= kMemorySlots) {
    co_return ResourceExhausted("all " + std::to_string(kMemorySlots) +
                                " memory slots of the VM are in use");
  }
  *broken = true;
  CO_RETURN_IF_ERROR(co_await DropLooseBackends(vm, deadline));
  // Removed in any order, ids come free in any order.
  std::size_t number = 0;
  while (HasDimm(*vm, DeviceId("dimm", number))) ++number;
  const Instance::Dimm dimm{DeviceId("dimm", number), DeviceId("mem", number), size};

  auto backend = co_await vm->Execute(
      "object-add",
      {{"qom-type", "memory-backend-ram"}, {"id", dimm.backend}, {"size", size.count()}}, deadline);
  if (!backend) {
    *broken = !IsRefusal(backend.error());
    co_return std::unexpected(backend.error());
  }
  auto plugged = co_await vm->Execute(
      "device_add", {{"driver", "pc-dimm"}, {"id", dimm.id}, {"memdev", dimm.backend}}, deadline);
  if (!plugged) {
    if (IsRefusal(plugged.error())) {
      auto undone = co_await vm->Execute("object-del", {{"id", dimm.backend}}, deadline);
      *broken = !undone.has_value();
    }
    co_return std::unexpected(plugged.error());
  }
  vm->dimms.push_back(dimm);
  *broken = false;
  co_return Result<void>();
}

Task<void> RemoveVcpus(std::shared_ptr<Instance> vm, std::uint32_t count, Deadline deadline) {
  if (count > vm->hot_vcpus) {
    co_return ResourceExhausted("only " + std::to_string(vm->hot_vcpus) +
                                " vCPUs were hot-added, not " + std::to_string(count));
  }
  const std::uint32_t target = vm->hot_vcpus - count;
  while (vm->hot_vcpus > target) {
    const std::uint32_t last = vm->hot_vcpus - 1;
    CO_RETURN_IF_ERROR(co_await Unplug(
        vm, DeviceId("cpu", last), [&] { return vm->hot_vcpus <= last; }, deadline));
  }
  co_return Result<void>();
}

Task<void> RemoveMemory(std::shared_ptr<Instance> vm, Bytes size, Deadline deadline) {
  if (size > HotAddedMemory(*vm)) {
    co_return ResourceExhausted("only " + ToString(HotAddedMemory(*vm)) + " were hot-added, not " +
                                ToString(size));
  }
  Bytes sum;
  std::vector<std::string> leaving;
  for (auto it = vm->dimms.rbegin(); it != vm->dimms.rend() && sum < size; ++it) {
    sum += it->size;
    leaving.push_back(it->id);
  }
  if (sum != size) {
    co_return InvalidArgument("memory", "the newest pieces of hot-added memory are " +
                                            ToString(sum) + ", not " + ToString(size));
  }
  for (const auto& id : leaving) {
    const auto gone = [&] { return !HasDimm(*vm, id); };
    CO_RETURN_IF_ERROR(co_await Unplug(vm, id, gone, deadline));
    CO_RETURN_IF_ERROR(co_await DropLooseBackends(vm, deadline));
  }
  co_return Result<void>();
}

Task<void> LearnHotAdded(std::shared_ptr<Instance> vm, Deadline deadline) {
  ASSIGN_OR_CO_RETURN(const Json cpus,
                      co_await vm->Execute("query-hotpluggable-cpus", {}, deadline));
  ASSIGN_OR_CO_RETURN(const std::vector<Slot> slots, ReadSlots(cpus));
  const auto owned =
      std::ranges::count_if(slots, [](const Slot& s) { return s.owner.starts_with(kPeripheral); });
  if (std::cmp_greater(owned, vm->config.max_vcpus - vm->config.vcpus)) {
    co_return DataLoss("query-hotpluggable-cpus: QEMU has more vCPUs than the VM may have");
  }

  ASSIGN_OR_CO_RETURN(const Json devices,
                      co_await vm->Execute("query-memory-devices", {}, deadline));
  ASSIGN_OR_CO_RETURN(auto dimms, ReadDimms(devices, vm->config.max_memory - vm->config.memory));
  vm->hot_vcpus = static_cast<std::uint32_t>(owned);
  vm->dimms = std::move(dimms);
  co_return Result<void>();
}

}  // namespace hatchery::hypervisor::qemu
