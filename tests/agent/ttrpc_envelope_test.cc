#include <gtest/gtest.h>

#include "agent/ttrpc/envelope.h"
#include "base/ids.h"

namespace hatchery::agent::ttrpc {
namespace {

using std::chrono::nanoseconds;

Frame Decode(std::string_view bytes) {
  FrameDecoder decoder;
  decoder.Append(bytes);
  return decoder.Next().value().value();
}

// Worked out by hand from protobuf's wire format: tag, length, text; timeout 5 is tag 0x20.
TEST(Envelope, ARequestHasTheseBytes) {
  const auto bytes = EncodeRequest(1, "s.S", "M", "\xff", nanoseconds(5));
  EXPECT_EQ(ToHex(bytes.value()),
            "0000000d000000010100"
            "0a03732e5312014d1a01ff2005");
}

TEST(Envelope, AResponseHasTheseBytes) {
  EXPECT_EQ(ToHex(EncodeResponse(3, "ab").value()), "0000000400000003020012026162");
  EXPECT_EQ(ToHex(EncodeResponse(3, "").value()), "00000000000000030200");
}

TEST(Envelope, AnErrorHasTheseBytes) {
  EXPECT_EQ(ToHex(EncodeError(5, Code::kUnimplemented, "no")),
            "000000080000000502000a06080c12026e6f");
}

TEST(Envelope, RequestsComeBackAsTheyWent) {
  const Request request{"grpc.Health", "Check", std::string(100'000, '\0'), nanoseconds(1'000'000)};
  const auto bytes =
      EncodeRequest(9, request.service, request.method, request.payload, request.timeout);
  const Frame frame = Decode(bytes.value());
  EXPECT_EQ(frame.stream_id, 9u);
  EXPECT_EQ(ParseRequest(frame).value(), request);
}

TEST(Envelope, ResponsesComeBackAsTheyWent) {
  const auto ok = ParseResponse(Decode(EncodeResponse(1, "payload").value())).value();
  EXPECT_FALSE(ok.error.has_value());
  EXPECT_EQ(ok.payload, "payload");
  const auto bad = ParseResponse(Decode(EncodeError(1, Code::kNotFound, "no such"))).value();
  ASSERT_TRUE(bad.error.has_value());
  EXPECT_EQ(bad.error->code, Code::kNotFound);
  EXPECT_EQ(bad.error->message, "no such");
}

TEST(Envelope, AStatusOfCodeZeroIsNoError) {
  const Frame frame{.type = MessageType::kResponse, .data = FromHex("0a0208001201ff").value()};
  const auto response = ParseResponse(frame).value();
  EXPECT_FALSE(response.error.has_value());
  EXPECT_EQ(response.payload, "\xff");
}

TEST(Envelope, AnUndefinedCodeIsUnknown) {
  const Frame frame{.type = MessageType::kResponse, .data = FromHex("0a020863").value()};
  EXPECT_EQ(ParseResponse(frame).value().error->code, Code::kUnknown);
}

TEST(Envelope, RefusesWhatIsNoEnvelope) {
  EXPECT_FALSE(ParseRequest({.type = MessageType::kRequest, .data = "\xff\xff"}).has_value());
  EXPECT_FALSE(ParseRequest({.type = MessageType::kResponse, .data = ""}).has_value());
  EXPECT_FALSE(ParseResponse({.type = MessageType::kResponse, .data = "\x0a\x7f"}).has_value());
  EXPECT_FALSE(ParseResponse({.type = MessageType::kRequest, .data = ""}).has_value());
}

TEST(Envelope, AnErrorIsValidUtf8AndBounded) {
  const std::string text = "\xc3(" + std::string(1 << 20, 'x');
  const auto parsed = ParseResponse(Decode(EncodeError(1, Code::kInternal, text))).value();
  EXPECT_EQ(parsed.error->message.substr(0, 2), "?(");
  EXPECT_LT(parsed.error->message.size(), 20'000u);
}

}  // namespace
}  // namespace hatchery::agent::ttrpc
