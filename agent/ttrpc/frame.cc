#include "agent/ttrpc/frame.h"

#include <utility>

namespace hatchery::agent::ttrpc {

namespace {

void PutU32(std::string& out, std::uint32_t value) {
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<char>(value >> shift & 0xff));
}

std::uint32_t GetU32(std::string_view in) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(in[i]);
  return value;
}

bool IsKnownType(std::uint8_t type) {
  return type >= static_cast<std::uint8_t>(MessageType::kRequest) &&
         type <= static_cast<std::uint8_t>(MessageType::kData);
}

}  // namespace

Result<std::string> EncodeFrame(const Frame& frame) {
  if (frame.data.size() > kMaxDataBytes) {
    return InvalidArgument("", "a message of " + std::to_string(frame.data.size()) +
                                   " bytes does not fit a ttrpc frame (4 MiB)");
  }
  std::string bytes;
  bytes.reserve(kHeaderBytes + frame.data.size());
  PutU32(bytes, static_cast<std::uint32_t>(frame.data.size()));
  PutU32(bytes, frame.stream_id);
  bytes.push_back(static_cast<char>(frame.type));
  bytes.push_back(static_cast<char>(frame.flags));
  bytes += frame.data;
  return bytes;
}

void FrameDecoder::Append(std::string_view bytes) {
  if (failure_) return;
  if (consumed_ > 0) {
    buffer_.erase(0, consumed_);
    consumed_ = 0;
  }
  buffer_ += bytes;
}

Result<std::optional<Frame>> FrameDecoder::Next() {
  if (failure_) return std::unexpected(*failure_);
  const std::string_view rest = std::string_view(buffer_).substr(consumed_);
  if (rest.size() < kHeaderBytes) return std::nullopt;
  const std::size_t length = GetU32(rest);
  const auto type = static_cast<std::uint8_t>(rest[8]);
  if (length > kMaxDataBytes || !IsKnownType(type)) {
    failure_ = Error{Code::kDataLoss, "not a ttrpc frame: length " + std::to_string(length) +
                                          ", type " + std::to_string(type)};
    buffer_.clear();
    consumed_ = 0;
    return std::unexpected(*failure_);
  }
  if (rest.size() < kHeaderBytes + length) return std::nullopt;
  Frame frame;
  frame.stream_id = GetU32(rest.substr(4));
  frame.type = static_cast<MessageType>(type);
  frame.flags = static_cast<std::uint8_t>(rest[9]);
  frame.data = rest.substr(kHeaderBytes, length);
  consumed_ += kHeaderBytes + length;
  return frame;
}

void FrameDecoder::Reset() {
  buffer_.clear();
  consumed_ = 0;
  failure_.reset();
}

}  // namespace hatchery::agent::ttrpc
