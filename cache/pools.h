// Pools: warm VMs by template and shape, kept at their target size, off the acquire path. An
// operator makes them; shapes that are asked for often get learned ones, which come and go with the
// demand (popular.h says when).
//
// Learned pools are on record, so that a restart keeps their warm VMs; one that an operator sets
// becomes his. When there is work for both, an operator's is refilled first. Loop thread only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cache/admission.h"
#include "cache/catalog.h"
#include "cache/popular.h"
#include "cache/records.h"
#include "cache/right_of_way.h"
#include "cache/settings.h"
#include "cache/shape.h"
#include "cache/vms.h"

namespace hatchery::cache {

struct PoolInfo {
  std::string key;
  std::string template_name;
  std::uint32_t vcpus = 0;
  Bytes memory;
  std::uint32_t target = 0;
  std::uint32_t warm = 0, filling = 0, leased = 0;
  std::uint64_t hits = 0, misses = 0;
  std::string last_error;
  bool learned = false;
};

class Pools final : public IdleVms {
 public:
  Pools(Executor executor, KvStore& store, Catalog& catalog, Vms& vms, Admission& admission,
        RightOfWay& right_of_way, const Settings& settings, const Clock& clock);
  ~Pools() override;

  // Pools as the metadata store has them. Filling begins with Start().
  void Restore(const std::vector<record::PoolRecord>& pools);
  // Gives a warm VM of an earlier daemon to its pool; false if it has none or another version.
  bool TakeIn(const VmPtr& vm);
  void Start();

  // Creates or resizes the pool of a template and shape; target 0 removes it and ends its warm VMs.
  // Absent sizes mean the template's. Returns its key.
  Task<std::string> Set(const std::string& template_name, std::optional<std::uint32_t> vcpus,
                        std::optional<Bytes> memory, std::uint32_t target, Deadline deadline);

  // Returns when the pool has reached its target; calls `progress` as it grows. Ends with the error
  // of the last clone if clones keep failing. kNotFound when it is removed meanwhile,
  // kResourceExhausted when there is too little memory for it: it fills by itself when there is
  // more.
  Task<void> WaitFilled(std::string key, std::function<void(const PoolInfo&)> progress,
                        Deadline deadline);

  // A warm VM for this shape, taken out of its pool: of the pool of exactly this shape, else of the
  // one of the template's own shape, to be resized. Null when there is none. The caller assigns it
  // or ends it. Counts a hit or a miss, and what is asked for often.
  VmPtr Take(const std::string& template_name, const tmpl::Manifest& manifest, std::uint32_t vcpus,
             Bytes memory);

  // Lets a pool refill after a Take(), as soon as acquires leave room for it (PutOff).
  void Refill(const std::string& key);

  // A VM that was warm is so no more (it died): takes it out and refills.
  void Remove(const VmPtr& vm);

  // A template's name points at another version, or at none: warm VMs of the old one go and new
  // ones are made. A pool of the template's own shape takes the new version's; a pool of a shape
  // that the new version cannot have goes, as do all pools of a deleted name.
  void OnTemplateChanged(const std::string& name);

  // Removes a template's pools and their warm VMs, and stops the clones being made for them.
  Result<void> RemoveAllOf(const std::string& template_name);

  // Makes the learned pools those that there should be by now. Called by itself when somebody asks
  // for a shape once more, and every so often.
  void Learn();

  // For when memory is short: learned pools' VMs go first, then those of whichever has most left.
  std::vector<VmPtr> Idle() const override;
  void Evict(const VmPtr& vm) override;
  void Retry() override { MaintainAll(); }

  std::vector<PoolInfo> List() const;

  // No clones from here on; those being made are undone.
  asio::awaitable<void> Stop();

 private:
  struct Pool;
  void Maintain(Pool& pool);
  void MaintainLater(const std::shared_ptr<Pool>& pool);
  void Refit(const std::string& name, const tmpl::Shape& shape);
  void MaintainAll();
  asio::awaitable<void> KeepLearning();
  void SetLearned(const PooledShape& shape, std::uint32_t target);
  asio::awaitable<void> Hatch(std::shared_ptr<Pool> pool, Admission::Clone clone);
  PoolInfo InfoOf(const Pool& pool) const;
  Result<void> Erase(const std::string& key);
  void Drop(const std::shared_ptr<Pool>& pool);
  Result<void> Move(const std::shared_ptr<Pool>& pool, const tmpl::Shape& shape);

  Executor executor_;
  KvStore& store_;
  Catalog& catalog_;
  Vms& vms_;
  Admission& admission_;
  RightOfWay& right_of_way_;
  const Settings& settings_;
  const Clock& clock_;
  Popular popular_;
  bool running_ = false;
  std::size_t hatching_ = 0;  // over all pools
  std::map<std::string, std::shared_ptr<Pool>> pools_;
  Notifier changed_;
  Notifier asked_often_;
  TaskScope hatchers_;
  TaskScope learner_;
};

}  // namespace hatchery::cache
