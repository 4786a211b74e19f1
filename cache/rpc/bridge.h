// Where gRPC's callback API meets the loop: a handler is a coroutine on the loop, its RPC a reactor
// that gRPC's threads drive. This file is the only one that knows both.
//
// A handler runs on the loop thread and answers once. When the client cancels or its deadline
// passes, the coroutine is cancelled (base/task.h); it still runs to its end, and what it answers
// then goes nowhere. Requests are copied by the caller before Start(), because gRPC frees them when
// the RPC is finished.
//
// No handler runs without a Caller: Start() takes what Gate::Admit() said, and answers with its
// error if there is none.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <utility>

#include "base/log.h"
#include "base/notifier.h"
#include "base/task.h"
#include "base/without_throwing.h"
#include "cache/caller.h"
#include "cache/rpc/convert.h"

namespace hatchery::cache::rpc {

// What unary and streaming calls share: the coroutine's cancellation and the object's lifetime. The
// object lives until gRPC is done with it (OnDone) and the coroutine's frames are gone: the handler
// memory of the cancellation signal is in use while they unwind. It may end on either's thread:
// what it holds is not the loop's.
template <class Reactor>
class CallBase : public Reactor {
 public:
  void OnCancel() override {
    Ref();
    asio::post(executor_, [this] {
      if (!ended_) cancel_.emit(asio::cancellation_type::terminal);
      Unref();
    });
  }
  void OnDone() override { Unref(); }

 protected:
  explicit CallBase(Executor executor) : executor_(std::move(executor)) {}

  // Runs `body` on the loop; `finish` gets its result there.
  template <class T, class Finish>
  void Run(Task<T> body, Finish finish) {
    auto on_exit = [this, finish](std::exception_ptr failure, Result<T> result) mutable {
      ended_ = true;
      if (failure) result = Internal("unexpected failure; the daemon's log has the details");
      LogBug(failure);
      finish(std::move(result));
      asio::post(executor_, [this] { Unref(); });
    };
    asio::co_spawn(executor_, WithoutThrowing(std::move(body)),
                   asio::bind_cancellation_slot(cancel_.slot(), std::move(on_exit)));
  }

  void Ref() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  Executor executor_;

 private:
  static void LogBug(std::exception_ptr failure) {
    if (!failure) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& e) {
      log::Error({}, std::string("an RPC handler ended with an exception: ") + e.what());
    } catch (...) {
      log::Error({}, "an RPC handler ended with an unknown exception");
    }
  }

  asio::cancellation_signal cancel_;
  bool ended_ = false;        // loop only
  std::atomic<int> refs_{2};  // gRPC's, until OnDone, and the coroutine's
};

// One unary RPC. Use:
//   return UnaryCall<Reply>::Start(executor, gate.Admit(…), context, reply,
//                                  [copy = *request](Caller caller) { return Handle(…); });
template <class Reply>
class UnaryCall final : public CallBase<grpc::ServerUnaryReactor> {
 public:
  // Called on the loop if the answer was made but did not reach the client. Holds what any thread
  // may let go: a VM only weakly.
  using Undelivered = std::function<void()>;

  // `make` is called on the loop with the caller and returns the handler's coroutine.
  // `undelivered`, if the call needs one, may be filled by the handler.
  template <class Make>
  static UnaryCall* Start(Executor executor, Result<Caller> caller,
                          grpc::CallbackServerContext* context, Reply* reply, Make make,
                          std::shared_ptr<Undelivered> undelivered = nullptr) {
    auto* call = new UnaryCall(std::move(executor), context, std::move(undelivered));
    auto body = [](Result<Caller> c, Make m) -> Task<Reply> {
      if (!c) co_return std::unexpected(std::move(c).error());
      co_return co_await m(*std::move(c));
    };
    call->Run(body(std::move(caller), std::move(make)), [call, reply](Result<Reply> result) {
      if (!result) return call->Finish(ToGrpcStatus(result.error()));
      *reply = *std::move(result);
      call->Finish(grpc::Status::OK);
    });
    return call;
  }

