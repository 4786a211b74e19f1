// Watch over a real unix socket: what a client that misses nothing relies on.
#include "cache/rpc/watch.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <future>
#include <thread>

#include "cache/rpc/server.h"
#include "hatchery/v1/cache.grpc.pb.h"
#include "tests/cache/fixture.h"

namespace hatchery::cache::rpc {
namespace {

namespace api = hatchery::v1;
using testing::ElementsAre;
using testing::HasSubstr;

class WatchTest : public CacheFixture {
 protected:
  WatchTest() : CacheFixture(/*keep_warm=*/true) { Serve(); }
  ~WatchTest() override {
    StopServing();
    EndLoop();
  }

  void Serve() {
    DaemonInfo info{"test", "/state", "fake", std::chrono::steady_clock::now()};
    const auto socket = outside_.dir.path() / "hatchery.sock";
    server_ = Server::Start(outside_.io.get_executor(), cache(), info, {socket, 0660}).value();
    work_.emplace(asio::make_work_guard(outside_.io));
    outside_.io.restart();
    loop_ = std::thread([this] { outside_.io.run(); });
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    // A client that does not read takes 64 KiB, not whatever the connection could carry.
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    stub_ = api::Cache::NewStub(grpc::CreateCustomChannel(
        "unix:" + socket.string(), grpc::InsecureChannelCredentials(), arguments));
  }
  void StopServing() {
    auto stop = [this]() -> Task<bool> {
      server_->StopAccepting();
      co_await cache().Drain(After(kLong));
      co_await server_->Stop(After(kLong));
      co_return true;
    };
    EXPECT_TRUE(OnLoop(stop()).has_value());
  }
  void EndLoop() {
    work_.reset();
    outside_.io.stop();
    loop_.join();
    outside_.io.restart();
    server_.reset();
  }
  // The daemon stops and another one starts; VMs live on.
  void Restart() {
    StopServing();
    EndLoop();
    Finish();
    Begin();
    Serve();
  }

