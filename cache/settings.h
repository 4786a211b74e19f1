// What an operator can set of the cache; the defaults are those of hatchery.toml.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "cache/popular.h"
#include "cache/right_of_way.h"
#include "hypervisor/config.h"
#include "template/manifest.h"

namespace hatchery::cache {

struct Settings {
  // How many clones are made at once, over all pools.
  std::size_t parallel_clones = 2;
  // VMs made unique at once; more acquires wait for their turn, in order.
  std::size_t parallel_acquires = 4;
  std::chrono::nanoseconds clone_timeout = std::chrono::seconds(30);
  // For an acquire whose caller set no deadline.
  std::chrono::nanoseconds acquire_timeout = std::chrono::seconds(10);
  // For a guest that was not resized to confirm its new identity; past it the next VM is tried. One
  // that was resized has until the acquire's deadline.
  std::chrono::nanoseconds personalize_timeout = std::chrono::seconds(2);
  // How long refills and destroys give way to acquires; not for operators.
  PutOff put_off;
  // Pool size that `factory init` sets when it is not told one.
  std::uint32_t pool_size = 4;
  // Pools of shapes that are asked for often.
  LearnSettings learn;
  // Keep warm VMs when the daemon stops, for the next one to adopt.
  bool keep_warm_on_stop = false;

  // For templates whose caller set none.
  tmpl::Shape shape = {
      .vcpus = 1, .max_vcpus = 8, .memory = Bytes::MiB(256), .max_memory = Bytes::GiB(4)};
  hypervisor::Accelerator accelerator = hypervisor::Accelerator::kAuto;
  std::chrono::nanoseconds boot_timeout = std::chrono::seconds(60);
  std::string kernel_params;
};

// Most warm VMs that one pool may be asked to keep.
inline constexpr std::uint32_t kMaxPoolTarget = 10'000;

}  // namespace hatchery::cache
