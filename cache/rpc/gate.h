// The one door to the services, of our own protocol and of Kata's: which class each method has, and
// on whose behalf a call comes.
//
// Every handler starts with Admit(), and the calls of bridge.h run nothing without what it answers.
// The services of the standard health check and of reflection have no door: whoever can connect may
// ask whether we serve, and what.
#pragma once

#include <grpcpp/server_context.h>

#include <optional>
#include <string_view>

#include "cache/access.h"
#include "cache/rpc/peers.h"
#include "cache/vms.h"

namespace hatchery::cache::rpc {

// Of "hatchery.v1.Cache.Acquire"; absent for a method that nobody has thought about.
std::optional<MethodClass> ClassOf(std::string_view full_method_name);

// The name that a client's verified certificate gives it: its common name, or, where it has none,
// its first DNS name. kPermissionDenied without such a certificate, or when the name cannot be one.
Result<TlsPeer> TlsPeerOf(const grpc::AuthContext& auth);

// Whether a VM exists for `caller`: those that its tenant leases or did until they are gone, and
// for an administrator all. Pooled VMs are nobody's, and no tenant's business.
bool MaySee(const Caller& caller, const VmEntry& vm);

// Any thread. Both outlive it.
class Gate {
 public:
  Gate(const Access& access, const Peers& peers) : access_(access), peers_(peers) {}

  // kPermissionDenied: see Access::Authorize(); also for a method without a class.
  Result<Caller> Admit(const grpc::CallbackServerContext& context,
                       std::string_view full_method_name) const;

 private:
  Result<Peer> Identify(const grpc::CallbackServerContext& context) const;

  const Access& access_;
  const Peers& peers_;
};

}  // namespace hatchery::cache::rpc
