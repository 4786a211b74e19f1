#include "hypervisor/config.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>

#include "base/fd.h"

namespace hatchery::hypervisor {
namespace {

VmConfig Good() {
  return {.id = VmId("vm-1"),
          .run_dir = "/tmp",
          .kernel = "/bin/true",
          .initrd = "/bin/true",
          .accelerator = Accelerator::kTcg};
}

UniqueFd Memory(Bytes size, unsigned seals = 0) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size.count())), 0);
  EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

TEST(Validate, FillsDefaults) {
  const auto config = Validate(Good());
  ASSERT_TRUE(config.has_value()) << ToString(config.error());
  EXPECT_EQ(config->vcpus, 1u);
  EXPECT_EQ(config->max_vcpus, 8u);
  EXPECT_EQ(config->memory, Bytes::MiB(2048));
  EXPECT_EQ(config->max_memory, Bytes::GiB(8));

  VmConfig large = Good();
  large.vcpus = 12;
  large.memory = Bytes::GiB(16);
  const auto filled = Validate(large);
  EXPECT_EQ(filled->max_vcpus, 12u);
  EXPECT_EQ(filled->max_memory, Bytes::GiB(16));
}

TEST(Validate, NamesTheFieldThatIsWrong) {
  const UniqueFd open_memory = Memory(Bytes::MiB(2048));
  const UniqueFd small_memory = Memory(Bytes::MiB(128), F_SEAL_WRITE);
  const auto clone = [](VmConfig& c) {
    c.boot_from_template = true;
    c.kernel.clear();
    c.initrd.clear();
  };
  const std::pair<const char*, std::function<void(VmConfig&)>> cases[] = {
      {"id", [](VmConfig& c) { c.id = VmId("../x"); }},
      {"id", [](VmConfig& c) { c.id = VmId(); }},
      {"run_dir", [](VmConfig& c) { c.run_dir = "/no/such"; }},
      {"run_dir", [](VmConfig& c) { c.run_dir = "/bin/true"; }},
      {"run_dir", [](VmConfig& c) { c.run_dir = "."; }},
      {"kernel", [](VmConfig& c) { c.kernel.clear(); }},
      {"kernel", [](VmConfig& c) { c.kernel = "/no/such"; }},
      {"kernel", [](VmConfig& c) { c.kernel = "/tmp"; }},
      {"initrd", [](VmConfig& c) { c.initrd.clear(); }},
      {"initrd", [](VmConfig& c) { c.initrd = "/no/such"; }},
      {"image", [](VmConfig& c) { c.image = "/bin/true"; }},
      {"image",
       [](VmConfig& c) {
         c.initrd.clear();
         c.image = "/no/such";
       }},
      {"kernel_params", [](VmConfig& c) { c.kernel_params = std::string("a\0b", 3); }},
      {"vcpus", [](VmConfig& c) { c.vcpus = 3, c.max_vcpus = 2; }},
      {"max_vcpus", [](VmConfig& c) { c.max_vcpus = kMaxVcpus + 1; }},
      {"memory", [](VmConfig& c) { c.memory = Bytes::MiB(100); }},
      {"memory", [](VmConfig& c) { c.memory = Bytes::GiB(9), c.max_memory = Bytes::GiB(8); }},
      {"max_memory", [](VmConfig& c) { c.max_memory = Bytes::GiB(8) + Bytes(1); }},
      {"max_memory", [](VmConfig& c) { c.max_memory = kMaxMemory + kMemoryBlock; }},
      {"boot_from_template",
       [](VmConfig& c) {
         c.boot_from_template = c.boot_to_be_template = true, c.kernel.clear(), c.initrd.clear();
       }},
      {"kernel", [](VmConfig& c) { c.boot_from_template = true; }},
      {"initrd", [](VmConfig& c) { c.boot_from_template = true, c.kernel.clear(); }},
      {"template_memory_fd", [&](VmConfig& c) { clone(c); }},
      {"template_memory_fd", [](VmConfig& c) { c.boot_to_be_template = true; }},
      {"template_memory_fd", [](VmConfig& c) { c.template_memory_fd = 0; }},
      {"template_memory_fd",
       [&](VmConfig& c) { clone(c), c.template_memory_fd = small_memory.get(); }},
      {"template_memory_fd",
       [&](VmConfig& c) { clone(c), c.template_memory_fd = open_memory.get(); }},
      {"template_memory_fd",
       [](VmConfig& c) { c.boot_to_be_template = true, c.template_memory_fd = 9999; }},
      {"accelerator", [](VmConfig& c) { c.accelerator = Accelerator::kAuto; }},
  };
  int number = 0;
  for (const auto& [field, damage] : cases) {
    VmConfig config = Good();
    damage(config);
    const auto result = Validate(config);
    ASSERT_FALSE(result.has_value()) << field << ", case " << number;
    EXPECT_EQ(result.error().code, Code::kInvalidArgument);
    EXPECT_EQ(result.error().field, field) << "case " << number << ": " << result.error().message;
    ++number;
  }
}

TEST(Validate, TakesTemplatesAndClones) {
  const UniqueFd open_memory = Memory(Bytes::MiB(2048));
  VmConfig config = Good();
  config.boot_to_be_template = true;
  config.template_memory_fd = open_memory.get();
  EXPECT_TRUE(Validate(config).has_value());

  const UniqueFd sealed = Memory(Bytes::MiB(2048), F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
  config = Good();
  config.kernel.clear();
  config.initrd.clear();
  config.boot_from_template = true;
  config.template_memory_fd = sealed.get();
  EXPECT_TRUE(Validate(config).has_value());
  config.image = "/bin/true";
  EXPECT_TRUE(Validate(config).has_value());
}

TEST(Accelerator, ReadsItsOwnNames) {
  for (const auto accelerator : {Accelerator::kAuto, Accelerator::kKvm, Accelerator::kTcg}) {
    EXPECT_EQ(ParseAccelerator(Name(accelerator)), accelerator);
  }
  EXPECT_EQ(ParseAccelerator("KVM").error().field, "accelerator");
}

}  // namespace
}  // namespace hatchery::hypervisor
