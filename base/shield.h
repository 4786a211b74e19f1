// Work that must come to its end although its coroutine was cancelled: ending a VMM, removing what
// a failed operation made.
#pragma once

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "base/task.h"

namespace hatchery {

// Runs `body` to its end on the caller's executor; a cancellation of the caller, before or
// meanwhile, does not reach it. It must bound itself by a deadline.
template <class T>
asio::awaitable<T> Shielded(asio::awaitable<T> body) {
  co_return co_await asio::co_spawn(
      co_await asio::this_coro::executor, std::move(body),
      asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable));
}

}  // namespace hatchery
