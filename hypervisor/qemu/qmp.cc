#include "hypervisor/qemu/qmp.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <deque>
#include <map>
#include <span>

#include "base/notifier.h"

namespace hatchery::hypervisor::qemu {

// Lives as long as a read or a write of the socket is pending, or a command waits: longer than the
// client, if need be.
struct QmpClient::Channel : std::enable_shared_from_this<Channel> {
  struct Outgoing {
    std::string bytes;
    UniqueFd fd;
  };

  Channel(Executor executor, UniqueFd fd, Handlers h)
      : socket(executor, fd.Release()), handlers(std::move(h)), changed(executor) {}

  asio::posix::stream_descriptor socket;
  Handlers handlers;
  Notifier changed;  // a reply, the greeting or the end
  LineBuffer lines;
  std::array<char, 16 << 10> buffer;
  std::deque<Outgoing> outbox;
  bool writing = false;
  bool greeted = false;
  std::optional<Error> end;
  std::uint64_t last_id = 0;
  // By command id; empty until answered. A command that stopped waiting takes its entry along.
  std::map<std::uint64_t, std::optional<Result<Json>>> pending;

  void Read() {
    socket.async_read_some(
        asio::buffer(buffer),
        [self = shared_from_this()](boost::system::error_code error, std::size_t n) {
          if (self->end) return;
          if (error) {
            self->End({Code::kUnavailable, "QEMU closed its control channel"});
            return;
          }
          self->Handle(std::string_view(self->buffer.data(), n));
          if (!self->end) self->Read();
        });
  }

  void Handle(std::string_view bytes) {
    if (auto fits = lines.Append(bytes); !fits) {
      End(fits.error());
      return;
    }
    // A handler may close the channel: look at `end` before each line.
    while (!end) {
      const auto line = lines.Next();
      if (!line) return;
      auto message = ParseQmpMessage(*line);
      if (!message) {
        End(message.error());
      } else if (auto* event = std::get_if<QmpEvent>(&*message)) {
        // A copy: a handler that destroys the client would otherwise destroy itself.
        if (const auto handler = handlers.on_event) handler(*event);
      } else if (auto* reply = std::get_if<QmpReply>(&*message)) {
        if (auto it = pending.find(reply->id); it != pending.end()) it->second = reply->result;
        changed.NotifyAll();
      } else {
        greeted = true;
        changed.NotifyAll();
      }
    }
  }

  void End(Error why) {
    if (end) return;
    end = std::move(why);
    outbox.clear();
    boost::system::error_code ignored;
    socket.close(ignored);
    changed.NotifyAll();
    // The handlers may own what owns this channel: let go of them.
    auto last = std::exchange(handlers, {});
    if (last.on_close) last.on_close();
  }

  // Sends what the socket takes now; the rest when it takes more.
  void Flush() {
    while (!writing && !outbox.empty()) {
      const ssize_t n = SendOne(outbox.front());
      if (n >= 0) {
        // The descriptor went with the first byte.
        outbox.front().fd.Reset();
        outbox.front().bytes.erase(0, static_cast<std::size_t>(n));
        if (outbox.front().bytes.empty()) outbox.pop_front();
      } else if (errno == EAGAIN) {
        writing = true;
        socket.async_wait(asio::posix::descriptor_base::wait_write,
                          [self = shared_from_this()](boost::system::error_code error) {
                            self->writing = false;
                            if (!error && !self->end) self->Flush();
                          });
      } else if (errno != EINTR) {
        // What QEMU said last may still be unread: the reader finds the end.
        outbox.clear();
      }
    }
  }

  ssize_t SendOne(const Outgoing& out) {
    const int fd = out.fd.get();
    return SendWithDescriptors(socket.native_handle(), out.bytes, std::span(&fd, out.fd ? 1u : 0u),
                               MSG_DONTWAIT);
  }
};

QmpClient::QmpClient(Executor executor, UniqueFd socket, Handlers handlers)
    : channel_(
          std::make_shared<Channel>(std::move(executor), std::move(socket), std::move(handlers))) {
  channel_->Read();
}

QmpClient::~QmpClient() { Close(); }

void QmpClient::Close() {
  channel_->handlers.on_close = nullptr;
  channel_->End({Code::kUnavailable, "the control channel to QEMU was closed"});
}

bool QmpClient::open() const { return !channel_->end.has_value(); }

Task<void> QmpClient::WaitClosed(Deadline deadline) {
  const auto channel = channel_;
  while (!channel->end) CO_RETURN_IF_ERROR(co_await channel->changed.Wait(deadline));
  co_return Result<void>();
}

Task<void> QmpClient::Handshake(Deadline deadline) {
  const auto channel = channel_;
  while (!channel->greeted) {
    if (channel->end) co_return std::unexpected(*channel->end);
    auto woken = co_await channel->changed.Wait(deadline);
    if (!woken) co_return Annotate(woken.error(), "waiting for QEMU's greeting");
  }
  auto agreed = co_await Run(channel, "qmp_capabilities", {}, deadline, -1);
  if (!agreed) co_return std::unexpected(agreed.error());
  co_return Result<void>();
}

Task<Json> QmpClient::Execute(std::string command, Json arguments, Deadline deadline, int fd) {
  return Run(channel_, std::move(command), std::move(arguments), deadline, fd);
}

Task<Json> QmpClient::Run(std::shared_ptr<Channel> channel, std::string command, Json arguments,
                          Deadline deadline, int fd) {
  if (channel->end) co_return Annotate(*channel->end, command);
  UniqueFd copy;
  if (fd >= 0) {
    // The caller's may be closed before ours is sent.
    auto duplicate = Duplicate(fd);
    if (!duplicate) co_return Annotate(duplicate.error(), command);
    copy = *std::move(duplicate);
  }
  const std::uint64_t id = ++channel->last_id;
  struct Entry {
    Channel& channel;
    std::uint64_t id;
    ~Entry() { channel.pending.erase(id); }
  };
  const Entry entry{*channel, id};
  channel->pending[id].reset();
  channel->outbox.push_back({EncodeQmpCommand(command, arguments, id), std::move(copy)});
  channel->Flush();
  for (;;) {
    if (auto& reply = channel->pending[id]) {
      if (!*reply) co_return Annotate(reply->error(), command);
      co_return std::move(**reply);
    }
    if (channel->end) co_return Annotate(*channel->end, command);
    auto woken = co_await channel->changed.Wait(deadline);
    // An answer that came together with the deadline counts.
    if (!woken && !channel->pending[id]) co_return Annotate(woken.error(), command);
  }
}

}  // namespace hatchery::hypervisor::qemu
