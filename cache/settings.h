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

// What a tenant, and all together, may take. 0: no limit.
struct Limits {
  Bytes host_reserve;  // memory that is kept free for the host; 0: memory is not accounted
  // How much of what leased guests may still grow to is set aside, in percent.
  std::uint32_t growth_percent = 100;
  std::uint32_t tenant_leases = 0, tenant_vcpus = 0;
  Bytes tenant_memory;
};

// How VMs and templates are watched.
struct Health {
  std::chrono::nanoseconds agent_interval{};  // between two looks at a leased VM's agent; 0: none
  std::chrono::nanoseconds agent_timeout = std::chrono::seconds(5);
  std::chrono::nanoseconds end_silent_after{};  // 0: a silent VM is only reported
  std::uint32_t quarantine_after = 5;           // clones of one template that fail in a row
  std::uint32_t events = 10'000;                // that are kept
};

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
  // Acquires that may be under way or waiting at once.
  std::size_t waiting_acquires = 1000;
  // How long a VM outlives its lease, and the longest time to live that one may be given (0: any).
  std::chrono::nanoseconds lease_grace = std::chrono::seconds(10);
  std::chrono::nanoseconds longest_ttl{};
  Limits limits;
  Health health;
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
