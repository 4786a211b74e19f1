// Bytes of a ttrpc stream, whoever sent them.
#include <algorithm>
#include <vector>

#include "agent/ttrpc/envelope.h"
#include "tests/fuzz/fuzz.h"

namespace hatchery::agent::ttrpc {
namespace {

using fuzz::Require;

struct Decoded {
  std::vector<Frame> frames;
  bool failed = false;
  bool operator==(const Decoded&) const = default;
};

Decoded Decode(std::string_view bytes, std::size_t piece) {
  Decoded decoded;
  FrameDecoder decoder;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    decoder.Append(bytes.substr(at, piece));
    for (;;) {
      auto frame = decoder.Next();
      fuzz::RequireWords(frame);
      decoded.failed = !frame;
      if (!frame || !*frame) break;
      decoded.frames.push_back(**std::move(frame));
    }
  }
  return decoded;
}

Frame OnlyFrame(std::string_view bytes) {
  const Decoded decoded = Decode(bytes, bytes.size());
  Require(!decoded.failed && decoded.frames.size() == 1, "what we encode is one frame");
  return decoded.frames[0];
}

void CheckEnvelopes(const Frame& frame) {
  const auto request = ParseRequest(frame);
  fuzz::RequireWords(request);
  if (request) {
    const auto again =
        ParseRequest(OnlyFrame(EncodeRequest(frame.stream_id, request->service, request->method,
                                             request->payload, request->timeout)
                                   .value()));
    Require(again && *again == *request, "a request survives");
  }
  const auto response = ParseResponse(frame);
  fuzz::RequireWords(response);
  if (!response) return;
  if (response->error) {
    const auto again = ParseResponse(
        OnlyFrame(EncodeError(frame.stream_id, response->error->code, response->error->message)));
    Require(again && again->error && again->error->code == response->error->code,
            "an error survives");
  } else {
    const auto again =
        ParseResponse(OnlyFrame(EncodeResponse(frame.stream_id, response->payload).value()));
    Require(again && !again->error && again->payload == response->payload, "a response survives");
  }
}

}  // namespace
}  // namespace hatchery::agent::ttrpc

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery::agent::ttrpc;
  const std::string_view bytes = hatchery::fuzz::Text(data, size);
  const Decoded whole = Decode(bytes, std::max<std::size_t>(1, size));
  hatchery::fuzz::Require(whole == Decode(bytes, 1) && whole == Decode(bytes, 7),
                          "how the bytes are cut does not matter");
  std::string again;
  for (const Frame& frame : whole.frames) {
    again += EncodeFrame(frame).value();
    CheckEnvelopes(frame);
  }
  hatchery::fuzz::Require(bytes.starts_with(again), "frames are the bytes they were read from");
  return 0;
}
