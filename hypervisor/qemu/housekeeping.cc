#include "hypervisor/qemu/housekeeping.h"

#include <boost/asio/steady_timer.hpp>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "hypervisor/qemu/command_line.h"

namespace hatchery::hypervisor::qemu {

struct Housekeeping::State : std::enable_shared_from_this<State> {
  State(const Executor& executor, Bytes limit, std::shared_ptr<Isolation> i)
      : log_limit(limit), isolation(std::move(i)), timer(executor) {}

  Bytes log_limit;
  std::shared_ptr<Isolation> isolation;
  asio::steady_timer timer;
  std::vector<std::weak_ptr<Instance>> instances;
  bool waiting = false;

  void Wait() {
    if (waiting) return;
    waiting = true;
    timer.expires_after(kInterval);
    timer.async_wait([self = shared_from_this()](boost::system::error_code error) {
      self->waiting = false;
      if (!error) self->Look();
    });
  }

  void BoundLogs(const VmConfig& config) const {
    for (const auto& log : {ConsoleLog(config), VmmLog(config)}) {
      if (auto kept = KeepNewest(log, log_limit); !kept) {
        log::Warning({.vm = config.id.str()}, kept.error().message);
      }
    }
  }

  void Look() {
    isolation->RetryRemovals();
    std::erase_if(instances, [this](const auto& weak) {
      const auto instance = weak.lock();
      if (instance && instance->process) BoundLogs(instance->config);
      return !instance;
    });
    if (!instances.empty() || isolation->removals_pending()) Wait();
  }
};

Housekeeping::Housekeeping(Executor executor, Bytes log_limit, std::shared_ptr<Isolation> isolation)
    : state_(std::make_shared<State>(std::move(executor), log_limit, std::move(isolation))) {}

Housekeeping::~Housekeeping() { state_->timer.cancel(); }

void Housekeeping::Add(const std::shared_ptr<Instance>& instance) {
  state_->instances.push_back(instance);
  state_->Wait();
}

}  // namespace hatchery::hypervisor::qemu
