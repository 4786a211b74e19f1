#include "hypervisor/qemu/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "hypervisor/qemu/vsock.h"

namespace hatchery::hypervisor::qemu {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

VmConfig Cold() {
  return {.id = VmId("vm-1"),
          .run_dir = "/run/vm-1",
          .kernel = "/boot/vmlinuz",
          .initrd = "/boot/initrd.img",
          .accelerator = Accelerator::kTcg,
          .vcpus = 1,
          .max_vcpus = 8,
          .memory = Bytes::MiB(256),
          .max_memory = Bytes::GiB(2)};
}

VmConfig Clone() {
  VmConfig config = Cold();
  config.kernel.clear();
  config.initrd.clear();
  config.boot_from_template = true;
  config.template_memory_fd = 12;
  return config;
}

// One option and its value per line, as in a shell script.
std::string Lines(const VmConfig& config, const QemuOptions& options = {.binary = "qemu"}) {
  std::string text;
  for (const auto& word : CommandLine(options, config, {.agent = 10, .qmp = 11})) {
    if (!text.empty()) text += word.starts_with('-') ? "\n" : " ";
    text += word;
  }
  return text + "\n";
}

constexpr const char* kDevices = R"(-chardev socket,id=agent,fd=10,server=on,wait=off
-object rng-random,id=random0,filename=/dev/urandom
-device virtio-serial-pci,id=serial0,max_ports=2,bus=pcie.0,addr=0x2
-device virtserialport,bus=serial0.0,nr=1,chardev=agent,name=org.hatchery.agent.0
-device virtio-rng-pci,id=rng0,bus=pcie.0,addr=0x3,rng=random0
-device pci-bridge,id=pci-bridge-0,bus=pcie.0,addr=5,chassis_nr=1
-device virtio-scsi-pci,id=scsi0,bus=pcie.0,addr=0x6,num_queues=1
-chardev file,id=console,append=on,path=/run/vm-1/console.log
-serial chardev:console
-chardev socket,id=qmp,fd=11,server=on,wait=off
-mon chardev=qmp,mode=control
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
)";
constexpr const char* kBoard = R"(qemu
-name /run/vm-1
-nodefaults
-no-user-config
-nographic
-no-reboot
-uuid 2d62b003-5f34-8790-a3b9-9c33de8058c4
-machine q35,smm=off,sata=off,smbus=off,vmport=off,memory-backend=m0,dump-guest-core=off,mem-merge=off
-accel tcg,tb-size=32
-cpu max,-erms
-smp cpus=1,sockets=8,cores=1,threads=1,maxcpus=8
-m size=256M,slots=8,maxmem=2048M
)";
constexpr const char* kKernel = R"(-kernel /boot/vmlinuz
-initrd /boot/initrd.img
-append console=ttyS0 quiet panic=-1 reboot=t no_timer_check swiotlb=noforce noreplace-smp tsc=reliable
)";

TEST(CommandLine, OfAColdBoot) {
  EXPECT_EQ(Lines(Cold()), std::string(kBoard) + "-object memory-backend-ram,id=m0,size=256M\n" +
                               kDevices + kKernel);
}

TEST(CommandLine, OfATemplate) {
  VmConfig config = Cold();
  config.boot_to_be_template = true;
  config.template_memory_fd = 12;
  EXPECT_EQ(Lines(config), std::string(kBoard) +
                               "-object memory-backend-file,id=m0,size=256M,"
                               "mem-path=/proc/self/fd/12,share=on\n" +
                               kDevices + kKernel);
}

TEST(CommandLine, OfAClone) {
  EXPECT_EQ(Lines(Clone()), std::string(kBoard) +
                                "-object memory-backend-file,id=m0,size=256M,"
                                "mem-path=/proc/self/fd/12,share=off\n" +
                                kDevices + "-S\n-incoming defer\n");
}

TEST(CommandLine, UnderKvm) {
  VmConfig config = Cold();
  config.accelerator = Accelerator::kKvm;
  EXPECT_THAT(Lines(config), HasSubstr("\n-accel kvm\n-cpu host\n"));
}

TEST(CommandLine, HasNoSlotsWhereNoMemoryCanBeAdded) {
  VmConfig config = Cold();
  config.max_memory = config.memory;
  EXPECT_THAT(Lines(config), HasSubstr("\n-m size=256M\n"));
}

