// ttrpc's unary calls: what a request and a response frame carry (proto/ttrpc/ttrpc.proto), as
// plain values. Pure functions; callers' threads do not matter.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/ttrpc/frame.h"
#include "base/status.h"

namespace hatchery::agent::ttrpc {

struct Request {
  std::string service;
  std::string method;
  std::string payload;                 // the call's own message, serialized
  std::chrono::nanoseconds timeout{};  // 0: none
  bool operator==(const Request&) const = default;
};

struct Response {
  std::optional<Error> error;  // as the other side said it
  std::string payload;         // without `error`: the call's own message, serialized
};

// Whole frames, ready to be written. kInvalidArgument when the frame would be larger than 4 MiB.
// Client stream ids are odd and grow.
Result<std::string> EncodeRequest(std::uint32_t stream_id, std::string_view service,
                                  std::string_view method, std::string_view payload,
                                  std::chrono::nanoseconds timeout);
Result<std::string> EncodeResponse(std::uint32_t stream_id, std::string_view payload);
// Long messages are cut at 16 KiB, so this always succeeds.
std::string EncodeError(std::uint32_t stream_id, Code code, std::string_view message);

// kDataLoss when the frame is of another type or its data is no such message.
Result<Request> ParseRequest(const Frame& frame);
// Status codes that gRPC does not define become kUnknown.
Result<Response> ParseResponse(const Frame& frame);

}  // namespace hatchery::agent::ttrpc
