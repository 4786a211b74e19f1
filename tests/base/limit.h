// A limit of this process, until the end of the block.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"

namespace hatchery {

class Limit {
 public:
  Limit(__rlimit_resource what, rlim_t value) : what_(what) {
    EXPECT_EQ(::getrlimit(what_, &before_), 0);
    const rlimit now{value, before_.rlim_max};
    EXPECT_EQ(::setrlimit(what_, &now), 0);
  }
  ~Limit() { ::setrlimit(what_, &before_); }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  __rlimit_resource what_;
  rlimit before_{};
};

// The first number that a new descriptor does not get.
inline rlim_t DescriptorsInUse() {
  const UniqueFd next(::dup(STDERR_FILENO));
  return static_cast<rlim_t>(next.get());
}

}  // namespace hatchery
