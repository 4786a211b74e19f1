// What clients of Kata's protocol are told, in JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "cache/kata/vm_json.h"

namespace hatchery::cache::kata {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

TEST(HypervisorJson, HasWhatATakeOverNeeds) {
  const hypervisor::Handover handover{.uuid = "0-1-2",
                                      .vcpus = 1,
                                      .max_vcpus = 8,
                                      .hot_vcpus = {"cpu-0", "cpu-1"},
                                      .bridges = {{"pci-bridge-0", 5, 30}}};
  EXPECT_EQ(*ParseJson(HypervisorJson(VmId("vm-1"), "/run/vm-1/qmp.sock", handover), "it"),
            *ParseJson(R"({
    "ID": "vm-1",
    "QmpChannelpath": "/run/vm-1/qmp.sock",
    "State": {
      "Bridges": [{"Devices": {}, "ID": "pci-bridge-0", "Addr": 5, "Type": "pci",
                   "MaxCapacity": 30}],
      "HotpluggedVCPUs": [{"ID": "cpu-0"}, {"ID": "cpu-1"}],
      "HotpluggedMemory": 0,
      "UUID": "0-1-2",
      "HotplugVFIOOnRootBus": false,
      "VirtiofsdPid": 0,
      "PCIeRootPort": 0
    },
    "NvdimmCount": 0,
    "QemuSMP": {"CPUs": 1, "Cores": 1, "Threads": 1, "Sockets": 8, "MaxCPUs": 8}
  })",
                       "the other"));
}

class ConfigTest : public testing::Test {
 protected:
  std::vector<std::string> Check(const std::string& vm_config,
                                 const std::string& agent_config = "{}") {
    return Contradictions(vm_config, agent_config, facts_,
                          [](const std::string& path) -> Result<std::string> {
                            if (path == "/boot/k") return "aa";
                            if (path == "/boot/i") return "bb";
                            if (path == "/boot/other") return "cc";
                            return NotFound(path + " is not there");
                          });
  }
  // The made one with one field of HypervisorConfig changed.
  std::vector<std::string> CheckWith(const char* name, const Json& value) {
    Json config = *ParseJson(MakeVmConfig(facts_), "it");
    config["HypervisorConfig"][name] = value;
    return Check(DumpJson(config), MakeAgentConfig(facts_));
  }

  Facts facts_{.vcpus = 1,
               .max_vcpus = 8,
               .memory = Bytes::MiB(256),
               .vsock = false,
               .kernel_params = "a=1 debug",
               .inputs = {{"kernel", "aa"}, {"initrd", "bb"}},
               .kernel = "/boot/k",
               .initrd = "/boot/i",
               .image = {},
               .vmm = "/usr/bin/qemu"};
};

TEST_F(ConfigTest, WhatIsMadeIsTrue) {
  EXPECT_THAT(Check(MakeVmConfig(facts_), MakeAgentConfig(facts_)), IsEmpty());
  facts_.vsock = true;
  EXPECT_THAT(Check(MakeVmConfig(facts_), MakeAgentConfig(facts_)), IsEmpty());
}

TEST_F(ConfigTest, HasKatasNames) {
  const Json config = *ParseJson(MakeVmConfig(facts_), "it");
  EXPECT_EQ(config["HypervisorType"], "qemu");
  const Json& vm = config["HypervisorConfig"];
  EXPECT_EQ(vm["NumVCPUs"], 1);
  EXPECT_EQ(vm["DefaultMaxVCPUs"], 8);
  EXPECT_EQ(vm["MemorySize"], 256);
  EXPECT_EQ(vm["KernelPath"], "/boot/k");
  EXPECT_EQ(vm["InitrdPath"], "/boot/i");
  EXPECT_FALSE(vm.contains("ImagePath"));
  EXPECT_EQ(vm["KernelParams"], *ParseJson(R"([{"Key": "a", "Value": "1"},
                                               {"Key": "debug", "Value": ""}])",
                                           "params"));
  EXPECT_EQ(vm["HypervisorMachineType"], "q35");
}

