// A server on a whole cache on fakes, with a client that is connected to its unix socket.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <future>
#include <optional>
#include <thread>

#include "cache/rpc/server.h"
#include "hatchery/v1/cache.grpc.pb.h"
#include "hatchery/v1/factory.grpc.pb.h"
#include "tests/cache/fixture.h"

namespace hatchery::cache::rpc {

namespace api = hatchery::v1;

// The loop runs on a thread of its own, as the daemon's does on its main thread; the test is the
// client.
class RpcTest : public CacheFixture {
 protected:
  RpcTest() {
    work_.emplace(asio::make_work_guard(outside_.io));
    outside_.io.restart();
    loop_ = std::thread([this] { outside_.io.run(); });
    Serve({Socket(), 0660});
    auto channel =
        grpc::CreateChannel("unix:" + Socket().string(), grpc::InsecureChannelCredentials());
    cache_stub_ = api::Cache::NewStub(channel);
    factory_stub_ = api::Factory::NewStub(channel);
  }
  ~RpcTest() override {
    OnLoop([this]() -> asio::awaitable<bool> {
      server_->StopAccepting();
      co_await cache().Drain(After(kLong));
      co_await server_->Stop(After(kMoment));
      co_return true;
    }());
    work_.reset();
    outside_.io.stop();
    loop_.join();
    server_.reset();
  }

  // Ends the server, if there is one, and starts another.
  Result<void> TryServe(Server::Options options) {
    return OnLoop([](RpcTest& test, Server::Options o) -> Task<void> {
      if (test.server_) co_await test.server_->Stop(After(kMoment));
      test.server_.reset();
      DaemonInfo info{"test", "/state", "fake", std::chrono::steady_clock::now()};
      ASSIGN_OR_CO_RETURN(test.server_, Server::Start(test.outside_.io.get_executor(), test.cache(),
                                                      info, std::move(o)));
      co_return Result<void>();
    }(*this, std::move(options)));
  }
  void Serve(Server::Options options) {
    const auto served = TryServe(std::move(options));
    ASSERT_TRUE(served.has_value()) << ToString(served.error());
  }

  fs::path Socket() { return outside_.dir.path() / "hatchery.sock"; }

  // Runs a coroutine on the loop's thread.
  template <class T>
  T OnLoop(asio::awaitable<T> body) {
    std::promise<T> promise;
    asio::co_spawn(outside_.io, std::move(body),
                   [&](std::exception_ptr, T value) { promise.set_value(std::move(value)); });
    return promise.get_future().get();
  }

  // The fakes belong to the loop's thread.
  template <class Act>
  void Arrange(Act act) {
    OnLoop([](Act a) -> asio::awaitable<bool> {
      a();
      co_return true;
    }(std::move(act)));
  }

  std::unique_ptr<grpc::ClientContext> Context(std::chrono::milliseconds timeout = kLong) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + timeout);
    return context;
  }

  grpc::Status InitFactory(std::uint32_t pool) {
    api::InitRequest request;
    request.set_pool_target(pool);
    auto context = Context();
    auto reader = factory_stub_->Init(context.get(), request);
    for (api::InitResponse response; reader->Read(&response);) last_init_ = response;
    return reader->Finish();
  }
  grpc::Status Acquire(const api::AcquireRequest& request, api::AcquireResponse* reply,
                       std::chrono::milliseconds timeout = kLong) {
    return cache_stub_->Acquire(Context(timeout).get(), request, reply);
  }
  // Waits until the daemon's VMs are `count`, by asking it.
  void WaitForVms(int count) {
    for (;;) {
      api::ListVmsResponse all;
      ASSERT_TRUE(cache_stub_->ListVms(Context().get(), {}, &all).ok());
      if (all.vms_size() == count) return;
      std::this_thread::yield();
    }
  }

  std::unique_ptr<Server> server_;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work_;
  std::thread loop_;
  std::unique_ptr<api::Cache::Stub> cache_stub_;
  std::unique_ptr<api::Factory::Stub> factory_stub_;
  api::InitResponse last_init_;
};

// Calls a method by name with raw bytes: no generated code is needed. `reply` gets the first
// message.
inline grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel,
                            const std::string& method, const std::string& request,
                            std::string* reply = nullptr, std::chrono::seconds timeout = kLong) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  grpc::CompletionQueue queue;
  auto call = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = false;
  auto next = [&] { return queue.Next(&tag, &ok) && ok; };
  call->StartCall(nullptr);
  next();
  grpc::Slice slice(request);
  grpc::ByteBuffer buffer(&slice, 1);
  call->WriteLast(buffer, grpc::WriteOptions(), nullptr);
  next();
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  const bool answered = next();
  // Reflection does not end by itself; who refuses has ended it.
  if (answered) context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (!answered) return status;
  grpc::Slice bytes;
  EXPECT_TRUE(answer.DumpToSingleSlice(&bytes).ok());
  if (reply != nullptr) reply->assign(bytes.begin(), bytes.end());
  return grpc::Status::OK;
}

}  // namespace hatchery::cache::rpc
