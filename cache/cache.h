// The cache service without its wire: everything that the gRPC services call, and what happens when
// the daemon starts and stops. Composes Vms, Catalog, Pools and Leases. Loop thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/admission.h"
#include "cache/adoption.h"
#include "cache/catalog.h"
#include "cache/events.h"
#include "cache/health.h"
#include "cache/kv_store.h"
#include "cache/lease_ends.h"
#include "cache/leases.h"
#include "cache/onlining.h"
#include "cache/pools.h"
#include "cache/right_of_way.h"
#include "cache/settings.h"
#include "cache/strays.h"
#include "cache/vms.h"

namespace hatchery::cache {

// The seams and services that the cache stands on; all outlive it.
struct Dependencies {
  Executor executor;
  KvStore& store;
  tmpl::Store& templates;
  tmpl::Builder& builder;
  tmpl::Booter& booter;
  factory::Factory& factory;
  hypervisor::Driver& driver;
  agent::Connector& connector;
  const Clock& clock;
  HostMemoryReader& host_memory;
  DefaultGuest default_guest;
  std::string host_boot_id;
};

struct StepProgress {
  std::string step;
  std::uint64_t done = 0, total = 0;  // total 0: unknown
  std::string unit;                   // "bytes", "vms"
};
using Say = std::function<void(StepProgress)>;

class Cache {
 public:
  Cache(Dependencies dependencies, Settings settings);
  ~Cache();

  // Reads the records, takes over the VMs of an earlier daemon that still run, ends and removes
  // what is left of the others, and begins to fill the pools. VMs that are slow to answer are gone
  // on with afterwards. Call once, before serving. After a failure only the destructor may be
  // called; VMs that live stay alive.
  Task<void> Start(Deadline deadline);

  // First half of stopping: refuses new acquires, lets running ones finish, undoes clones that are
  // being made. Calls from outside may still come in.
  asio::awaitable<void> Drain(Deadline deadline);
  // Second half, when no call runs any more: ends warm VMs (unless configured to keep them), keeps
  // leased ones, and joins every task. After it only the destructor may be called. With
  // `leave_all`, it touches no VM: a daemon that never served ends nothing.
  asio::awaitable<void> Stop(Deadline deadline, bool leave_all = false);

  Leases& leases() { return leases_; }
  Catalog& catalog() { return catalog_; }
  Pools& pools() { return pools_; }
  Admission& admission() { return admission_; }
  LeaseEnds& lease_ends() { return lease_ends_; }
  Adoption& adoption() { return adoption_; }
  Vms& vms() { return vms_; }
  const Clock& clock() const { return deps_.clock; }
  Events& events() { return events_; }
  Onlining& onlining() { return onlining_; }
  const Settings& settings() const { return settings_; }

  struct InitParams {
    TemplateSpec spec;
    std::optional<std::uint32_t> pool_target;
  };
  struct Initialised {
    Catalog::Created created;
    PoolInfo pool;
    std::chrono::nanoseconds fill_time{};
  };
  // Template built and pool filled; does only what is missing.
  Task<Initialised> Init(InitParams params, Say say, Deadline deadline);

  // Drains pools, ends leases, deletes templates; what fails is left and named.
  Task<void> DestroyAll(Say say, Deadline deadline);

  // With `drain`, ends its VMs first, the leased ones too.
  Task<void> DeleteTemplate(std::string name, bool drain, Say say, Deadline deadline);

 private:
  Task<void> Recover(Deadline deadline);
  asio::awaitable<void> StopTasks();

  Dependencies deps_;
  Settings settings_;
  RightOfWay right_of_way_;
  Events events_;
  Vms vms_;
  Admission admission_;
  Catalog catalog_;
  Pools pools_;
  Onlining onlining_;
  LeaseEnds lease_ends_;
  HealthChecks health_;
  Leases leases_;
  Adoption adoption_;
  Strays strays_;
};

}  // namespace hatchery::cache
