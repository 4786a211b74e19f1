#include "bench/commit.h"

#include "hatchery_commit.h"  // made by cmake/HatcheryCommit.cmake

namespace hatchery::bench {

std::string_view BuildCommit() { return HATCHERY_COMMIT; }

}  // namespace hatchery::bench
