// A whole cache on fakes: VMs in memory, agents in memory, records in memory; templates are real
// files in a temporary folder. Restart() makes a new cache on the same host and store, as after the
// daemon died.
#pragma once

#include <gtest/gtest.h>

#include <fstream>

#include "agent/fake/fake_agent.h"
#include "base/files.h"
#include "base/run.h"
#include "cache/cache.h"
#include "hypervisor/fake/fake_driver.h"

namespace hatchery::cache {

using hypervisor::fake::Fault;
using hypervisor::fake::Verb;

inline constexpr auto kMoment = std::chrono::milliseconds(200);
inline constexpr auto kLong = std::chrono::seconds(30);

// A host with as much memory as it is told.
class FakeHostMemory final : public HostMemoryReader {
 public:
  Result<HostMemory> Read() override { return read(); }
  std::function<Result<HostMemory>()> read = [] {
    return HostMemory{Bytes::GiB(16), Bytes::GiB(16)};
  };
};

// The seams, which outlive a cache.
struct Outside {
  asio::io_context io;
  TempDir dir = TempDir::Create("/tmp", "hatchery-cache-").value();
  FakeClock clock;
  WorkerPool workers{1};
  hypervisor::fake::FakeHost host{io.get_executor()};
  agent::FakeAgents agents{io.get_executor()};
  MemoryStore store;
  FakeHostMemory memory;
};

class CacheUnderTest {
 public:
  CacheUnderTest(Outside& outside, Settings settings, std::string boot_id = "boot-1")
      : driver(outside.host),
        templates(tmpl::Store::Open(outside.dir.path() / "templates", outside.workers).value()),
        verdicts(outside.dir.path() / "accelerator.json"),
        booter(driver, outside.agents, verdicts, outside.dir.path() / "vms"),
        builder(driver, booter, *templates, outside.workers),
        factory(driver, outside.agents, booter, outside.workers, outside.clock),
        cache(
            {
                .executor = outside.io.get_executor(),
                .store = outside.store,
                .templates = *templates,
                .builder = builder,
                .booter = booter,
                .factory = factory,
                .driver = driver,
                .connector = outside.agents,
                .clock = outside.clock,
                .host_memory = outside.memory,
                .default_guest = [&outside](auto, Deadline) -> Task<GuestFiles> {
                  co_return GuestFiles{
                      outside.dir.path() / "vmlinuz", outside.dir.path() / "initrd", {}};
                },
                .host_boot_id = std::move(boot_id),
            },
            std::move(settings)) {}

  hypervisor::fake::FakeDriver driver;
  std::unique_ptr<tmpl::Store> templates;
  tmpl::AcceleratorVerdicts verdicts;
  tmpl::Booter booter;
  tmpl::Builder builder;
  factory::Factory factory;
  Cache cache;
};

class CacheFixture : public testing::Test {
 protected:
  // With `keep_warm`, a cache that ends leaves its warm VMs, as one that was killed does.
  explicit CacheFixture(bool keep_warm = false) {
    settings_.keep_warm_on_stop = keep_warm;
    settings_.shape = {
        .vcpus = 1, .max_vcpus = 4, .memory = Bytes::MiB(128), .max_memory = Bytes::MiB(512)};
    settings_.accelerator = hypervisor::Accelerator::kTcg;
    EXPECT_TRUE(MakeDirectories(outside_.dir.path() / "vms").has_value());
    std::ofstream(outside_.dir.path() / "vmlinuz") << "a kernel";
    std::ofstream(outside_.dir.path() / "initrd") << "an initrd";
    Begin();
  }
  ~CacheFixture() override { Finish(); }

  // Runs a coroutine on the loop to its end.
  template <class T>
  T Run(asio::awaitable<T> body) {
    return RunUntilDone(outside_.io, std::move(body));
  }

  void Begin(std::string boot_id = "boot-1") {
    under_test_ = std::make_unique<CacheUnderTest>(outside_, settings_, std::move(boot_id));
    ASSERT_TRUE(Run(cache().Start(After(kLong))).has_value());
  }
  // Ends the cache in order, unless Die() did already.
  void Finish() {
    if (!under_test_) return;
    Run(StopCache());
    under_test_.reset();
  }
  // Ends it as if the daemon had been killed (for fixtures that keep warm VMs): nothing more is
  // written down.
  void Die() {
    outside_.store.before_write = [](const KvStore::Batch&) -> Result<void> {
      return Unavailable("the daemon is dead");
    };
    Run(StopCache());
    under_test_.reset();
    outside_.store.before_write = nullptr;
  }

  // Lets the loop run until `met()`, which is asked every millisecond. False if it takes too long.
  bool Eventually(const std::function<bool()>& met) {
    const auto give_up = After(kLong);
    while (!met()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      (void)Run(SleepFor(std::chrono::milliseconds(1)));
    }
    return true;
  }

  Cache& cache() { return under_test_->cache; }

  Result<Cache::Initialised> Init(std::uint32_t pool, std::string name = "") {
    Cache::InitParams params;
    params.spec.name = std::move(name);
    params.pool_target = pool;
    return Run(cache().Init(params, [](StepProgress) {}, After(kLong)));
  }
  Result<Acquired> Acquire(AcquireParams params = {}, std::chrono::nanoseconds timeout = kLong) {
    return Run(cache().leases().Acquire(std::move(params), After(timeout)));
  }
  Result<void> Release(const VmPtr& vm) {
    return Run(cache().leases().Release({}, vm->id(), After(kLong)));
  }
  Result<void> Fill(std::string name = "default") {
    for (const auto& pool : cache().pools().List()) {
      if (pool.template_name != name) continue;
      RETURN_IF_ERROR(
          Run(cache().pools().WaitFilled(pool.key, [](const PoolInfo&) {}, After(kLong))));
    }
    return {};
  }
  PoolInfo OnlyPool() { return cache().pools().List().at(0); }

  Endpoint AgentOf(const VmPtr& vm) { return vm->machine->vm->endpoints().agent; }

  // VMs whose folder is still there.
  std::size_t Folders() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(outside_.dir.path() / "vms")) {
      ++count;
    }
    return count;
  }
  // What is alive, what is on disk and what is recorded are the same, and `expected` many.
  void ExpectVms(std::size_t expected) {
    EXPECT_EQ(outside_.host.live().size(), expected) << "VMs alive";
    EXPECT_EQ(Folders(), expected) << "VM folders";
    EXPECT_EQ(outside_.store.Scan(Table::kVms).value().size(), expected) << "VM records";
  }

  Settings settings_;
  Outside outside_;
  std::unique_ptr<CacheUnderTest> under_test_;

 private:
  asio::awaitable<bool> StopCache() {
    co_await cache().Drain(After(kLong));
    co_await cache().Stop(After(kLong));
    co_return true;
  }
};

}  // namespace hatchery::cache
