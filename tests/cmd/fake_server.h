// A daemon in this process: the services' replies are scripted, what they were asked is kept.
#pragma once

#include <grpcpp/grpcpp.h>
#include <hatchery/v1/cache.grpc.pb.h>
#include <hatchery/v1/factory.grpc.pb.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"

namespace hatchery::cli {

// Handlers run on gRPC's threads; set them before the first call.
class FakeCache final : public v1::Cache::Service {
 public:
  std::function<grpc::Status(const v1::AcquireRequest&, v1::AcquireResponse&)> on_acquire;
  std::function<grpc::Status(const v1::ExecRequest&, v1::ExecResponse&)> on_exec;
  // Called when Exec() has begun; Exec() then returns only once its caller has gone.
  std::function<void()> on_exec_hanging;
  // What a Watch() sends and how it ends; the request, and whether its client is still there.
  std::function<grpc::Status(const v1::WatchRequest&, grpc::ServerContext&,
                             grpc::ServerWriter<v1::WatchResponse>&)>
      on_watch;
  std::uint64_t revision = 1;  // of the list
  grpc::Status release_status;
  v1::VmStats stats;

  std::vector<std::string> released() const {
    const std::lock_guard lock(mutex_);
    return released_;
  }
  // Leased VMs that were not released.
  std::size_t leased() const {
    const std::lock_guard lock(mutex_);
    return vms_.size();
  }
  v1::LeaseTerm term_of(const std::string& vm_id) const {
    const std::lock_guard lock(mutex_);
    return vms_.at(vm_id).lease_term();
  }
  v1::ExecRequest last_exec() const {
    const std::lock_guard lock(mutex_);
    return last_exec_;
  }
  std::vector<std::string> request_ids() const {
    const std::lock_guard lock(mutex_);
    return request_ids_;
  }

  // Leases a VM as the real service does: also when the reply then gets lost.
  v1::Vm Lease(const v1::AcquireRequest& request) {
    const std::lock_guard lock(mutex_);
    v1::Vm vm;
    vm.set_vm_id("vm-" + std::to_string(++count_));
    vm.set_state(v1::VM_STATE_ASSIGNED);
    vm.set_template_name(request.template_name().empty() ? "default" : request.template_name());
    vm.set_vcpus(request.has_vcpus() ? request.vcpus() : 1);
    vm.set_memory_bytes(request.has_memory_bytes() ? request.memory_bytes() : 256 << 20);
    vm.set_pid(4'000'000'000);
    vm.set_request_id(request.request_id());
    vm.set_sandbox_id(request.sandbox_id());
    vm.mutable_created()->set_seconds(1'700'000'000);
    vm.set_tenant("uid:7");
    vm.set_lease_term(v1::LEASE_TERM_HELD);
    if (request.bind_to_caller()) {
      vm.set_lease_term(v1::LEASE_TERM_CALLER);
      vm.set_holder_pid(4242);
    }
    if (request.has_ttl()) SetTtl(vm, request.ttl());
    vms_[vm.vm_id()] = vm;
    request_ids_.push_back(request.request_id());
    return vm;
  }

 private:
  // It was granted, or renewed, when the test's clock began.
  static void SetTtl(v1::Vm& vm, const google::protobuf::Duration& ttl) {
    vm.set_lease_term(v1::LEASE_TERM_TTL);
    *vm.mutable_lease_ttl() = ttl;
    vm.mutable_lease_expires()->set_seconds(1'700'000'000 + ttl.seconds());
  }

  grpc::Status Renew(grpc::ServerContext*, const v1::RenewRequest* request,
                     v1::RenewResponse* response) override {
    const std::lock_guard lock(mutex_);
    const auto vm = vms_.find(request->vm_id());
    if (vm == vms_.end()) {
      return {grpc::StatusCode::NOT_FOUND, "no VM '" + request->vm_id() + "'"};
    }
    SetTtl(vm->second, request->has_ttl() ? request->ttl() : vm->second.lease_ttl());
    *response->mutable_vm() = vm->second;
    return grpc::Status::OK;
  }

  grpc::Status Acquire(grpc::ServerContext*, const v1::AcquireRequest* request,
                       v1::AcquireResponse* response) override {
    if (on_acquire) return on_acquire(*request, *response);
    *response->mutable_vm() = Lease(*request);
    response->set_source(v1::AcquireResponse::POOL);
    response->mutable_total()->set_nanos(1'500'000);
    return grpc::Status::OK;
  }

  grpc::Status Release(grpc::ServerContext*, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse*) override {
    const std::lock_guard lock(mutex_);
    if (!release_status.ok()) return release_status;
    if (vms_.erase(request->vm_id()) == 0) {
      return {grpc::StatusCode::NOT_FOUND, "no VM '" + request->vm_id() + "'"};
    }
    released_.push_back(request->vm_id());
    return grpc::Status::OK;
  }

  grpc::Status GetVm(grpc::ServerContext*, const v1::GetVmRequest* request,
                     v1::GetVmResponse* response) override {
    const std::lock_guard lock(mutex_);
    const auto vm = vms_.find(request->vm_id());
    if (vm == vms_.end()) {
      return {grpc::StatusCode::NOT_FOUND, "no VM '" + request->vm_id() + "'"};
    }
    *response->mutable_vm() = vm->second;
    *response->mutable_stats() = stats;
    response->set_console_tail("boot\r\n\033]0;owned\007done\r\n");
    return grpc::Status::OK;
  }

  grpc::Status ListVms(grpc::ServerContext*, const v1::ListVmsRequest*,
                       v1::ListVmsResponse* response) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, vm] : vms_) *response->add_vms() = vm;
    response->set_revision(revision);
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    return on_watch(*request, *context, *writer);
  }

