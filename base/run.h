// Running a coroutine from ordinary code.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <exception>
#include <optional>

#include "base/task.h"

namespace hatchery {

// Runs `body` on `io` with the calling thread as the loop, until it has a result. For tests and
// for programs' main functions. Other work of `io` runs meanwhile and is left where it is when
// `body` ends. An exception from `body` is rethrown.
template <class T>
T RunUntilDone(asio::io_context& io, asio::awaitable<T> body) {
  std::optional<T> result;
  std::exception_ptr failure;
  asio::co_spawn(io, std::move(body), [&](std::exception_ptr f, T value) {
    failure = f;
    result.emplace(std::move(value));
  });
  io.restart();
  while (!result && io.run_one() > 0) {
  }
  if (failure) std::rethrow_exception(failure);
  return *std::move(result);
}

}  // namespace hatchery
