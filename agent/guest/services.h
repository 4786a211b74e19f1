// What the agent answers, by service: the glue between wire messages and the parts that do the
// work. Loop thread only; destroy it after the connections whose calls it answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "agent/guest/call.h"
#include "agent/guest/dispatcher.h"
#include "agent/guest/event_loop.h"
#include "agent/guest/exec.h"
#include "agent/guest/onliner.h"
#include "agent/guest/personalize.h"
#include "agent/guest/system.h"
#include "agent/guest/worker.h"

namespace hatchery::agent::guest {

// kKataOnly: as an agent that is not Hatchery's answers. For tests of how the host treats one.
enum class Offer { kAll, kKataOnly };

class Services {
 public:
  // All outlive this.
  Services(EventLoop& loop, Worker& worker, GuestSystem& system, Onliner& onliner);

  // Adds grpc.Health, grpc.AgentService (Kata's names and behaviour) and, if it is offered,
  // hatchery.agent.v1.Guest.
  void AddTo(Dispatcher& dispatcher, Offer offer = Offer::kAll);

 private:
  void AddHealth(Dispatcher& dispatcher, std::string_view protocol);
  void AddKata(Dispatcher& dispatcher);
  void AddGuest(Dispatcher& dispatcher);
  void Personalize(const v1::PersonalizeRequest& request, std::shared_ptr<Call> call);
  void AwaitOnline(const v1::AwaitOnlineRequest& request, std::shared_ptr<Call> call);
  void OnlineCpuMem(std::uint32_t new_vcpus, bool wait, std::shared_ptr<Call> call);
  void WaitForOnline(std::uint32_t vcpus, Bytes memory, std::chrono::nanoseconds timeout,
                     std::shared_ptr<Call> call, Onliner::Done done);
  v1::DetailsResponse Details() const;
  void PrepareSave(std::shared_ptr<Call> call);
  void PowerOff(std::shared_ptr<Call> call);

  EventLoop& loop_;
  Worker& worker_;
  GuestSystem& system_;
  Onliner& onliner_;
  Personalizer personalizer_;
  Execs execs_;
  // Kata asks for "so many more" CPUs than at its last call.
  std::uint32_t kata_vcpus_;
};

}  // namespace hatchery::agent::guest
