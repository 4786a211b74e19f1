// Hostile values in every field of every request: refused with the field's name, and the service
// goes on.
#include <functional>

#include "hatchery/v1/errors.pb.h"
#include "tests/cache/rpc_fixture.h"

namespace hatchery::cache::rpc {
namespace {

const std::string kHuge(1 << 20, 'a');
const std::string kZero("a\0b", 3);

// Names that come from outside all have the same rules.
const std::vector<std::string> kNoNames = {"../x", "a/b", kZero, "a\nb",  kHuge,
                                           "-rf",  ".",   "a b", "a\x7f", "\xc3\xa4"};

std::string FieldOf(const grpc::Status& status) {
  api::ErrorStatus details;
  api::BadRequestDetail bad;
  if (!details.ParseFromString(status.error_details()) || details.details_size() != 1 ||
      !bad.ParseFromString(details.details(0).value()) || bad.field_violations_size() != 1) {
    return "(none)";
  }
  return bad.field_violations(0).field();
}

class EdgeTest : public RpcTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(InitFactory(1).ok());
    api::AcquireResponse acquired;
    ASSERT_TRUE(RpcTest::Acquire({}, &acquired).ok());
    vm_ = acquired.vm().vm_id();
  }
  void TearDown() override {
    api::ExecRequest exec;
    exec.set_vm_id(vm_);
    exec.add_argv("true");
    EXPECT_EQ(Send(exec).error_message(), "") << "the service does not go on";
  }

  grpc::Status Send(const api::AcquireRequest& request) {
    api::AcquireResponse reply;
    return RpcTest::Acquire(request, &reply);
  }
  grpc::Status Send(const api::RenewRequest& request) {
    api::RenewResponse reply;
    return cache_stub_->Renew(Context().get(), request, &reply);
  }
  grpc::Status Send(const api::ReleaseRequest& request) {
    api::ReleaseResponse reply;
    return cache_stub_->Release(Context().get(), request, &reply);
  }
  grpc::Status Send(const api::GetVmRequest& request) {
    api::GetVmResponse reply;
    return cache_stub_->GetVm(Context().get(), request, &reply);
  }
  grpc::Status Send(const api::ListVmsRequest& request) {
    api::ListVmsResponse reply;
    return cache_stub_->ListVms(Context().get(), request, &reply);
  }
  grpc::Status Send(const api::ExecRequest& request) {
    api::ExecResponse reply;
    return cache_stub_->Exec(Context().get(), request, &reply);
  }
  grpc::Status Send(const api::GetTemplateRequest& request) {
    api::GetTemplateResponse reply;
    return factory_stub_->GetTemplate(Context().get(), request, &reply);
  }
  template <class Response, class Request>
  grpc::Status Stream(std::unique_ptr<grpc::ClientReader<Response>> (api::Factory::Stub::*method)(
                          grpc::ClientContext*, const Request&),
                      const Request& request) {
    auto context = Context();
    auto reader = (factory_stub_.get()->*method)(context.get(), request);
    for (Response message; reader->Read(&message);) {
    }
    return reader->Finish();
  }
  grpc::Status Send(const api::InitRequest& r) { return Stream(&api::Factory::Stub::Init, r); }
  grpc::Status Send(const api::CreateTemplateRequest& r) {
    return Stream(&api::Factory::Stub::CreateTemplate, r);
  }
  grpc::Status Send(const api::VerifyTemplateRequest& r) {
    return Stream(&api::Factory::Stub::VerifyTemplate, r);
  }
  grpc::Status Send(const api::DeleteTemplateRequest& r) {
    return Stream(&api::Factory::Stub::DeleteTemplate, r);
  }
  grpc::Status Send(const api::SetPoolRequest& r) {
    return Stream(&api::Factory::Stub::SetPool, r);
  }

