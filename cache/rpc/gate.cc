#include "cache/rpc/gate.h"

#include <grpc/grpc_security_constants.h>

#include <string>
#include <utility>

namespace hatchery::cache::rpc {

namespace {

constexpr std::pair<std::string_view, MethodClass> kClasses[] = {
    {"hatchery.v1.Cache.Acquire", MethodClass::kAcquire},
    {"hatchery.v1.Cache.Renew", MethodClass::kAcquire},
    {"hatchery.v1.Cache.Release", MethodClass::kAcquire},
    {"hatchery.v1.Cache.Exec", MethodClass::kAcquire},
    {"hatchery.v1.Cache.GetVm", MethodClass::kRead},
    {"hatchery.v1.Cache.ListVms", MethodClass::kRead},
    {"hatchery.v1.Cache.Watch", MethodClass::kRead},

    {"hatchery.v1.Factory.Status", MethodClass::kRead},
    {"hatchery.v1.Factory.ListTemplates", MethodClass::kRead},
    {"hatchery.v1.Factory.GetTemplate", MethodClass::kRead},
    {"hatchery.v1.Factory.ListPools", MethodClass::kRead},
    {"hatchery.v1.Factory.Init", MethodClass::kAdminister},
    {"hatchery.v1.Factory.Destroy", MethodClass::kAdminister},
    {"hatchery.v1.Factory.CreateTemplate", MethodClass::kAdminister},
    // Reads all of a template from the disk, as often as it is called.
    {"hatchery.v1.Factory.VerifyTemplate", MethodClass::kAdminister},
    {"hatchery.v1.Factory.DeleteTemplate", MethodClass::kAdminister},
    {"hatchery.v1.Factory.SetPool", MethodClass::kAdminister},
    {"hatchery.v1.Factory.GetKataConfig", MethodClass::kRead},

    {"cache.CacheService.Config", MethodClass::kRead},
    {"cache.CacheService.GetBaseVM", MethodClass::kAcquire},
    // Names the processes of all that is pooled.
    {"cache.CacheService.Status", MethodClass::kAdminister},
    {"cache.CacheService.Quit", MethodClass::kAdminister},
};

}  // namespace

std::optional<MethodClass> ClassOf(std::string_view full_method_name) {
  for (const auto& [name, what] : kClasses) {
    if (name == full_method_name) return what;
  }
  return std::nullopt;
}

Result<TlsPeer> TlsPeerOf(const grpc::AuthContext& auth) {
  std::string name;
  if (auth.IsPeerAuthenticated()) {
    for (const char* property : {GRPC_X509_CN_PROPERTY_NAME, GRPC_PEER_DNS_PROPERTY_NAME}) {
      const auto values = auth.FindPropertyValues(property);
      if (!values.empty() && name.empty()) name.assign(values[0].data(), values[0].size());
    }
  }
  RETURN_IF_ERROR(ValidateTlsName(name));
  return TlsPeer{name};
}

bool MaySee(const Caller& caller, const VmEntry& vm) {
  if (caller.administers) return true;
  return !vm.tenant().empty() && caller.MaySee(vm.tenant());
}

Result<Peer> Gate::Identify(const grpc::CallbackServerContext& context) const {
  const std::string connection = context.peer();
  // What was not accepted by us came over TCP, where gRPC has asked for a certificate.
  if (!connection.starts_with("fd:")) return TlsPeerOf(*context.auth_context());
  return peers_.Find(connection);
}

Result<Caller> Gate::Admit(const grpc::CallbackServerContext& context,
                           std::string_view full_method_name) const {
  const auto what = ClassOf(full_method_name);
  if (!what) {
    return PermissionDenied(std::string(full_method_name) +
                            " has no class of who may call it; that is a bug");
  }
  ASSIGN_OR_RETURN(const Peer peer, Identify(context));
  return access_.Authorize(peer, *what);
}

}  // namespace hatchery::cache::rpc
