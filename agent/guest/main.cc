// hatchery-agent: answers the host from inside a guest.
//
//   hatchery-agent                    process 1: sets up the machine, then serves
//   hatchery-agent --service          an ordinary service of another init
//     --port DEVICE                   this device instead of the port named org.hatchery.agent.0
//     --listen-fd N                   only what connects to this listening socket (tests)
//   hatchery-agent --version
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "agent/guest/init.h"
#include "agent/guest/server.h"

namespace hatchery::agent::guest {
namespace {

struct Options {
  bool service = false;
  std::string port;
  int listen_fd = -1;
};

Result<void> Open(Server& server, const Options& options) {
  if (options.listen_fd >= 0) return server.Listen(UniqueFd(options.listen_fd));
  if (!options.port.empty()) {
    UniqueFd fd(::open(options.port.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!fd) return ErrnoError(errno, "opening " + options.port);
    return server.Serve(std::move(fd), Connection::Kind::kPort);
  }
  server.ListenVsock();
  if (!server.ServePort(std::string(kPortName))) {
    std::fprintf(stderr, "hatchery-agent: waiting for the virtio-serial port %s\n",
                 std::string(kPortName).c_str());
  }
  return {};
}

int Serve(const Options& options) {
  try {
    GuestSystem system;
    auto server = Server::Create(system, /*listen_to_kernel=*/true);
    Result<void> ready;
    if (!server) {
      ready = std::unexpected(server.error());
    } else {
      ready = Open(**server, options);
    }
    if (!ready) {
      std::fprintf(stderr, "hatchery-agent: %s\n", ToString(ready.error()).c_str());
      return 1;
    }
    (*server)->Run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hatchery-agent: %s\n", error.what());
    return 1;
  }
}

int Usage() {
  std::fprintf(stderr,
               "usage: hatchery-agent [--service [--port DEVICE | --listen-fd N] | --version]\n");
  return 2;
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    if (arg == "--version") {
      std::puts("hatchery-agent " HATCHERY_VERSION);
      return 0;
    }
    if (arg == "--service") {
      options.service = true;
    } else if (arg == "--port" && !value.empty()) {
      options.port = value;
      ++i;
    } else if (arg == "--listen-fd" && !value.empty()) {
      const auto parsed =
          std::from_chars(value.data(), value.data() + value.size(), options.listen_fd);
      if (parsed.ptr != value.data() + value.size()) return Usage();
      ++i;
    } else if (::getpid() != 1) {  // the kernel hands process 1 what it did not understand
      return Usage();
    }
  }
  if (options.service) return Serve(options);
  if (::getpid() != 1) return Usage();
  RunAsInit([&options] { return Serve(options); });
}

}  // namespace
}  // namespace hatchery::agent::guest

int main(int argc, char** argv) { return hatchery::agent::guest::Main(argc, argv); }
