// Watch: the log of events, read for one client at its own pace.
#pragma once

#include <functional>

#include "base/task.h"
#include "cache/cache.h"
#include "cache/caller.h"
#include "hatchery/v1/cache.pb.h"

namespace hatchery::cache::rpc {

// Returns when the client has room for more; an error ends the stream.
using SendEvent = std::function<Task<void>(hatchery::v1::WatchResponse)>;

// Sends every event after the request's revision that `caller` may see, the kept ones and then
// those to come, without end: until it is cancelled or the service stops (kUnavailable). Only what
// the client has room for is taken from the log, so a slow one costs nothing but its place there;
// kOutOfRange when that is deleted before it gets to it. kNotFound: there is no such VM and nothing
// is to be told of it any more. kResourceExhausted: too many watch already.
Task<void> Watch(cache::Cache& cache, Caller caller, hatchery::v1::WatchRequest request,
                 SendEvent send);

}  // namespace hatchery::cache::rpc
