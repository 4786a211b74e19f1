#include "cache/kata/vm_json.h"

#include <initializer_list>
#include <sstream>
#include <utility>

#include "base/json.h"

namespace hatchery::cache::kata {

namespace {

constexpr const char* kMachine = "q35";
constexpr const char* kDisks = "virtio-scsi";
constexpr std::uint32_t kBridges = 1;

Json KernelParams(const std::string& text) {
  Json params = Json::array();
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const auto equals = word.find('=');
    params.push_back(
        {{"Key", word.substr(0, equals)},
         {"Value", equals == std::string::npos ? std::string() : word.substr(equals + 1)}});
  }
  return params;
}

// Compares one object's fields with what is true, and puts the differences in words.
class Comparison {
 public:
  Comparison(const Json& object, std::string prefix, std::vector<std::string>& found)
      : object_(object), prefix_(std::move(prefix)), found_(found) {}

  // What is absent is Go's zero value.
  void Number(const char* name, std::uint64_t truth, const std::string& what) {
    const Json* value = Find(name);
    if (value != nullptr && !value->is_number()) return Say(name, "is no number");
    const Json given = value == nullptr ? Json(0u) : *value;
    if (given != Json(truth)) {
      Say(name, "is " + DumpJson(given) + ", and the VMs have " + std::to_string(truth) + what);
    }
  }
  void Flag(const char* name, bool truth, const std::string& why) {
    const Json* value = Find(name);
    if (value != nullptr && !value->is_boolean()) return Say(name, "is neither true nor false");
    const bool given = value != nullptr && value->get<bool>();
    if (given != truth) Say(name, std::string("is ") + (given ? "true" : "false") + ", but " + why);
  }
  void Word(const char* name, const std::string& truth) {
    const std::string given = Text(name);
    if (given != truth) {
      Say(name, "is '" + given + "', and the VMs have '" + truth + "'");
    }
  }
  // Something that the VMs have nothing of.
  void Nothing(const char* name, const std::string& what) {
    const Json* value = Find(name);
    const bool none = value == nullptr || value->is_null() || value->empty() ||
                      *value == Json("") || *value == Json(0u) || *value == Json(false);
    if (!none) Say(name, "is " + DumpJson(*value) + ", but the VMs have no " + what);
  }

