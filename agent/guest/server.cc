#include "agent/guest/server.h"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <utility>

namespace hatchery::agent::guest {

namespace {

constexpr int kBacklog = 16;
constexpr std::size_t kMaxConnections = 64;
// Only for kernels that announce nothing.
constexpr std::chrono::milliseconds kPortRetryInterval{100};
constexpr std::string_view kPorts = "/sys/class/virtio-ports";

}  // namespace

Result<std::string> FindPort(const GuestSystem& system, std::string_view name) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(system.Path(kPorts), error), end; !error && it != end;
       it.increment(error)) {
    const std::string device = it->path().filename();
    if (system.Read(std::string(kPorts) + "/" + device + "/name").value_or("") == name) {
      return "/dev/" + device;
    }
  }
  return NotFound("no virtio-serial port named " + std::string(name));
}

Result<std::unique_ptr<Server>> Server::Create(GuestSystem& system, bool listen_to_kernel,
                                               Offer offer) {
  // Commands that do not read their stdin.
  ::signal(SIGPIPE, SIG_IGN);
  ASSIGN_OR_RETURN(std::unique_ptr<EventLoop> loop, EventLoop::Create());
  std::unique_ptr<Server> server(new Server(std::move(loop), system));
  Server* self = server.get();
  self->worker_ = std::make_unique<Worker>();
  bool has_uevents = !listen_to_kernel;
  if (listen_to_kernel) {
    // Before the first look, or what appears between the two would be missed.
    auto source =
        UeventSource::Create(*self->loop_, [self](const Uevent& event) { self->OnUevent(event); });
    has_uevents = source.has_value();
    if (source) self->uevents_ = *std::move(source);
  }
  self->onliner_ = std::make_unique<Onliner>(*self->loop_, *self->worker_, system, has_uevents);
  self->services_ =
      std::make_unique<Services>(*self->loop_, *self->worker_, system, *self->onliner_);
  self->services_->AddTo(self->dispatcher_, offer);
  return server;
}

Server::~Server() {
  worker_.reset();  // its jobs use everything below
  connections_.clear();
}

Result<void> Server::Serve(UniqueFd fd, Connection::Kind kind) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoError(errno, "setting up a connection");
  }
  const auto it = connections_.emplace(connections_.end());
  auto connection = Connection::Create(*loop_, dispatcher_, std::move(fd), kind, [this, it, kind] {
    connections_.erase(it);
    // The port was unplugged; should it come back, there will be a uevent.
    if (kind == Connection::Kind::kPort) port_open_ = false;
  });
  if (!connection) {
    connections_.erase(it);
    return std::unexpected(connection.error());
  }
  *it = *std::move(connection);
  return {};
}

Result<void> Server::Listen(UniqueFd fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return ErrnoError(errno, "setting up a listening socket");
  }
  auto watch = loop_->Watch(fd.get(), EPOLLIN, [this, listener = fd.get()](std::uint32_t) {
    UniqueFd accepted(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    // One too many is closed at once: its caller sees that, instead of waiting for an answer.
    if (!accepted || connections_.size() >= kMaxConnections) return;
    (void)Serve(std::move(accepted), Connection::Kind::kSocket);
  });
  if (!watch) return std::unexpected(watch.error());
  listeners_.push_back(std::move(fd));
  return {};
}

bool Server::ServePort(std::string name) {
  port_name_ = std::move(name);
  return LookForPort();
}

bool Server::LookForPort() {
  if (port_open_ || port_name_.empty()) return port_open_;
  if (const auto device = FindPort(system_, port_name_)) {
    UniqueFd fd(::open(system_.Path(*device).c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    port_open_ = fd.valid() && Serve(std::move(fd), Connection::Kind::kPort).has_value();
  }
  if (!port_open_ && !uevents_) {
    loop_->RunAt(std::chrono::steady_clock::now() + kPortRetryInterval, [this] { LookForPort(); });
  }
  return port_open_;
}

void Server::ListenVsock() {
  UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return;
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = kVsockPort;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    return;
  }
  (void)Listen(std::move(fd));
}

void Server::InjectUevent(Uevent event) {
  loop_->Post([this, event = std::move(event)] { OnUevent(event); });
}

void Server::OnUevent(const Uevent& event) {
  // Those of the time before there is an onliner wait in the socket.
  onliner_->OnUevent(event);
  // A port's name is known with its second event.
  if (event.action.empty() || event.subsystem == "virtio-ports") LookForPort();
}

}  // namespace hatchery::agent::guest
