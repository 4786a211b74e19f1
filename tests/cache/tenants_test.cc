// Who may call what, and that a tenant's VMs are its own: over a real socket, as several users.
#include "tests/cache/as_user.h"
#include "tests/cache/rpc_fixture.h"

namespace hatchery::cache::rpc {
namespace {

using testing::HasSubstr;

constexpr uid_t kAlice = 1000, kBob = 1001;

class TenantsTest : public RpcTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(CanBeOthers()) << "takes root";
    fs::permissions(outside_.dir.path(), fs::perms(0755));
    Serve({.socket = Socket(), .mode = 0666});
    alice_ = Stub(kAlice);
    bob_ = Stub(kBob);
  }
  void ServeWith(const Access::Lists& lists) {
    Serve({.socket = Socket(), .mode = 0666, .access = Access::Create(lists, 0).value()});
  }
  std::unique_ptr<api::Cache::Stub> Stub(uid_t uid) {
    return api::Cache::NewStub(ChannelAs(Socket(), uid));
  }
  api::Vm AcquireAs(api::Cache::Stub& stub, const std::string& request_id = "") {
    api::AcquireRequest request;
    request.set_request_id(request_id);
    api::AcquireResponse reply;
    const auto status = stub.Acquire(Context().get(), request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.vm();
  }
  std::set<std::string> VmsOf(api::Cache::Stub& stub) {
    api::ListVmsResponse all;
    const auto status = stub.ListVms(Context().get(), {}, &all);
    EXPECT_TRUE(status.ok()) << status.error_message();
    std::set<std::string> ids;
    for (const auto& vm : all.vms()) ids.insert(vm.vm_id());
    return ids;
  }
  api::StatusResponse StatusOf(uid_t uid) {
    const auto stub = api::Factory::NewStub(ChannelAs(Socket(), uid));
    api::StatusResponse status;
    EXPECT_TRUE(stub->Status(Context().get(), {}, &status).ok());
    return status;
  }
  // What each call that names a VM says, with the VM's name taken out.
  std::vector<std::string> AnswersAbout(api::Cache::Stub& stub, const std::string& id) {
    std::vector<grpc::Status> all;
    api::GetVmRequest get;
    get.set_vm_id(id);
    api::GetVmResponse got;
    all.push_back(stub.GetVm(Context().get(), get, &got));
    api::ExecRequest exec;
    exec.set_vm_id(id);
    exec.add_argv("true");
    api::ExecResponse ran;
    all.push_back(stub.Exec(Context().get(), exec, &ran));
    api::RenewRequest renew;
    renew.set_vm_id(id);
    api::RenewResponse renewed;
    all.push_back(stub.Renew(Context().get(), renew, &renewed));
    api::ReleaseRequest release;
    release.set_vm_id(id);
    api::ReleaseResponse released;
    all.push_back(stub.Release(Context().get(), release, &released));
    std::vector<std::string> answers;
    for (const auto& status : all) {
      std::string message = status.error_message();
      if (const auto at = message.find(id); at != std::string::npos) message.erase(at, id.size());
      answers.push_back(std::to_string(status.error_code()) + " " + message);
    }
    return answers;
  }

  std::unique_ptr<api::Cache::Stub> alice_, bob_;
};

TEST_F(TenantsTest, ATenantSeesItsOwnVmsAndNobodyElses) {
  ASSERT_TRUE(InitFactory(2).ok());
  const auto hers = AcquireAs(*alice_), his = AcquireAs(*bob_);
  EXPECT_EQ(hers.tenant(), "uid:1000");
  EXPECT_EQ(VmsOf(*alice_), std::set<std::string>{hers.vm_id()});
  EXPECT_EQ(VmsOf(*bob_), std::set<std::string>{his.vm_id()});
  WaitForVms(4);  // root sees them and the pool's two
  EXPECT_EQ(StatusOf(kAlice).vms(), 1u);
  EXPECT_EQ(StatusOf(kAlice).leased(), 1u);
  EXPECT_EQ(StatusOf(1002).vms(), 0u);
  EXPECT_EQ(StatusOf(0).leased(), 2u);
}

TEST_F(TenantsTest, AnothersVmIsAsOneThatDoesNotExist) {
  ASSERT_TRUE(InitFactory(1).ok());
  const auto hers = AcquireAs(*alice_).vm_id();
  WaitForVms(2);
  std::string pooled;
  for (const auto& id : VmsOf(*cache_stub_)) {
    if (id != hers) pooled = id;
  }
  const auto none = AnswersAbout(*bob_, "vm-0123456789abcdef");
  EXPECT_THAT(none, testing::Each("5 no VM ''"));
  EXPECT_EQ(AnswersAbout(*bob_, hers), none);
  EXPECT_EQ(AnswersAbout(*bob_, pooled), none);
  EXPECT_EQ(VmsOf(*alice_), std::set<std::string>{hers}) << "Bob ended it";
  WaitForVms(2);
}

TEST_F(TenantsTest, AnAdministratorMayEndAnyonesVm) {
  ASSERT_TRUE(InitFactory(0).ok());
  api::ReleaseRequest release;
  release.set_vm_id(AcquireAs(*alice_).vm_id());
  api::ReleaseResponse released;
  EXPECT_TRUE(cache_stub_->Release(Context().get(), release, &released).ok());
  EXPECT_EQ(VmsOf(*alice_), std::set<std::string>{});
}

TEST_F(TenantsTest, RequestIdsAreEachTenantsOwn) {
  ASSERT_TRUE(InitFactory(0).ok());
  const auto hers = AcquireAs(*alice_, "r1").vm_id();
  EXPECT_NE(AcquireAs(*bob_, "r1").vm_id(), hers);
  EXPECT_EQ(AcquireAs(*alice_, "r1").vm_id(), hers);
}

TEST_F(TenantsTest, ALeaseIsBoundToTheProcessThatConnected) {
  ASSERT_TRUE(InitFactory(0).ok());
  api::AcquireRequest request;
  request.set_bind_to_caller(true);
  api::AcquireResponse reply;
  const auto status = alice_->Acquire(Context().get(), request, &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.vm().holder_pid(), ::getpid());
}

// Connections come and go, and their numbers with them.
TEST_F(TenantsTest, EachConnectionIsItsOwnUsers) {
  ASSERT_TRUE(InitFactory(0).ok());
  const auto hers = AcquireAs(*alice_).vm_id();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(VmsOf(*Stub(kBob)), std::set<std::string>{});
    EXPECT_EQ(VmsOf(*Stub(kAlice)), std::set<std::string>{hers});
  }
}

