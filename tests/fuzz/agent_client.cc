// A hostile guest: what it answers to one call of the host's. The first byte says which call; then
// come frames, of which those of stream 1 answer it, and whatever else.
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <optional>

#include "agent/client/ttrpc_client.h"
#include "agent/ttrpc/frame.h"
#include "base/run.h"
#include "tests/fuzz/fuzz.h"

namespace hatchery::agent {
namespace {

constexpr auto kLong = std::chrono::hours(1);
constexpr std::uint32_t kOurs = 1;

template <class T>
Task<void> Discard(Task<T> call) {
  auto result = co_await std::move(call);
  fuzz::RequireWords(result);
  if (!result) co_return std::unexpected(result.error());
  co_return Result<void>();
}

Task<void> Call(Client& client, unsigned which) {
  const Identity identity{.seed = std::string(32, 's'), .vcpus = 2, .memory = Bytes::MiB(256)};
  switch (which % 7) {
    case 0: return Discard(client.Check(After(kLong)));
    case 1: return Discard(client.Version(After(kLong)));
    case 2: return Discard(client.Personalize(identity, After(kLong)));
    case 3: return Discard(client.AwaitOnline(2, Bytes::MiB(256), 1, After(kLong)));
    case 4: return Discard(client.Exec({.argv = {"true"}}, After(kLong)));
    case 5: return Discard(client.Details(After(kLong)));
    default: return Discard(client.PrepareSave(After(kLong)));
  }
}

// The stream id of the request that the client has sent.
std::uint32_t IdOfRequest(int guest) {
  std::string bytes(1 << 16, '\0');
  const ssize_t n = ::recv(guest, bytes.data(), bytes.size(), MSG_DONTWAIT);
  ttrpc::FrameDecoder decoder;
  decoder.Append(std::string_view(bytes).substr(0, n > 0 ? static_cast<std::size_t>(n) : 0));
  const auto frame = decoder.Next();
  fuzz::Require(frame && *frame, "a call sends one whole frame");
  return (**frame).stream_id;
}

std::string Addressed(std::string_view bytes, std::uint32_t id) {
  std::string out;
  ttrpc::FrameDecoder decoder;
  decoder.Append(bytes);
  for (auto frame = decoder.Next(); frame && *frame; frame = decoder.Next()) {
    bytes.remove_prefix(ttrpc::kHeaderBytes + (**frame).data.size());
    if ((**frame).stream_id == kOurs) (**frame).stream_id = id;
    out += ttrpc::EncodeFrame(**frame).value();
  }
  return out.append(bytes);
}

void Poll(asio::io_context& io) {
  io.restart();
  while (io.poll() > 0) {
  }
}

}  // namespace
}  // namespace hatchery::agent

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  using namespace hatchery::agent;
  if (size == 0) return 0;
  int fds[2];
  fuzz::Require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
                "a socket pair can be made");
  UniqueFd guest(fds[1]);
  asio::io_context io;
  const auto client = MakeTtrpcClient(io.get_executor(), UniqueFd(fds[0]), "fuzz");
  std::optional<Result<void>> result;
  asio::co_spawn(io, Call(*client, data[0]), [&](std::exception_ptr bug, Result<void> r) {
    fuzz::Require(!bug, "no call throws");
    result = std::move(r);
  });
  Poll(io);
  const std::string answer = Addressed(fuzz::Text(data + 1, size - 1), IdOfRequest(guest.get()));
  for (std::size_t at = 0; at < answer.size();) {
    const ssize_t n =
        ::send(guest.get(), answer.data() + at, answer.size() - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && !client->usable()) break;
    if (n > 0) at += static_cast<std::size_t>(n);
    Poll(io);
  }
  guest.Reset();
  Poll(io);
  fuzz::Require(result.has_value(), "the call ends with the connection");
  fuzz::Require(!client->usable(), "the client knows that the connection has ended");
  return 0;
}