  grpc::Status Exec(grpc::ServerContext* context, const v1::ExecRequest* request,
                    v1::ExecResponse* response) override {
    {
      const std::lock_guard lock(mutex_);
      last_exec_ = *request;
    }
    if (on_exec_hanging) {
      on_exec_hanging();
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status::CANCELLED;
    }
    if (on_exec) return on_exec(*request, *response);
    response->set_exit_code(0);
    return grpc::Status::OK;
  }

  mutable std::mutex mutex_;
  int count_ = 0;
  std::map<std::string, v1::Vm> vms_;
  std::vector<std::string> released_;
  std::vector<std::string> request_ids_;
  v1::ExecRequest last_exec_;
};

class FakeFactory final : public v1::Factory::Service {
 public:
  grpc::Status init_status;
  v1::InitRequest last_init;
  v1::SetPoolRequest last_pool;
  v1::CreateTemplateRequest last_create;

 private:
  static v1::Template Info(const std::string& name) {
    v1::Template info;
    info.set_name(name.empty() ? "default" : name);
    info.set_digest(std::string(64, 'a'));
    info.set_vcpus(1);
    info.set_max_vcpus(8);
    info.set_memory_bytes(256ull << 20);
    info.set_max_memory_bytes(4ull << 30);
    return info;
  }

  grpc::Status Init(grpc::ServerContext*, const v1::InitRequest* request,
                    grpc::ServerWriter<v1::InitResponse>* writer) override {
    last_init = *request;
    v1::InitResponse message;
    message.mutable_progress()->set_step("booting");
    writer->Write(message);
    if (!init_status.ok()) return init_status;
    auto* result = message.mutable_result();
    *result->mutable_template_info() = Info(request->template_spec().name());
    result->mutable_boot_time()->set_seconds(3);
    result->mutable_pool()->set_target(4);
    result->mutable_pool()->set_warm(4);
    writer->Write(message);
    return grpc::Status::OK;
  }

  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusResponse* response) override {
    response->set_version("0.1.0");
    response->set_pid(42);
    *response->add_templates() = Info("default");
    return grpc::Status::OK;
  }

  grpc::Status CreateTemplate(grpc::ServerContext*, const v1::CreateTemplateRequest* request,
                              grpc::ServerWriter<v1::CreateTemplateResponse>* writer) override {
    last_create = *request;
    v1::CreateTemplateResponse message;
    *message.mutable_result()->mutable_template_info() = Info(request->template_spec().name());
    writer->Write(message);
    return grpc::Status::OK;
  }

  grpc::Status SetPool(grpc::ServerContext*, const v1::SetPoolRequest* request,
                       grpc::ServerWriter<v1::SetPoolResponse>* writer) override {
    last_pool = *request;
    v1::SetPoolResponse message;
    message.mutable_pool()->set_target(request->target());
    writer->Write(message);
    return grpc::Status::OK;
  }
};

// Listens at <folder>/hatchery.sock.
class FakeServer {
 public:
  FakeServer() : folder_(*TempDir::Create(fs::temp_directory_path(), "hatchery-cli-")) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket(), grpc::InsecureServerCredentials());
    builder.RegisterService(&cache);
    builder.RegisterService(&factory);
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() { server_->Shutdown(); }

  std::string socket() const { return folder_.path() / "hatchery.sock"; }

  FakeCache cache;
  FakeFactory factory;

 private:
  TempDir folder_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace hatchery::cli
