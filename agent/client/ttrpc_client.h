// The real agent client: typed calls over a ttrpc channel (channel.h). See client.h for what the
// calls promise.
#pragma once

#include <memory>
#include <string>

#include "agent/client/client.h"
#include "base/fd.h"

namespace hatchery::agent {

class TtrpcConnector final : public Connector {
 public:
  explicit TtrpcConnector(Executor executor) : executor_(std::move(executor)) {}
  Task<std::unique_ptr<Client>> Connect(const Endpoint& endpoint, Deadline deadline) override;

 private:
  Executor executor_;
};

// A client on a socket that is connected already; `peer` names it in error messages.
std::unique_ptr<Client> MakeTtrpcClient(Executor executor, UniqueFd socket, std::string peer);

}  // namespace hatchery::agent
