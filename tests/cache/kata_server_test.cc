// Kata's VM cache protocol over its socket, on fakes.
#include "cache/rpc/kata_server.h"

#include <gmock/gmock.h>
#include <google/protobuf/empty.pb.h>
#include <sys/stat.h>

#include <atomic>

#include "base/json.h"
#include "kata/cache.grpc.pb.h"
#include "tests/cache/rpc_fixture.h"

namespace hatchery::cache::rpc {
namespace {

namespace wire = ::cache;
using google::protobuf::Empty;
using testing::HasSubstr;

class KataServerTest : public RpcTest {
 protected:
  KataServerTest() { ServeKata(); }
  ~KataServerTest() override { StopKata(); }

  void ServeKata(kata::Options options = {}) {
    const auto served = TryServeKata(std::move(options));
    ASSERT_TRUE(served.has_value()) << ToString(served.error());
    stub_ = wire::CacheService::NewStub(
        grpc::CreateChannel("unix:" + KataSocket().string(), grpc::InsecureChannelCredentials()));
  }
  Result<void> TryServeKata(kata::Options options) {
    StopKata();
    options.default_guest = [this] {
      return GuestFiles{outside_.dir.path() / "vmlinuz", outside_.dir.path() / "initrd", {}};
    };
    return OnLoop([](KataServerTest& test, kata::Options o) -> Task<void> {
      test.configuration_ = std::make_unique<kata::Configuration>(
          test.cache().catalog(), test.outside_.workers, std::move(o));
      const auto access = Access::Create({"", "", ""}, ::geteuid());
      CO_RETURN_IF_ERROR(access);
      ASSIGN_OR_CO_RETURN(
          test.kata_,
          KataServer::Start(test.outside_.io.get_executor(), test.cache(), *test.configuration_,
                            {test.KataSocket(), *access, [&test] { ++test.quits_; }}));
      co_return Result<void>();
    }(*this, std::move(options)));
  }
  void StopKata() {
    if (!kata_) return;
    OnLoop([](KataServerTest& test) -> asio::awaitable<bool> {
      co_await test.kata_->Stop(After(kMoment));
      co_return true;
    }(*this));
    kata_.reset();
  }

  fs::path KataSocket() { return outside_.dir.path() / "kata" / "cache.sock"; }

  grpc::Status Take(wire::GrpcVM* vm) { return stub_->GetBaseVM(Context().get(), Empty(), vm); }
  wire::GrpcVM Taken() {
    wire::GrpcVM vm;
    const auto status = Take(&vm);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return vm;
  }
  wire::GrpcStatus Status() {
    wire::GrpcStatus status;
    const auto called = stub_->Status(Context().get(), Empty(), &status);
    EXPECT_TRUE(called.ok()) << called.error_message();
    return status;
  }
  Json Config() {
    wire::GrpcVMConfig config;
    const auto status = stub_->Config(Context().get(), Empty(), &config);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return ParseJson(config.data(), "Data").value_or(Json());
  }