  std::string Text(const char* name) {
    const Json* value = Find(name);
    return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
  }
  const Json* Find(const char* name) {
    if (!object_.is_object()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }
  void Say(const char* name, const std::string& what) {
    found_.push_back(prefix_ + name + " " + what);
  }

 private:
  const Json& object_;
  const std::string prefix_;
  std::vector<std::string>& found_;
};

// A file counts by what is in it, not by where it is.
void CompareFile(Comparison& compare, const char* name, const std::string& input,
                 const Facts& facts, const HashFile& hash) {
  const std::string path = compare.Text(name);
  const auto truth = facts.inputs.find(input);
  if (path.empty() && truth == facts.inputs.end()) return;
  if (path.empty()) return compare.Say(name, "is not given, but the template has its " + input);
  if (truth == facts.inputs.end()) {
    return compare.Say(name, "is '" + path + "', but the template has no " + input);
  }
  const auto given = hash(path);
  if (!given) return compare.Say(name, "cannot be read: " + given.error().message);
  if (*given != truth->second) {
    compare.Say(name, "is '" + path + "', whose content is not that of the template's " + input);
  }
}

void CompareKernelParams(Comparison& compare, const Facts& facts) {
  const Json* value = compare.Find("KernelParams");
  if (value == nullptr || value->is_null()) return;
  if (!value->is_array()) return compare.Say("KernelParams", "is no list");
  const Json known = KernelParams(facts.kernel_params);
  for (const Json& param : *value) {
    bool has = false;
    for (const Json& k : known) {
      has = has || (param.is_object() && param.value("Key", Json("")) == k["Key"] &&
                    param.value("Value", Json("")) == k["Value"]);
    }
    if (!has) {
      compare.Say("KernelParams",
                  "has " + DumpJson(param) + ", which the template was not booted with");
    }
  }
}

}  // namespace

std::string HypervisorJson(const VmId& id, const std::filesystem::path& control,
                           const hypervisor::Handover& handover) {
  Json bridges = Json::array();
  for (const auto& bridge : handover.bridges) {
    bridges.push_back({{"Devices", Json::object()},
                       {"ID", bridge.id},
                       {"Addr", bridge.addr},
                       {"Type", "pci"},
                       {"MaxCapacity", bridge.slots}});
  }
  Json hot_vcpus = Json::array();
  for (const auto& vcpu : handover.hot_vcpus) hot_vcpus.push_back({{"ID", vcpu}});
  return DumpJson(Json{{"ID", id.str()},
                       {"QmpChannelpath", control.string()},
                       {"State",
                        {{"Bridges", bridges},
                         {"HotpluggedVCPUs", hot_vcpus},
                         // Counted in MemorySize of the configuration already; clients add the two.
                         {"HotpluggedMemory", 0},
                         {"UUID", handover.uuid},
                         {"HotplugVFIOOnRootBus", false},
                         {"VirtiofsdPid", 0},
                         {"PCIeRootPort", 0}}},
                       {"NvdimmCount", 0},
                       {"QemuSMP",
                        {{"CPUs", handover.vcpus},
                         {"Cores", 1},
                         {"Threads", 1},
                         {"Sockets", handover.max_vcpus},
                         {"MaxCPUs", handover.max_vcpus}}}});
}

std::string MakeVmConfig(const Facts& facts) {
  Json config = {{"NumVCPUs", facts.vcpus},
                 {"DefaultMaxVCPUs", facts.max_vcpus},
                 {"MemorySize", facts.memory.mib()},
                 {"DefaultBridges", kBridges},
                 {"MemSlots", hypervisor::kMemorySlots}};
  const auto add = [&config](const char* name, const std::string& text) {
    if (!text.empty()) config[name] = text;
  };
  if (!facts.kernel_params.empty()) config["KernelParams"] = KernelParams(facts.kernel_params);
  add("KernelPath", facts.kernel);
  add("InitrdPath", facts.initrd);
  add("ImagePath", facts.image);
  add("HypervisorPath", facts.vmm);
  config["BlockDeviceDriver"] = kDisks;
  config["HypervisorMachineType"] = kMachine;
  config["EntropySource"] = "/dev/urandom";
  if (facts.vsock) config["UseVSock"] = true;
  if (facts.inputs.contains("image")) config["DisableImageNvdimm"] = true;
  return DumpJson(Json{{"HypervisorType", "qemu"},
                       {"AgentType", "kata"},
                       {"ProxyType", "noProxy"},
                       {"AgentConfig", Json::parse(MakeAgentConfig(facts))},
                       {"HypervisorConfig", config}});
}

std::string MakeAgentConfig(const Facts& facts) {
  return DumpJson(Json{{"LongLiveConn", true}, {"UseVSock", facts.vsock}});
}

std::vector<std::string> Contradictions(std::string_view vm_config, std::string_view agent_config,
                                        const Facts& facts, const HashFile& hash) {
  std::vector<std::string> found;
  const auto data = ParseJson(vm_config, "vm_config");
  const auto agent = ParseJson(agent_config, "agent_config");
  for (const auto* json : {&data, &agent}) {
    if (!*json) found.push_back(json->error().message);
  }
  if (!found.empty()) return found;

  Comparison top(*data, "", found);
  if (const Json* type = top.Find("HypervisorType"); type == nullptr || *type != Json("qemu")) {
    top.Say("HypervisorType", "is not 'qemu'");
  }
  const std::string agent_type = top.Text("AgentType");
  if (!agent_type.empty() && agent_type != "kata") top.Say("AgentType", "is not 'kata'");
  const Json* const object = top.Find("HypervisorConfig");
  if (object == nullptr || !object->is_object()) {
    top.Say("HypervisorConfig", "is missing");
    return found;
  }

  Comparison vm(*object, "HypervisorConfig.", found);
  vm.Number("NumVCPUs", facts.vcpus, "");
  vm.Number("DefaultMaxVCPUs", facts.max_vcpus, " at most");
  vm.Number("MemorySize", facts.memory.mib(), " MiB");
  vm.Number("MemSlots", hypervisor::kMemorySlots, "");
  vm.Number("DefaultBridges", kBridges, "");
  vm.Word("HypervisorMachineType", kMachine);
  vm.Word("BlockDeviceDriver", kDisks);
  CompareFile(vm, "KernelPath", "kernel", facts, hash);
  CompareFile(vm, "InitrdPath", "initrd", facts, hash);
  CompareFile(vm, "ImagePath", "image", facts, hash);
  CompareKernelParams(vm, facts);
  const std::string vsock =
      facts.vsock ? "the VMs have a vsock device" : "the VMs have no vsock device";
  vm.Flag("UseVSock", facts.vsock, vsock);
  // What Kata adds to a VM's command line, and what ours has not.
  for (const auto& [name, what] : std::initializer_list<std::pair<const char*, const char*>>{
           {"FirmwarePath", "firmware of their own"},
           {"PFlash", "flash images"},
           {"MachineAccelerators", "machine accelerators"},
           {"CPUFeatures", "CPU features added or taken away"},
           {"MemOffset", "room for NVDIMMs"},
           {"VirtioFSCacheSize", "virtio-fs"},
           {"VirtioMem", "virtio-mem"},
           {"FileBackedMemRootDir", "memory in files"},
           {"MemPrealloc", "preallocated memory"},
           {"HugePages", "huge pages"},
           {"Realtime", "real-time scheduling"},
           {"Mlock", "locked memory"},
           {"IOMMU", "IOMMU"},
           {"IOMMUPlatform", "IOMMU"},
           {"EnableIOThreads", "I/O threads"},
           {"HotplugVFIOOnRootBus", "free slots on the root bus"},
           {"PCIeRootPort", "PCIe root ports"}}) {
    vm.Nothing(name, what);
  }
  // A virtio-fs share needs memory that is shared with its daemon; clones' is private.
  if (vm.Text("SharedFS") == "virtio-fs") {
    vm.Say("SharedFS", "is 'virtio-fs', which needs memory that is shared; clones' is private");
  }
  Comparison(*agent, "AgentConfig.", found).Flag("UseVSock", facts.vsock, vsock);
  return found;
}

}  // namespace hatchery::cache::kata