  // `spoil` makes a request bad in `field`.
  template <class Request>
  void Refuses(const std::string& field, const std::function<void(Request&)>& spoil) {
    Request request;
    spoil(request);
    const auto status = Send(request);
    const std::string what =
        request.GetTypeName() + ", " + request.ShortDebugString().substr(0, 99);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << what << ": " << status.error_message();
    EXPECT_EQ(FieldOf(status), field) << what << ": " << status.error_message();
  }
  template <class Request>
  void RefusesNames(const std::string& field,
                    const std::function<void(Request&, const std::string&)>& set) {
    for (const auto& name : kNoNames) {
      Refuses<Request>(field, [&](Request& request) { set(request, name); });
    }
  }
  // Requests that name a VM with some other field bad.
  template <class Request>
  void RefusesOfVm(const std::string& field, const std::function<void(Request&)>& spoil) {
    Refuses<Request>(field, [&](Request& request) {
      request.set_vm_id(vm_);
      spoil(request);
    });
  }
  void RefusesExec(const std::string& field, const std::function<void(api::ExecRequest&)>& spoil) {
    RefusesOfVm<api::ExecRequest>(field, [&](auto& request) {
      request.add_argv("true");
      spoil(request);
    });
  }
  void RefusesTemplate(const std::string& field,
                       const std::function<void(api::TemplateSpec&)>& spoil) {
    Refuses<api::InitRequest>(field, [&](auto& r) { spoil(*r.mutable_template_spec()); });
    Refuses<api::CreateTemplateRequest>(field, [&](auto& r) { spoil(*r.mutable_template_spec()); });
  }

  std::string vm_;
};

