#include "agent/ttrpc/envelope.h"

#include <algorithm>

#include "ttrpc/ttrpc.pb.h"

namespace hatchery::agent::ttrpc {

namespace {

constexpr std::size_t kMaxErrorMessageBytes = 16u << 10;

Code ToCode(std::int32_t code) {
  const bool known = code >= static_cast<std::int32_t>(Code::kCancelled) &&
                     code <= static_cast<std::int32_t>(Code::kDataLoss);
  return known ? static_cast<Code>(code) : Code::kUnknown;
}

// A proto3 string must be UTF-8, and what errors quote (paths, arguments) need not be: a reader in
// another language would refuse the whole message.
std::string Printable(std::string_view text) {
  std::string out(text.substr(0, kMaxErrorMessageBytes));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
  return out;
}

}  // namespace

Result<std::string> EncodeRequest(std::uint32_t stream_id, std::string_view service,
                                  std::string_view method, std::string_view payload,
                                  std::chrono::nanoseconds timeout) {
  ::ttrpc::Request request;
  request.set_service(std::string(service));
  request.set_method(std::string(method));
  request.set_payload(std::string(payload));
  request.set_timeout_nano(timeout.count());
  return EncodeFrame(
      {.stream_id = stream_id, .type = MessageType::kRequest, .data = request.SerializeAsString()});
}

Result<std::string> EncodeResponse(std::uint32_t stream_id, std::string_view payload) {
  ::ttrpc::Response response;
  response.set_payload(std::string(payload));
  return EncodeFrame({.stream_id = stream_id,
                      .type = MessageType::kResponse,
                      .data = response.SerializeAsString()});
}

std::string EncodeError(std::uint32_t stream_id, Code code, std::string_view message) {
  ::ttrpc::Response response;
  response.mutable_status()->set_code(static_cast<std::int32_t>(code));
  response.mutable_status()->set_message(Printable(message));
  return *EncodeFrame({.stream_id = stream_id,
                       .type = MessageType::kResponse,
                       .data = response.SerializeAsString()});
}

Result<Request> ParseRequest(const Frame& frame) {
  ::ttrpc::Request request;
  if (frame.type != MessageType::kRequest || !request.ParseFromString(frame.data)) {
    return DataLoss("not a ttrpc request");
  }
  return Request{.service = std::move(*request.mutable_service()),
                 .method = std::move(*request.mutable_method()),
                 .payload = std::move(*request.mutable_payload()),
                 .timeout = std::chrono::nanoseconds(request.timeout_nano())};
}

Result<Response> ParseResponse(const Frame& frame) {
  ::ttrpc::Response wire;
  if (frame.type != MessageType::kResponse || !wire.ParseFromString(frame.data)) {
    return DataLoss("not a ttrpc response");
  }
  Response response;
  if (wire.has_status() && wire.status().code() != 0) {
    response.error = Error{ToCode(wire.status().code()), wire.status().message()};
  } else {
    response.payload = std::move(*wire.mutable_payload());
  }
  return response;
}

}  // namespace hatchery::agent::ttrpc
