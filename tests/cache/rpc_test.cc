// The gRPC services over a real unix socket, on fakes: what a client sees.
#include <sys/stat.h>

#include "cache/rpc/convert.h"
#include "hatchery/v1/errors.pb.h"
#include "tests/cache/rpc_fixture.h"

namespace hatchery::cache::rpc {
namespace {

using testing::HasSubstr;

TEST_F(RpcTest, AWholeRound) {
  ASSERT_TRUE(InitFactory(2).ok());
  EXPECT_EQ(last_init_.result().pool().warm(), 2u);
  api::AcquireRequest acquire;
  acquire.set_vcpus(2);
  acquire.set_sandbox_id("s1");
  api::AcquireResponse acquired;
  const auto status = Acquire(acquire, &acquired);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(acquired.source(), api::AcquireResponse::POOL);
  EXPECT_EQ(acquired.vm().vcpus(), 2u);
  EXPECT_THAT(acquired.vm().agent_endpoint(), HasSubstr("unix:///"));
  EXPECT_EQ(acquired.vm().vsock_cid(), 0u) << "the host has none";

  api::ExecRequest exec;
  exec.set_vm_id(acquired.vm().vm_id());
  exec.add_argv("echo");
  exec.add_argv("hi");
  api::ExecResponse ran;
  ASSERT_TRUE(cache_stub_->Exec(Context().get(), exec, &ran).ok());
  EXPECT_EQ(ran.out(), "hi\n");
  EXPECT_EQ(ran.exit_code(), 0);

  api::GetVmRequest get;
  get.set_vm_id(acquired.vm().vm_id());
  api::GetVmResponse got;
  ASSERT_TRUE(cache_stub_->GetVm(Context().get(), get, &got).ok());
  EXPECT_EQ(got.vm().sandbox_id(), "s1");

  api::ReleaseRequest release;
  release.set_vm_id(acquired.vm().vm_id());
  api::ReleaseResponse released;
  EXPECT_TRUE(cache_stub_->Release(Context().get(), release, &released).ok());
  EXPECT_EQ(cache_stub_->Release(Context().get(), release, &released).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(RpcTest, AVmSaysWhereItsAgentAnswersOverVsock) {
  Arrange([this] { outside_.host.next_cid = 4711; });
  ASSERT_TRUE(InitFactory(1).ok());
  api::AcquireResponse acquired;
  ASSERT_TRUE(Acquire({}, &acquired).ok());
  EXPECT_GE(acquired.vm().vsock_cid(), 4711u);
  EXPECT_THAT(acquired.vm().agent_endpoint(), HasSubstr("unix:///"));
}

TEST_F(RpcTest, AHandleSaysWhatAForeignAgentCouldNotRenew) {
  Arrange([this] { outside_.agents.SetForeign(true); });
  ASSERT_TRUE(InitFactory(1).ok());
  api::AcquireRequest acquire;
  acquire.set_hostname("mine");
  api::AcquireResponse acquired;
  const auto status = Acquire(acquire, &acquired);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(acquired.vm().not_renewed(),
              testing::ElementsAre("hostname", "machine_id", "boot_id"));
  EXPECT_EQ(acquired.vm().hostname(), "");
  api::ExecRequest exec;
  exec.set_vm_id(acquired.vm().vm_id());
  exec.add_argv("true");
  api::ExecResponse ran;
  const auto refused = cache_stub_->Exec(Context().get(), exec, &ran);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("it is not hatchery-agent"));
}

TEST_F(RpcTest, AHandleSaysWhatIsUsableAndWhatIsPending) {
  ASSERT_TRUE(InitFactory(1).ok());
  Arrange([this] {
    outside_.agents.FailNext(agent::Method::kAwaitOnline, {Code::kInternal, "cpu1 does not start"});
  });
  api::AcquireRequest acquire;
  acquire.set_vcpus(3);
  acquire.set_memory_bytes(Bytes::MiB(384).count());
  acquire.set_resize_in_background(true);
  api::AcquireResponse acquired;
  ASSERT_TRUE(Acquire(acquire, &acquired).ok());
  EXPECT_EQ(acquired.vm().vcpus(), 1u);
  EXPECT_EQ(acquired.vm().pending_vcpus(), 2u);
  // What the fake guest booted with, which its template does not say.
  EXPECT_EQ(acquired.vm().memory_bytes() + acquired.vm().pending_memory_bytes(),
            Bytes::MiB(384).count());
  EXPECT_GT(acquired.vm().pending_memory_bytes(), 0u);

  api::GetVmRequest get;
  get.set_vm_id(acquired.vm().vm_id());
  api::GetVmResponse got;
  std::string problem;
  do {
    ASSERT_TRUE(cache_stub_->GetVm(Context().get(), get, &got).ok());
    if (!got.vm().pending_problem().empty()) problem = got.vm().pending_problem();
  } while (got.vm().pending_vcpus() > 0);
  EXPECT_THAT(problem, HasSubstr("cpu1 does not start"));
  EXPECT_EQ(got.vm().pending_problem(), "");
  EXPECT_EQ(got.vm().vcpus(), 3u);
  EXPECT_EQ(got.vm().memory_bytes(), Bytes::MiB(384).count());
}

// An acquire whose client takes no more of the reply than its first bytes, so that gRPC is not done
// with the call for as long as this lives.
class UnreadAcquire {
 public:
  UnreadAcquire(const fs::path& socket, const api::AcquireRequest& request) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 5);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);  // else it soon takes more
    grpc::GenericStub stub(grpc::CreateCustomChannel(
        "unix:" + socket.string(), grpc::InsecureChannelCredentials(), arguments));
    call_ = stub.PrepareCall(&context_, "/hatchery.v1.Cache/Acquire", &queue_);
    call_->StartCall(nullptr);
    EXPECT_TRUE(Next(kLong));
    const std::string bytes = request.SerializeAsString();
    const grpc::Slice slice(bytes);
    call_->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    EXPECT_TRUE(Next(kLong));
    call_->Finish(&status_, nullptr);
  }
  ~UnreadAcquire() {
    context_.TryCancel();
    EXPECT_TRUE(Next(kLong)) << "not even cancelled";
    queue_.Shutdown();
    EXPECT_FALSE(Next(kLong));
  }

