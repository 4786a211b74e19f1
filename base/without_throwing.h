// A Task answers a cancellation with an error; Asio would have the coroutine throw at its next step
// instead. What is handed to co_spawn with a cancellation slot goes through here.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/this_coro.hpp>
#include <utility>

namespace hatchery {

template <class T>
boost::asio::awaitable<T> WithoutThrowing(boost::asio::awaitable<T> body) {
  co_await boost::asio::this_coro::throw_if_cancelled(false);
  co_return co_await std::move(body);
}

}  // namespace hatchery