TEST(CommandLine, FollowsTheDriversOptions) {
  const auto lines = Lines(Cold(), {.binary = "q", .sandbox = false, .tb_size = Bytes::MiB(64)});
  EXPECT_THAT(lines, HasSubstr("tb-size=64"));
  EXPECT_THAT(lines, Not(HasSubstr("-sandbox")));
}

TEST(CommandLine, AVmsUuidIsItsOwn) {
  EXPECT_EQ(UuidOf(VmId("vm-1")), UuidOf(VmId("vm-1")));
  EXPECT_NE(UuidOf(VmId("vm-1")), UuidOf(VmId("vm-2")));
  EXPECT_THAT(
      UuidOf(VmId("vm-1")),
      testing::MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}"));
}

TEST(CommandLine, ADiskIsReadOnlyAndTheRoot) {
  VmConfig config = Cold();
  config.initrd.clear();
  config.image = "/images/root.img";
  config.kernel_params = "debug";
  const auto lines = Lines(config);
  EXPECT_THAT(lines, HasSubstr("\n-drive id=root,if=none,format=raw,readonly=on,"
                               "file=/images/root.img\n"));
  EXPECT_THAT(lines,
              HasSubstr("\n-device virtio-blk-pci,id=root0,bus=pcie.0,addr=0x4,drive=root\n"));
  EXPECT_THAT(lines, HasSubstr(" root=/dev/vda ro debug\n"));
  EXPECT_THAT(lines, Not(HasSubstr("-initrd")));
}

TEST(CommandLine, APathCannotBreakOutOfItsOption) {
  VmConfig config = Cold();
  config.run_dir = "/run/a,b,,server=on";
  config.initrd.clear();
  config.image = "/img/x,readonly=off";
  const auto lines = Lines(config);
  EXPECT_THAT(lines, HasSubstr("path=/run/a,,b,,,,server=on/console.log\n"));
  EXPECT_THAT(lines, HasSubstr("file=/img/x,,readonly=off\n"));
}

// What the saved state names must not depend on who loads it.
TEST(CommandLine, ATemplateAndItsClonesHaveTheSameDevices) {
  VmConfig other = Clone();
  other.id = VmId("vm-2");
  other.run_dir = "/run/vm-2";
  VmConfig to_be = Cold();
  to_be.boot_to_be_template = true;
  to_be.template_memory_fd = 5;
  EXPECT_EQ(DeviceList({}, to_be), DeviceList({}, other));
  EXPECT_THAT(DeviceList({}, other), Not(HasSubstr("vm-2")));

  const auto devices = [](const VmConfig& config) {
    const auto argv = CommandLine({}, config, {.agent = 3, .qmp = 4});
    std::vector<std::string> found;
    for (std::size_t i = 0; i + 1 < argv.size(); ++i) {
      if (argv[i] == "-device" || argv[i] == "-machine" || argv[i] == "-smp")
        found.push_back(argv[i + 1]);
    }
    return found;
  };
  EXPECT_EQ(devices(to_be), devices(other));
}

TEST(CommandLine, AVsockDeviceHasItsContextIdAndItsDescriptor) {
  VmConfig config = Clone();
  config.cid = 4711;
  const auto argv = CommandLine({}, config, {.agent = 10, .qmp = 11, .vsock = 12});
  EXPECT_THAT(argv, Contains("vhost-vsock-pci,id=vsock0,bus=pcie.0,addr=0x7,"
                             "guest-cid=4711,vhostfd=12"));
  for (const auto& word : CommandLine({}, config, {.agent = 10, .qmp = 11})) {
    EXPECT_THAT(word, Not(HasSubstr("vsock")));
  }
}

// A template without the device and a host with it do not fit, nor the other way round; which
// context id a VM has is its own business.
TEST(CommandLine, TheDeviceListHasAVsockDeviceWhereTheDriverHasOne) {
  const QemuOptions with{.vsock = std::make_shared<const VhostVsock>()};
  VmConfig to_be = Cold();
  to_be.cid = 4711;
  VmConfig clone = Clone();
  clone.cid = 4712;
  EXPECT_EQ(DeviceList(with, to_be), DeviceList(with, clone));
  EXPECT_THAT(DeviceList(with, clone),
              HasSubstr("; vhost-vsock-pci,id=vsock0,bus=pcie.0,addr=0x7;"));
  EXPECT_THAT(DeviceList(with, clone), Not(HasSubstr("cid")));
  EXPECT_NE(DeviceList(with, to_be), DeviceList({}, to_be));
  EXPECT_THAT(DeviceList({}, to_be), Not(HasSubstr("vsock")));
}

}  // namespace
}  // namespace hatchery::hypervisor::qemu