TEST_F(ConfigTest, EveryFieldThatIsNotTrueIsNamed) {
  EXPECT_THAT(CheckWith("NumVCPUs", 2),
              ElementsAre("HypervisorConfig.NumVCPUs is 2, and the VMs have 1"));
  EXPECT_THAT(CheckWith("DefaultMaxVCPUs", 4), ElementsAre(HasSubstr("DefaultMaxVCPUs")));
  EXPECT_THAT(CheckWith("MemorySize", 2048),
              ElementsAre("HypervisorConfig.MemorySize is 2048, and the VMs have 256 MiB"));
  EXPECT_THAT(CheckWith("MemorySize", "a lot"), ElementsAre(HasSubstr("is no number")));
  EXPECT_THAT(CheckWith("MemSlots", 10), ElementsAre(HasSubstr("MemSlots")));
  EXPECT_THAT(CheckWith("DefaultBridges", 2), ElementsAre(HasSubstr("DefaultBridges")));
  EXPECT_THAT(CheckWith("HypervisorMachineType", "pc"),
              ElementsAre(HasSubstr("HypervisorMachineType is 'pc', and the VMs have 'q35'")));
  EXPECT_THAT(CheckWith("BlockDeviceDriver", "virtio-blk"),
              ElementsAre(HasSubstr("BlockDeviceDriver")));
  EXPECT_THAT(CheckWith("UseVSock", true), ElementsAre(HasSubstr("UseVSock is true, but")));
  EXPECT_THAT(CheckWith("SharedFS", "virtio-fs"), ElementsAre(HasSubstr("SharedFS")));
  for (const char* flag : {"HugePages", "IOMMU", "VirtioMem", "EnableIOThreads"}) {
    EXPECT_THAT(CheckWith(flag, true), ElementsAre(HasSubstr(flag)));
    EXPECT_THAT(CheckWith(flag, false), IsEmpty());
  }
  EXPECT_THAT(CheckWith("FirmwarePath", "/x"), ElementsAre(HasSubstr("FirmwarePath")));
  EXPECT_THAT(CheckWith("FirmwarePath", ""), IsEmpty());
}

TEST_F(ConfigTest, FilesCountByTheirContent) {
  EXPECT_THAT(CheckWith("KernelPath", "/boot/other"),
              ElementsAre(HasSubstr("whose content is not that of the template's kernel")));
  EXPECT_THAT(CheckWith("InitrdPath", "/gone"), ElementsAre(HasSubstr("cannot be read")));
  EXPECT_THAT(CheckWith("InitrdPath", ""), ElementsAre(HasSubstr("is not given")));
  EXPECT_THAT(CheckWith("ImagePath", "/boot/other"), ElementsAre(HasSubstr("has no image")));
}

TEST_F(ConfigTest, KernelParamsMustHaveBeenGiven) {
  EXPECT_THAT(CheckWith("KernelParams", Json::array({{{"Key", "a"}, {"Value", "1"}}})), IsEmpty());
  EXPECT_THAT(CheckWith("KernelParams", Json::array({{{"Key", "a"}, {"Value", "2"}}})),
              ElementsAre(HasSubstr("KernelParams has")));
  EXPECT_THAT(CheckWith("KernelParams", "a=1"), ElementsAre(HasSubstr("is no list")));
  EXPECT_THAT(CheckWith("KernelParams", Json::array({1, "x"})),
              ElementsAre(HasSubstr("has 1"), HasSubstr("has \"x\"")));
}

TEST_F(ConfigTest, WhatIsNoConfigurationIsSaidToBeNone) {
  EXPECT_THAT(Check("", "{"), UnorderedElementsAre(HasSubstr("vm_config"), HasSubstr("agent")));
  EXPECT_THAT(Check("{}"), UnorderedElementsAre(HasSubstr("HypervisorType"),
                                                HasSubstr("HypervisorConfig is missing")));
  EXPECT_THAT(Check("[]"), UnorderedElementsAre(HasSubstr("HypervisorType"),
                                                HasSubstr("HypervisorConfig is missing")));
  EXPECT_THAT(Check(R"({"HypervisorType": "clh", "AgentType": "noop", "HypervisorConfig": 1})"),
              UnorderedElementsAre(HasSubstr("HypervisorType"), HasSubstr("AgentType"),
                                   HasSubstr("HypervisorConfig is missing")));
}

TEST_F(ConfigTest, TheAgentsConfigIsCheckedToo) {
  EXPECT_THAT(Check(MakeVmConfig(facts_), R"({"UseVSock": true})"),
              ElementsAre(HasSubstr("AgentConfig.UseVSock")));
}

}  // namespace
}  // namespace hatchery::cache::kata
