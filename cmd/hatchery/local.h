// Work that is done here and not by the daemon: `image build` and doctor's boots.
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <exception>
#include <optional>
#include <utility>

#include "base/task.h"
#include "base/without_throwing.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::cli {

// Runs `body` on `io` with the calling thread as the loop, until it has a result. An interrupt
// cancels it; it still ends by itself, with its clean-up done.
template <class T>
Result<T> RunHere(asio::io_context& io, Interrupt& interrupt, Task<T> body) {
  std::optional<Result<T>> result;
  std::exception_ptr failure;
  asio::cancellation_signal cancel;
  asio::co_spawn(
      io, WithoutThrowing(std::move(body)),
      asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr f, Result<T> r) {
        failure = f;
        result.emplace(std::move(r));
      }));
  {
    // Raised on the signals' thread; the coroutine is the loop's.
    const Interrupt::Scope scope(interrupt, [&] {
      asio::post(io, [&] {
        if (!result) cancel.emit(asio::cancellation_type::terminal);
      });
    });
    io.restart();
    while (!result && io.run_one() > 0) {
    }
  }
  io.poll();  // an interrupt that came too late refers to this frame
  if (failure) std::rethrow_exception(failure);
  if (!result) return Internal("the work ended without a result");
  return *std::move(result);
}

}  // namespace hatchery::cli
