#include "agent/guest/program.h"

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
#include "base/fd.h"

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

int Serve(const Options& options, Offer offer) {
  try {
    GuestSystem system;
    auto server = Server::Create(system, /*listen_to_kernel=*/true, offer);
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

}  // namespace

int RunProgram(int argc, char** argv, Offer offer) {
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
  if (options.service) return Serve(options, offer);
  if (::getpid() != 1) return Usage();
  RunAsInit([&] { return Serve(options, offer); });
}

}  // namespace hatchery::agent::guest