  void OnDone() override {
    if (undelivered_ && context_->IsCancelled()) {
      asio::post(executor_, [undelivered = undelivered_] {
        if (*undelivered) (*undelivered)();
      });
    }
    CallBase::OnDone();
  }

 private:
  UnaryCall(Executor executor, grpc::CallbackServerContext* context,
            std::shared_ptr<Undelivered> undelivered)
      : CallBase(std::move(executor)), context_(context), undelivered_(std::move(undelivered)) {}
  grpc::CallbackServerContext* context_;
  std::shared_ptr<Undelivered> undelivered_;
};

// One server-streaming RPC: the handler gets a sink for messages, and its result ends the stream.
template <class Message>
class StreamCall final : public CallBase<grpc::ServerWriteReactor<Message>> {
  using Base = CallBase<grpc::ServerWriteReactor<Message>>;

 public:
  // Loop thread only; valid while the handler runs.
  class Sink {
   public:
    explicit Sink(StreamCall* call) : call_(call) {}
    // Queues a message that may be dropped when the client reads too slowly: progress.
    void Offer(Message message) {
      if (call_->queue_.size() < kMaxQueued) Send(std::move(message));
    }
    // Queues a message that the client must get.
    void Send(Message message) { call_->Enqueue(std::move(message)); }
    // Returns when the client has read so far that another may be queued: who sends without end
    // waits here, or a client that reads too slowly would fill our memory.
    Task<void> Room() {
      auto* const call = call_;
      while (call->queue_.size() >= kMaxQueued) {
        CO_RETURN_IF_ERROR(co_await call->read_.Wait(Deadline::max()));
      }
      co_return Result<void>();
    }

   private:
    StreamCall* call_;
  };

  // `make` is called on the loop with the caller and the sink, and returns the handler's coroutine.
  template <class Make>
  static StreamCall* Start(Executor executor, Result<Caller> caller, Make make) {
    auto* call = new StreamCall(std::move(executor));
    auto body = [](Result<Caller> c, Make m, Sink sink) -> Task<void> {
      if (!c) co_return std::unexpected(std::move(c).error());
      co_return co_await m(*std::move(c), sink);
    };
    call->Run(body(std::move(caller), std::move(make), Sink(call)), [call](Result<void> result) {
      call->end_ = result ? grpc::Status::OK : ToGrpcStatus(result.error());
      call->ended_stream_ = true;
      call->Pump();
    });
    return call;
  }

  // The notifier is the loop's.
  void OnDone() override {
    asio::post(Base::executor_, [this] { Base::Unref(); });
  }
  void OnWriteDone(bool ok) override {
    Base::Ref();
    asio::post(Base::executor_, [this, ok] {
      writing_ = false;
      if (!ok) broken_ = true;
      if (!queue_.empty()) queue_.pop_front();
      read_.NotifyAll();
      Pump();
      Base::Unref();
    });
  }

 private:
  static constexpr std::size_t kMaxQueued = 64;
  explicit StreamCall(const Executor& executor) : Base(executor), read_(executor) {}

  void Enqueue(Message message) {
    queue_.push_back(std::move(message));
    Pump();
  }
  void Pump() {
    if (writing_ || finished_) return;
    if (broken_) queue_.clear();
    if (!queue_.empty()) {
      writing_ = true;
      this->StartWrite(&queue_.front());
    } else if (ended_stream_) {
      finished_ = true;
      this->Finish(end_);
    }
  }

  // Loop only.
  std::deque<Message> queue_;  // the front is being written while writing_
  Notifier read_;              // a message has left
  bool writing_ = false, broken_ = false, ended_stream_ = false, finished_ = false;
  grpc::Status end_;
};

}  // namespace hatchery::cache::rpc
