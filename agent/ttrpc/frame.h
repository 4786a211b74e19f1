// ttrpc's framing: bytes of a stream to frames and back. No I/O: the guest's epoll loop and the
// host's Asio client share it. Not thread-safe.
//
//   0        4           8      9       10
//   | length | stream id | type | flags | data: `length` bytes, at most 4 MiB
//   big-endian
//
// The format has no resynchronisation mark: after one bad header nothing later can be trusted, so a
// decoder that failed stays failed until the connection is made anew (Reset).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hatchery::agent::ttrpc {

inline constexpr std::size_t kHeaderBytes = 10;
inline constexpr std::size_t kMaxDataBytes = 4u << 20;

enum class MessageType : std::uint8_t { kRequest = 1, kResponse = 2, kData = 3 };

inline constexpr std::uint8_t kFlagRemoteClosed = 1;
inline constexpr std::uint8_t kFlagRemoteOpen = 2;
inline constexpr std::uint8_t kFlagNoData = 4;

struct Frame {
  std::uint32_t stream_id = 0;
  MessageType type = MessageType::kRequest;
  std::uint8_t flags = 0;
  std::string data;
  bool operator==(const Frame&) const = default;
};

// The frame's bytes. kInvalidArgument when its data is larger than kMaxDataBytes.
Result<std::string> EncodeFrame(const Frame& frame);

// Append() what was read, then call Next() until it gives nothing. Holds at most one frame and what
// the caller appended beyond it.
class FrameDecoder {
 public:
  void Append(std::string_view bytes);

  // The next whole frame; nullopt when more bytes are needed. kDataLoss on a header that cannot be
  // one (length over kMaxDataBytes, unknown type), seen as soon as the header is there; from then
  // on every call answers so.
  Result<std::optional<Frame>> Next();

  // Forgets everything, also a failure: for a new connection.
  void Reset();

 private:
  std::string buffer_;
  std::size_t consumed_ = 0;  // bytes of buffer_ already handed out
  std::optional<Error> failure_;
};

}  // namespace hatchery::agent::ttrpc