  template <class T>
  T OnLoop(asio::awaitable<T> body) {
    std::promise<T> promise;
    asio::co_spawn(outside_.io, std::move(body),
                   [&](std::exception_ptr, T value) { promise.set_value(std::move(value)); });
    return promise.get_future().get();
  }
  template <class Act>
  void Arrange(Act act) {
    (void)OnLoop([](Act a) -> asio::awaitable<bool> {
      a();
      co_return true;
    }(std::move(act)));
  }
  void MakeTemplate(std::uint32_t pool) {
    auto init = [this, pool]() -> Task<bool> {
      Cache::InitParams params;
      params.pool_target = pool;
      CO_RETURN_IF_ERROR(co_await cache().Init(params, [](StepProgress) {}, After(kLong)));
      co_return true;
    };
    ASSERT_TRUE(OnLoop(init()).has_value());
  }
  api::Vm Acquire(const std::string& sandbox = "") {
    api::AcquireRequest request;
    request.set_sandbox_id(sandbox);
    api::AcquireResponse reply;
    const auto status = stub_->Acquire(Context().get(), request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.vm();
  }
  void Release(const std::string& id) {
    api::ReleaseRequest request;
    request.set_vm_id(id);
    api::ReleaseResponse reply;
    const auto status = stub_->Release(Context().get(), request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  std::uint64_t Listed() {
    api::ListVmsResponse all;
    EXPECT_TRUE(stub_->ListVms(Context().get(), {}, &all).ok());
    return all.revision();
  }
  std::unique_ptr<grpc::ClientContext> Context() {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + 4 * kLong);
    context->set_wait_for_ready(true);
    return context;
  }

  struct Stream {
    std::unique_ptr<grpc::ClientContext> context;
    std::unique_ptr<grpc::ClientReader<api::WatchResponse>> reader;
    ~Stream() { context->TryCancel(); }
    api::WatchResponse Next() {
      api::WatchResponse event;
      EXPECT_TRUE(reader->Read(&event)) << reader->Finish().error_message();
      return event;
    }
    grpc::Status End() {
      api::WatchResponse event;
      while (reader->Read(&event)) {
      }
      return reader->Finish();
    }
  };
  Stream Watch(std::uint64_t after, const std::string& vm_id = "") {
    api::WatchRequest request;
    request.set_after_revision(after);
    request.set_vm_id(vm_id);
    auto context = Context();
    auto reader = stub_->Watch(context.get(), request);
    return Stream{std::move(context), std::move(reader)};
  }

  std::unique_ptr<Server> server_;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::thread loop_;
  std::unique_ptr<api::Cache::Stub> stub_;
};

TEST_F(WatchTest, TellsWhatWasAndThenWhatComesWithoutGapOrRepeat) {
  MakeTemplate(0);
  const auto begin = Listed();
  Release(Acquire().vm_id());
  auto stream = Watch(begin);
  for (std::uint64_t i = 1; i <= 7; ++i) EXPECT_EQ(stream.Next().revision(), begin + i);
  const auto vm = Acquire("s1");
  std::vector<api::VmState> states;
  for (std::uint64_t i = 8; i <= 12; ++i) {
    const auto event = stream.Next();
    EXPECT_EQ(event.revision(), begin + i);
    EXPECT_EQ(event.vm_id(), vm.vm_id());
    states.push_back(event.state());
    if (event.state() != api::VM_STATE_ASSIGNED) continue;
    EXPECT_EQ(event.sandbox_id(), "s1");
    EXPECT_EQ(event.lease_id(), vm.lease_id());
    EXPECT_EQ(event.template_name(), "default");
    EXPECT_TRUE(event.has_time());
  }
  EXPECT_THAT(states,
              ElementsAre(api::VM_STATE_SPAWNING, api::VM_STATE_LOADED, api::VM_STATE_WARMING,
                          api::VM_STATE_WARM, api::VM_STATE_ASSIGNED));
  EXPECT_EQ(Listed(), begin + 12);
}

TEST_F(WatchTest, GoesOnAfterARestart) {
  MakeTemplate(0);
  const auto vm = Acquire();
  auto stream = Watch(Listed());
  const auto at = Listed();
  Restart();
  const auto ended = stream.End();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(ended.error_message(), HasSubstr("stopping"));
  Release(vm.vm_id());
  auto again = Watch(at);
  const auto released = again.Next();
  EXPECT_EQ(released.revision(), at + 1);
  EXPECT_EQ(released.state(), api::VM_STATE_RELEASED);
  EXPECT_EQ(released.reason(), "released");
  EXPECT_EQ(again.Next().state(), api::VM_STATE_UNSPECIFIED);
}

TEST_F(WatchTest, ADeadLeasedVmIsToldOfWithTheTailOfItsConsole) {
  MakeTemplate(1);
  const auto vm = Acquire("s1");
  auto stream = Watch(Listed(), vm.vm_id());
  Arrange([&] {
    ASSERT_TRUE(outside_.host.Print(VmId(vm.vm_id()), "last words"));
    ASSERT_TRUE(outside_.host.Kill(VmId(vm.vm_id())));
  });
  const auto failed = stream.Next();
  EXPECT_EQ(failed.state(), api::VM_STATE_FAILED);
  EXPECT_EQ(failed.vm_id(), vm.vm_id());
  EXPECT_EQ(failed.lease_id(), vm.lease_id());
  EXPECT_EQ(failed.sandbox_id(), "s1");
  EXPECT_EQ(failed.console_tail(), "last words");
  EXPECT_THAT(failed.reason(), HasSubstr("killed by the test"));
  EXPECT_EQ(stream.Next().state(), api::VM_STATE_UNSPECIFIED);
}

TEST_F(WatchTest, RefusesRevisionsThatItDoesNotKnow) {
  MakeTemplate(0);
  EXPECT_EQ(Watch(Listed() + 1).End().error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(Watch(0, "vm-none").End().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Watch(0, "../x").End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

class ShortLogTest : public WatchTest {
 protected:
  ShortLogTest() {
    settings_.health.events = 100;
    Restart();
  }
};

// A client that reads nothing: the daemon neither waits for it nor keeps anything for it.
TEST_F(ShortLogTest, ASlowReaderIsLeftBehindAndTold) {
  MakeTemplate(0);
  const auto begin = Listed();
  auto slow = Watch(begin);
  Release(Acquire().vm_id());
  EXPECT_EQ(slow.Next().revision(), begin + 1);
  // Until what gRPC itself takes for it is full and the log has gone past it.
  std::uint64_t told = 0;
  constexpr int kVms = 400;
  for (int i = 0; i < kVms; ++i) Release(Acquire(std::string(250, 'x')).vm_id());
  api::WatchResponse event;
  while (slow.reader->Read(&event)) {
    if (told != 0) EXPECT_EQ(event.revision(), told + 1);
    told = event.revision();
  }
  EXPECT_LT(told, begin + kVms * 7) << "it was not slow";
  EXPECT_EQ(slow.reader->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(Watch(begin).End().error_code(), grpc::StatusCode::OUT_OF_RANGE);
}

// The filter by tenant, which the services' callers bring along.
TEST_F(WatchTest, ACallerSeesItsOwnTenantsVmsOnly) {
  MakeTemplate(0);
  const auto vm = Acquire();
  const auto at = Listed();
  Release(vm.vm_id());
  api::WatchRequest request;
  request.set_vm_id(vm.vm_id());
  request.set_after_revision(at);
  Caller stranger{.tenant = "uid:7", .administers = false};
  auto watch = [&](Caller caller) -> Task<void> {
    co_return co_await rpc::Watch(cache(), caller, request, [](api::WatchResponse) -> Task<void> {
      co_return Cancelled("the first is enough");
    });
  };
  EXPECT_EQ(OnLoop(watch(stranger)).error().code, Code::kNotFound);
  EXPECT_EQ(OnLoop(watch(Caller())).error().code, Code::kCancelled);
}

}  // namespace
}  // namespace hatchery::cache::rpc