TEST_F(EdgeTest, Acquire) {
  using R = api::AcquireRequest;
  RefusesNames<R>("request_id", [](auto& r, auto& name) { r.set_request_id(name); });
  RefusesNames<R>("template_name", [](auto& r, auto& name) { r.set_template_name(name); });
  RefusesNames<R>("hostname", [](auto& r, auto& name) { r.set_hostname(name); });
  for (const auto& text : {kHuge, kZero, std::string("a\nb"), std::string("\x1b[2J")}) {
    Refuses<R>("sandbox_id", [&](auto& r) { r.set_sandbox_id(text); });
  }
  for (const std::uint32_t vcpus : {0u, 10'000u, UINT32_MAX}) {
    Refuses<R>("vcpus", [&](auto& r) { r.set_vcpus(vcpus); });
  }
  for (const std::uint64_t bytes : {std::uint64_t(0), std::uint64_t(1), UINT64_MAX}) {
    Refuses<R>("memory_bytes", [&](auto& r) { r.set_memory_bytes(bytes); });
  }
  for (const std::int64_t seconds : {std::int64_t(-1), INT64_MIN, INT64_MAX}) {
    Refuses<R>("ttl", [&](auto& r) { r.mutable_ttl()->set_seconds(seconds); });
  }
  for (const int nanos : {-1, INT32_MAX, INT32_MIN}) {
    Refuses<R>("ttl", [&](auto& r) { r.mutable_ttl()->set_nanos(nanos); });
  }
  Refuses<R>("ttl", [&](auto& r) { r.mutable_ttl(); });
}

TEST_F(EdgeTest, WhatNamesAVm) {
  RefusesNames<api::RenewRequest>("vm_id", [](auto& r, auto& name) { r.set_vm_id(name); });
  RefusesNames<api::ReleaseRequest>("vm_id", [](auto& r, auto& name) { r.set_vm_id(name); });
  RefusesNames<api::GetVmRequest>("vm_id", [](auto& r, auto& name) { r.set_vm_id(name); });
  RefusesNames<api::ExecRequest>("vm_id", [](auto& r, auto& name) {
    r.set_vm_id(name);
    r.add_argv("true");
  });
  Refuses<api::ReleaseRequest>("vm_id", [](auto&) {});
  RefusesOfVm<api::RenewRequest>("ttl", [](auto& r) { r.mutable_ttl()->set_seconds(-1); });
  RefusesOfVm<api::RenewRequest>("ttl", [](auto& r) { r.mutable_ttl()->set_seconds(INT64_MAX); });
}

TEST_F(EdgeTest, Filters) {
  RefusesNames<api::ListVmsRequest>("template_name",
                                    [](auto& r, auto& name) { r.set_template_name(name); });
  Refuses<api::ListVmsRequest>("state", [](auto& r) { r.set_state(api::VmState(77)); });
  Refuses<api::ListVmsRequest>("state", [](auto& r) { r.set_state(api::VmState(-1)); });
}

TEST_F(EdgeTest, Exec) {
  RefusesOfVm<api::ExecRequest>("argv", [](auto&) {});
  RefusesOfVm<api::ExecRequest>("argv", [](auto& r) { r.add_argv(""); });
  RefusesExec("argv", [](auto& r) { r.add_argv(kZero); });
  RefusesExec("argv", [](auto& r) { r.add_argv(kHuge); });
  RefusesExec("argv", [](auto& r) {
    for (int i = 0; i < 5000; ++i) r.add_argv("x");
  });
  RefusesExec("argv", [](auto& r) {
    for (int i = 0; i < 20; ++i) r.add_argv(std::string(100'000, 'x'));
  });
  for (const auto& name : {std::string(), std::string("a=b"), std::string("="), kZero, kHuge}) {
    RefusesExec("env", [&](auto& r) { (*r.mutable_env())[name] = "x"; });
  }
  RefusesExec("env", [](auto& r) { (*r.mutable_env())["A"] = kZero; });
  RefusesExec("env", [](auto& r) { (*r.mutable_env())["A"] = kHuge; });
  RefusesExec("env", [](auto& r) {
    for (int i = 0; i < 5000; ++i) (*r.mutable_env())["A" + std::to_string(i)] = "x";
  });
  for (const auto& path : {std::string("tmp"), std::string("../etc"), "/" + kZero, "/" + kHuge}) {
    RefusesExec("cwd", [&](auto& r) { r.set_cwd(path); });
  }
  RefusesExec("stdin_data", [](auto& r) { r.set_stdin_data(std::string(3 << 20, 'x')); });
  RefusesExec("timeout", [](auto& r) { r.mutable_timeout()->set_seconds(-1); });
  RefusesExec("timeout", [](auto& r) { r.mutable_timeout()->set_seconds(INT64_MAX); });
  RefusesExec("output_limit", [](auto& r) { r.set_output_limit(UINT64_MAX); });
}

TEST_F(EdgeTest, Templates) {
  for (const auto& name : kNoNames) RefusesTemplate("name", [&](auto& t) { t.set_name(name); });
  for (const auto& path : {std::string("vmlinuz"), std::string("../x"), "/" + kZero, "/" + kHuge}) {
    RefusesTemplate("kernel", [&](auto& t) { t.set_kernel(path); });
    RefusesTemplate("initrd", [&](auto& t) { t.set_initrd(path); });
    RefusesTemplate("image", [&](auto& t) { t.set_image(path); });
  }
  for (const auto& params : {kZero, std::string("a\nb"), kHuge}) {
    RefusesTemplate("kernel_params", [&](auto& t) { t.set_kernel_params(params); });
  }
  for (const std::uint32_t vcpus : {0u, 241u, UINT32_MAX}) {
    RefusesTemplate("vcpus", [&](auto& t) { t.set_vcpus(vcpus); });
    RefusesTemplate("max_vcpus", [&](auto& t) { t.set_max_vcpus(vcpus); });
  }
  for (const std::uint64_t bytes : {std::uint64_t(0), std::uint64_t(1), UINT64_MAX}) {
    RefusesTemplate("memory_bytes", [&](auto& t) { t.set_memory_bytes(bytes); });
    RefusesTemplate("max_memory_bytes", [&](auto& t) { t.set_max_memory_bytes(bytes); });
  }
  for (const auto& text : {std::string("hvf"), kHuge, kZero, std::string("../kvm")}) {
    RefusesTemplate("accelerator", [&](auto& t) { t.set_accelerator(text); });
  }
  RefusesTemplate("boot_timeout", [](auto& t) { t.mutable_boot_timeout()->set_seconds(-1); });
  RefusesTemplate("boot_timeout",
                  [](auto& t) { t.mutable_boot_timeout()->set_seconds(1LL << 40); });
  Refuses<api::InitRequest>("pool_target", [](auto& r) { r.set_pool_target(UINT32_MAX); });
}

TEST_F(EdgeTest, TemplatesByName) {
  RefusesNames<api::GetTemplateRequest>("name", [](auto& r, auto& name) { r.set_name(name); });
  RefusesNames<api::VerifyTemplateRequest>("name", [](auto& r, auto& name) { r.set_name(name); });
  RefusesNames<api::DeleteTemplateRequest>("name", [](auto& r, auto& name) { r.set_name(name); });
  Refuses<api::DeleteTemplateRequest>("name", [](auto&) {});
}

TEST_F(EdgeTest, Pools) {
  using R = api::SetPoolRequest;
  RefusesNames<R>("template_name", [](auto& r, auto& name) { r.set_template_name(name); });
  Refuses<R>("target", [](auto& r) { r.set_target(UINT32_MAX); });
  for (const std::uint32_t vcpus : {0u, UINT32_MAX}) {
    Refuses<R>("vcpus", [&](auto& r) { r.set_vcpus(vcpus); });
  }
  for (const std::uint64_t bytes : {std::uint64_t(0), std::uint64_t(1), UINT64_MAX}) {
    Refuses<R>("memory_bytes", [&](auto& r) { r.set_memory_bytes(bytes); });
  }
}

}  // namespace
}  // namespace hatchery::cache::rpc
