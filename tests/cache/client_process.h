// A process that holds leases.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>

#include "base/fd.h"
#include "base/process.h"
#include "cache/caller.h"
#include "tests/cache/fixture.h"

namespace hatchery::cache {

// A process that ends when told.
class ClientProcess {
 public:
  explicit ClientProcess(Executor executor) : spawner_(executor) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const UniqueFd input(ends[0]);
    input_.Reset(ends[1]);
    process_ = *spawner_.Spawn({.argv = {"cat"}, .env = {}, .stdin_fd = input.get()});
  }
  Caller caller() const { return {.process = process_->identity()}; }
  Task<ExitStatus> End() {
    input_.Reset();
    co_return co_await process_->Wait(After(kLong));
  }

 private:
  PosixSpawner spawner_;
  UniqueFd input_;
  std::unique_ptr<Process> process_;
};

}  // namespace hatchery::cache