TEST_F(TenantsTest, GroupsOpenTheDoorToo) {
  ServeWith({"", "gid:2000", ""});
  api::ListVmsResponse all;
  auto stub = api::Cache::NewStub(ChannelAs(Socket(), kAlice, {2000}));
  EXPECT_TRUE(stub->ListVms(Context().get(), {}, &all).ok());
  stub = Stub(kAlice);
  EXPECT_EQ(stub->ListVms(Context().get(), {}, &all).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

class GateTest : public TenantsTest {
 protected:
  static std::vector<const google::protobuf::MethodDescriptor*> Methods(
      std::initializer_list<const char*> services = {"hatchery.v1.Cache", "hatchery.v1.Factory"}) {
    std::vector<const google::protobuf::MethodDescriptor*> all;
    for (const char* name : services) {
      const auto* service =
          google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
      EXPECT_NE(service, nullptr) << name;
      for (int i = 0; service != nullptr && i < service->method_count(); ++i) {
        all.push_back(service->method(i));
      }
    }
    return all;
  }
  static grpc::Status Call(const std::shared_ptr<grpc::Channel>& channel,
                           const google::protobuf::MethodDescriptor& method) {
    // Watch answers when something happens, which is never.
    return RawCall(channel, "/" + method.service()->full_name() + "/" + method.name(), "", nullptr,
                   std::chrono::seconds(2));
  }
};

TEST_F(GateTest, EveryMethodHasAClass) {
  const auto all = Methods({"hatchery.v1.Cache", "hatchery.v1.Factory", "cache.CacheService"});
  EXPECT_GE(all.size(), 22u);
  for (const auto* method : all) {
    EXPECT_TRUE(ClassOf(method->full_name()).has_value()) << method->full_name();
  }
  EXPECT_FALSE(ClassOf("hatchery.v1.Cache.NotYet").has_value());
}

// Also that each handler asks at the gate, and under its own name.
TEST_F(GateTest, EveryMethodIsRefusedToWhoHasLessThanItsClass) {
  const std::vector<std::pair<Access::Lists, int>> kLevels = {
      {{"", "", ""}, -1},
      {{"uid:1000", "", ""}, static_cast<int>(MethodClass::kRead)},
      {{"", "uid:1000", ""}, static_cast<int>(MethodClass::kAcquire)}};
  for (const auto& [lists, level] : kLevels) {
    ServeWith(lists);
    const auto channel = ChannelAs(Socket(), kAlice);
    for (const auto* method : Methods()) {
      const auto code = Call(channel, *method).error_code();
      if (code == grpc::StatusCode::UNIMPLEMENTED) continue;
      const bool may = static_cast<int>(*ClassOf(method->full_name())) <= level;
      EXPECT_EQ(code != grpc::StatusCode::PERMISSION_DENIED, may)
          << method->full_name() << " at level " << level;
    }
  }
}

TEST_F(GateTest, TheStandardHealthCheckIsOpenToAll) {
  ServeWith({"", "", ""});
  std::string health;
  EXPECT_TRUE(
      RawCall(ChannelAs(Socket(), kAlice), "/grpc.health.v1.Health/Check", "", &health).ok());
  EXPECT_EQ(health, "\x08\x01");
}

}  // namespace
}  // namespace hatchery::cache::rpc