  std::unique_ptr<kata::Configuration> configuration_;
  std::unique_ptr<KataServer> kata_;
  std::unique_ptr<wire::CacheService::Stub> stub_;
  std::atomic<int> quits_ = 0;
};

TEST_F(KataServerTest, ItsSocketIsItsOwnersAlone) {
  struct stat info{};
  ASSERT_EQ(::stat(KataSocket().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(KataServerTest, AStaleSocketIsReplacedAndALivingOneIsNot) {
  const auto second = KataServer::Start(outside_.io.get_executor(), cache(), *configuration_,
                                        {KataSocket(), {}, {}});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
  EXPECT_THAT(second.error().message, HasSubstr("kata.endpoint"));
  StopKata();
  EXPECT_FALSE(fs::exists(KataSocket()));
  std::ofstream(KataSocket()) << "somebody's file";
  EXPECT_EQ(TryServeKata({}).error().code, Code::kFailedPrecondition);
  fs::remove(KataSocket());
  ListenUnix(KataSocket(), 0600).value().Reset();  // whoever listened has gone
  ASSERT_TRUE(fs::is_socket(KataSocket()));
  ServeKata();
  EXPECT_TRUE(fs::is_socket(KataSocket()));
}

TEST_F(KataServerTest, HandsAWarmVmOver) {
  ASSERT_TRUE(InitFactory(2).ok());
  const auto vm = Taken();
  EXPECT_EQ(vm.cpu(), 1u);
  EXPECT_EQ(vm.memory(), 128u);
  EXPECT_EQ(vm.cpudelta(), 0u);
  EXPECT_EQ(vm.proxypid(), 0);
  EXPECT_THAT(vm.proxyurl(), testing::MatchesRegex("unix:///.*/agent.sock"));
  const auto hypervisor = ParseJson(vm.hypervisor(), "hypervisor");
  ASSERT_TRUE(hypervisor.has_value());
  EXPECT_EQ((*hypervisor)["ID"], vm.id());

  api::GetVmRequest request;
  request.set_vm_id(vm.id());
  api::GetVmResponse shown;
  ASSERT_TRUE(cache_stub_->GetVm(Context().get(), request, &shown).ok());
  EXPECT_TRUE(shown.vm().handed_over());
  EXPECT_EQ(shown.vm().state(), api::VM_STATE_ASSIGNED);
  EXPECT_EQ(shown.vm().lease_term(), api::LEASE_TERM_CALLER);
  EXPECT_EQ(shown.vm().holder_pid(), ::getpid());
  EXPECT_TRUE(shown.has_stats());
}

TEST_F(KataServerTest, ACallerThatIsGoneLeavesNoVmBehind) {
  ASSERT_TRUE(InitFactory(1).ok());
  Arrange([this] { outside_.host.SetDelay(Verb::kHandOver, std::chrono::milliseconds(300)); });
  for (const auto patience : {1, 50, 100}) {
    wire::GrpcVM vm;
    const auto status =
        stub_->GetBaseVM(Context(std::chrono::milliseconds(patience)).get(), Empty(), &vm);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  WaitForVms(1);  // its pool's
}

TEST_F(KataServerTest, SaysClearlyWhatIsMissing) {
  wire::GrpcVM vm;
  auto status = Take(&vm);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("default"));
  ASSERT_TRUE(InitFactory(0).ok());
  status = Take(&vm);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("pool set"));
}

TEST_F(KataServerTest, StatusListsWhatIsPooled) {
  EXPECT_EQ(Status().vmstatus_size(), 0);
  ASSERT_TRUE(InitFactory(2).ok());
  const auto status = Status();
  EXPECT_EQ(status.pid(), ::getpid());
  ASSERT_EQ(status.vmstatus_size(), 2);
  EXPECT_EQ(status.vmstatus(0).cpu(), 1u);
  EXPECT_EQ(status.vmstatus(0).memory(), 128u);
}

TEST_F(KataServerTest, ConfigIsMadeFromTheTemplate) {
  wire::GrpcVMConfig config;
  EXPECT_EQ(stub_->Config(Context().get(), Empty(), &config).error_code(),
            grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(InitFactory(0).ok());
  const Json vm = Config()["HypervisorConfig"];
  EXPECT_EQ(vm["MemorySize"], 128);
  EXPECT_EQ(vm["DefaultMaxVCPUs"], 4);
  EXPECT_EQ(vm["KernelPath"], (outside_.dir.path() / "vmlinuz").string());
}

TEST_F(KataServerTest, ConfigIsTheOperatorsWordForWord) {
  ServeKata({.vm_config = R"({"HypervisorType":  "qemu"})", .agent_config = R"({"x": 1})"});
  wire::GrpcVMConfig config;
  ASSERT_TRUE(stub_->Config(Context().get(), Empty(), &config).ok()) << "needs no template";
  EXPECT_EQ(config.data(), R"({"HypervisorType":  "qemu"})");
  EXPECT_EQ(config.agentconfig(), R"({"x": 1})");
}

TEST_F(KataServerTest, AnotherShapeIsTakenFromItsOwnPool) {
  ASSERT_TRUE(InitFactory(1).ok());
  ServeKata({.vcpus = 2, .memory = Bytes::MiB(256)});
  wire::GrpcVM vm;
  EXPECT_EQ(Take(&vm).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  ASSERT_TRUE(
      OnLoop(cache().pools().Set("default", 2, Bytes::MiB(256), 1, After(kLong))).has_value());
  ASSERT_TRUE(Take(&vm).ok());
  EXPECT_EQ(vm.cpu(), 2u);
  EXPECT_EQ(vm.memory(), 256u);
  const auto hypervisor = ParseJson(vm.hypervisor(), "hypervisor").value();
  EXPECT_EQ(hypervisor["State"]["HotpluggedVCPUs"].size(), 1u);
  EXPECT_EQ(Config()["HypervisorConfig"]["NumVCPUs"], 2);
}

TEST_F(KataServerTest, QuitEndsTheListenerAndIsTold) {
  Empty reply;
  ASSERT_TRUE(stub_->Quit(Context().get(), Empty(), &reply).ok());
  EXPECT_EQ(quits_, 1);
  EXPECT_FALSE(fs::exists(KataSocket()));
  // Who is connected already is refused, too; the service's own protocol goes on.
  wire::GrpcVM vm;
  EXPECT_EQ(Take(&vm).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(InitFactory(0).ok());
}

}  // namespace
}  // namespace hatchery::cache::rpc
