#include "agent/guest/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <limits>
#include <utility>

namespace hatchery::agent::guest {

namespace {

constexpr std::size_t kReadBytes = 64 << 10;
// A peer that asks without reading the answers is not read from beyond this, until the edge that
// says that it takes bytes again.
constexpr std::size_t kMaxOutgoingBytes = 8 << 20;
constexpr std::size_t kMaxCallsInFlight = 1024;

Time DeadlineOf(std::chrono::nanoseconds timeout) {
  const Time now = std::chrono::steady_clock::now();
  if (timeout.count() <= 0 || timeout > Time::max() - now) return Time::max();
  return now + timeout;
}

}  // namespace

Result<std::unique_ptr<Connection>> Connection::Create(EventLoop& loop,
                                                       const Dispatcher& dispatcher, UniqueFd fd,
                                                       Kind kind, std::function<void()> on_end) {
  std::unique_ptr<Connection> connection(
      new Connection(loop, dispatcher, std::move(fd), kind, std::move(on_end)));
  Connection* self = connection.get();
  ASSIGN_OR_RETURN(self->watch_,
                   loop.Watch(self->fd_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                              [self](std::uint32_t events) { self->OnEvents(events); }));
  return connection;
}

Connection::Connection(EventLoop& loop, const Dispatcher& dispatcher, UniqueFd fd, Kind kind,
                       std::function<void()> on_end)
    : loop_(loop),
      dispatcher_(dispatcher),
      fd_(std::move(fd)),
      kind_(kind),
      on_end_(std::move(on_end)) {}

Connection::~Connection() {
  loop_.Unwatch(watch_);
  Forget();
}

void Connection::OnEvents(std::uint32_t events) {
  const bool away = kind_ == Kind::kPort && (events & EPOLLHUP) != 0;
  if (away && !away_) Forget();
  away_ = away;
  if (!WriteAll() || !ReadAll()) End();
}

bool Connection::ReadAll() {
  std::array<char, kReadBytes> buffer;
  while (!IsCongested()) {
    const ssize_t size = ::read(fd_.get(), buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return true;
    // The host is away, and what it left is read: half a frame will not be completed. (A terminal,
    // which stands in for the port in tests, says EIO for it.)
    if (kind_ == Kind::kPort && (size == 0 || (size < 0 && errno == EIO))) {
      decoder_.Reset();
      return true;
    }
    if (size <= 0) return false;
    if (deaf_) continue;
    decoder_.Append({buffer.data(), static_cast<std::size_t>(size)});
    if (Decode()) continue;
    if (kind_ == Kind::kSocket) return false;
    Forget();
    deaf_ = true;
  }
  return true;
}

bool Connection::Decode() {
  for (;;) {
    auto frame = decoder_.Next();
    if (!frame) return false;
    if (!*frame) return true;
    OnFrame(**std::move(frame));
  }
}

void Connection::OnFrame(ttrpc::Frame frame) {
  if (frame.type != ttrpc::MessageType::kRequest) return;  // unary calls only: no one asked for it
  const std::uint32_t id = frame.stream_id;
  auto request = ttrpc::ParseRequest(frame);
  if (!request || id % 2 == 0) {
    const char* why = request ? "client stream ids are odd" : "the request does not parse";
    return Send(ttrpc::EncodeError(id, Code::kInvalidArgument, why), {});
  }
  // A host's ids only grow. One that does not is another host, whose predecessor left unseen.
  if (kind_ == Kind::kPort && id <= last_stream_id_) {
    for (auto& [_, call] : std::exchange(calls_, {})) call->Cancel();
  }
  last_stream_id_ = id;
  if (calls_.contains(id)) {
    return Send(ttrpc::EncodeError(id, Code::kInvalidArgument, "this stream id is in use"), {});
  }
  if (calls_.size() >= kMaxCallsInFlight) {
    return Send(ttrpc::EncodeError(id, Code::kResourceExhausted, "too many calls in flight"), {});
  }
  // Not called any more once the call was cancelled, as Forget() and the destructor do.
  auto answer = [this, id](Result<std::string> payload, Call::Flushed flushed) {
    calls_.erase(id);
    if (payload) {
      auto bytes = ttrpc::EncodeResponse(id, *payload);
      if (bytes) return Send(*std::move(bytes), std::move(flushed));
      payload = std::unexpected(bytes.error());
    }
    Send(ttrpc::EncodeError(id, payload.error().code, payload.error().message), std::move(flushed));
  };
  auto call = std::make_shared<Call>(std::move(request->payload), DeadlineOf(request->timeout),
                                     std::move(answer));
  calls_.emplace(id, call);
  dispatcher_.Dispatch(request->service, request->method, std::move(call));
}

bool Connection::IsCongested() const { return outgoing_bytes_ >= kMaxOutgoingBytes; }

void Connection::Send(std::string bytes, Call::Flushed flushed) {
  outgoing_bytes_ += bytes.size();
  outgoing_.push_back({std::move(bytes), 0, std::move(flushed)});
  // At once, for the latency. An end of the stream shows again as an event.
  (void)WriteAll();
}

bool Connection::WriteAll() {
  while (!outgoing_.empty()) {
    Outgoing& next = outgoing_.front();
    const char* data = next.bytes.data() + next.written;
    const std::size_t left = next.bytes.size() - next.written;
    const ssize_t size = kind_ == Kind::kSocket ? ::send(fd_.get(), data, left, MSG_NOSIGNAL)
                                                : ::write(fd_.get(), data, left);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) break;
    if (size < 0) return kind_ == Kind::kPort && errno == EIO;
    next.written += static_cast<std::size_t>(size);
    outgoing_bytes_ -= static_cast<std::size_t>(size);
    if (next.written < next.bytes.size()) continue;
    const Call::Flushed flushed = std::move(next.flushed);
    outgoing_.pop_front();
    if (flushed) flushed();
  }
  return true;
}

void Connection::Forget() {
  decoder_.Reset();
  outgoing_.clear();
  outgoing_bytes_ = 0;
  last_stream_id_ = 0;
  deaf_ = false;
  for (auto& [_, call] : std::exchange(calls_, {})) call->Cancel();
}

void Connection::End() {
  loop_.Unwatch(watch_);
  watch_ = 0;
  Forget();
  if (auto on_end = std::exchange(on_end_, nullptr)) on_end();
}

}  // namespace hatchery::agent::guest