 private:
  bool Next(std::chrono::milliseconds patience) {
    void* tag = nullptr;
    bool ok = false;
    return queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + patience) ==
           grpc::CompletionQueue::GOT_EVENT;
  }
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::Status status_;
};

// VMs end on the loop, and a call ends on gRPC's thread.
TEST_F(RpcTest, ACallDoesNotHoldOnToItsVm) {
  ASSERT_TRUE(InitFactory(0).ok());
  api::AcquireRequest acquire;
  acquire.set_sandbox_id("s1");
  const UnreadAcquire unread(Socket(), acquire);
  api::ReleaseRequest release;
  while (release.vm_id().empty()) {
    api::ListVmsResponse all;
    ASSERT_TRUE(cache_stub_->ListVms(Context().get(), {}, &all).ok());
    for (const auto& vm : all.vms()) {
      if (vm.state() == api::VM_STATE_ASSIGNED) release.set_vm_id(vm.vm_id());
    }
  }
  api::ReleaseResponse released;
  ASSERT_TRUE(cache_stub_->Release(Context().get(), release, &released).ok());
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (outside_.host.objects > 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "its VM is still held";
    std::this_thread::yield();
  }
}

TEST_F(RpcTest, ABadFieldIsNamedInTheDetails) {
  ASSERT_TRUE(InitFactory(1).ok());
  api::AcquireRequest request;
  request.set_vcpus(10'000);
  api::AcquireResponse reply;
  const auto status = Acquire(request, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  api::ErrorStatus details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.BadRequest");
  api::BadRequestDetail bad;
  ASSERT_TRUE(bad.ParseFromString(details.details(0).value()));
  EXPECT_EQ(bad.field_violations(0).field(), "vcpus");
}

TEST_F(RpcTest, WhenToTryAgainIsInTheDetails) {
  ASSERT_TRUE(InitFactory(0).ok());
  Arrange([this] {
    const Error full{Code::kResourceExhausted, "full", {}, std::chrono::milliseconds(1500)};
    outside_.host.Inject(Verb::kLoad, {hypervisor::fake::Fault::Kind::kFail, full});
  });
  api::AcquireResponse reply;
  const auto status = Acquire({}, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  api::ErrorStatus details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  api::RetryInfoDetail retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500'000'000);
}

TEST(Convert, AnErrorMayNameAFieldAndSayWhenToTryAgain) {
  const auto status =
      ToGrpcStatus({Code::kResourceExhausted, "too many", "vcpus", std::chrono::milliseconds(10)});
  api::ErrorStatus details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  EXPECT_TRUE(ToGrpcStatus({Code::kInternal, "x"}).error_details().empty());
}

TEST_F(RpcTest, StatusSaysWhoHoldsWhat) {
  ASSERT_TRUE(InitFactory(1).ok());
  api::AcquireRequest acquire;
  acquire.set_vcpus(2);
  api::AcquireResponse reply;
  ASSERT_TRUE(Acquire(acquire, &reply).ok());
  api::StatusResponse status;
  ASSERT_TRUE(factory_stub_->Status(Context().get(), {}, &status).ok());
  ASSERT_EQ(status.tenants_size(), 1);
  EXPECT_EQ(status.tenants(0).leases(), 1u);
  EXPECT_EQ(status.tenants(0).vcpus(), 2u);
  EXPECT_EQ(status.tenants(0).memory_bytes(), reply.vm().memory_bytes());
  EXPECT_EQ(status.waiting_acquires(), 0u);
  EXPECT_FALSE(status.has_memory());  // its cache does not account memory
}

TEST_F(RpcTest, ADeadlineDuringAnAcquireLeavesNoVm) {
  ASSERT_TRUE(InitFactory(0).ok());
  Arrange([this] { outside_.agents.HangNext(agent::Method::kPersonalize); });
  api::AcquireResponse reply;
  EXPECT_EQ(Acquire({}, &reply, std::chrono::milliseconds(100)).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  WaitForVms(0);
}

TEST_F(RpcTest, AClientThatCancelsLeavesNoVm) {
  ASSERT_TRUE(InitFactory(0).ok());
  Arrange(
      [this] { outside_.agents.SetDelay(agent::Method::kPersonalize, std::chrono::seconds(20)); });
  auto context = Context();
  std::thread client([&] {
    api::AcquireResponse reply;
    EXPECT_EQ(cache_stub_->Acquire(context.get(), {}, &reply).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  WaitForVms(1);
  context->TryCancel();
  client.join();
  WaitForVms(0);
}

TEST_F(RpcTest, ManyClientsNeverGetTheSameVm) {
  ASSERT_TRUE(InitFactory(8).ok());
  std::mutex mutex;
  std::set<std::string> ids;
  std::vector<std::thread> clients;
  for (int i = 0; i < 20; ++i) {
    clients.emplace_back([&] {
      api::AcquireResponse reply;
      const auto status = Acquire({}, &reply);
      EXPECT_TRUE(status.ok()) << status.error_message();
      const std::lock_guard lock(mutex);
      ids.insert(reply.vm().vm_id());
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(ids.size(), 20u);
}

TEST_F(RpcTest, TheSocketHasItsModeAndASecondServerIsRefused) {
  struct stat info{};
  ASSERT_EQ(::stat(Socket().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
  auto start = [this]() -> Task<std::unique_ptr<Server>> {
    co_return Server::Start(outside_.io.get_executor(), cache(), {}, {.socket = Socket()});
  };
  auto second = OnLoop(start());
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kFailedPrecondition);
}

// A daemon that stops must not take away the socket of the one that came after it.
TEST_F(RpcTest, AStoppingServerLeavesTheSocketOfItsSuccessor) {
  auto succeed = [this]() -> Task<std::unique_ptr<Server>> {
    server_->StopAccepting();
    auto next = Server::Start(outside_.io.get_executor(), cache(), {}, {.socket = Socket()});
    co_await server_->Stop(After(kMoment));
    co_return next;
  };
  auto next = OnLoop(succeed());
  ASSERT_TRUE(next.has_value()) << ToString(next.error());
  server_ = *std::move(next);
  EXPECT_TRUE(fs::exists(Socket()));
}

TEST_F(RpcTest, AnEnormousRequestIsRefusedAndTheServiceGoesOn) {
  ASSERT_TRUE(InitFactory(1).ok());
  api::AcquireResponse acquired;
  ASSERT_TRUE(Acquire({}, &acquired).ok());
  api::ExecRequest exec;
  exec.set_vm_id(acquired.vm().vm_id());
  exec.add_argv(std::string(8 << 20, 'x'));
  api::ExecResponse ran;
  EXPECT_EQ(cache_stub_->Exec(Context().get(), exec, &ran).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  exec.clear_argv();
  EXPECT_EQ(cache_stub_->Exec(Context().get(), exec, &ran).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  exec.add_argv("true");
  EXPECT_TRUE(cache_stub_->Exec(Context().get(), exec, &ran).ok());
}

TEST_F(RpcTest, ABrokenStreamDoesNotStopARefill) {
  ASSERT_TRUE(InitFactory(0).ok());
  Arrange([this] { outside_.host.SetDelay(Verb::kStart, std::chrono::milliseconds(5)); });
  api::SetPoolRequest request;
  request.set_target(5);
  request.set_wait(true);
  auto context = Context();
  auto reader = factory_stub_->SetPool(context.get(), request);
  api::SetPoolResponse first;
  ASSERT_TRUE(reader->Read(&first));
  context->TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  WaitForVms(5);
}

TEST_F(RpcTest, StatusTellsWhatThereIs) {
  ASSERT_TRUE(InitFactory(2).ok());
  api::StatusResponse status;
  ASSERT_TRUE(factory_stub_->Status(Context().get(), {}, &status).ok());
  EXPECT_EQ(status.driver(), "fake");
  EXPECT_EQ(status.templates_size(), 1);
  EXPECT_EQ(status.templates(0).clones(), 2u);
  EXPECT_EQ(status.pools(0).warm(), 2u);
}

TEST_F(RpcTest, AnswersTheStandardHealthCheckAndReflection) {
  auto channel =
      grpc::CreateChannel("unix:" + Socket().string(), grpc::InsecureChannelCredentials());
  // HealthCheckResponse{status: SERVING}.
  std::string health, services;
  EXPECT_TRUE(RawCall(channel, "/grpc.health.v1.Health/Check", "", &health).ok());
  EXPECT_EQ(health, "\x08\x01");
  // ServerReflectionRequest{list_services: "*"}.
  const std::string reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  EXPECT_TRUE(RawCall(channel, reflection, "\x3a\x01*", &services).ok());
  EXPECT_THAT(services, HasSubstr("hatchery.v1.Cache"));
  EXPECT_THAT(services, HasSubstr("hatchery.v1.Factory"));
}

}  // namespace
}  // namespace hatchery::cache::rpc
