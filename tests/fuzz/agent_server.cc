// A hostile host: what it sends to the agent in the guest. Commands are not started, and what would
// change the machine is left out; everything else is the agent's own.
#include <sys/socket.h>

#include <algorithm>
#include <memory>

#include "agent/guest/connection.h"
#include "agent/guest/services.h"
#include "base/files.h"
#include "tests/fuzz/fuzz.h"

namespace hatchery::agent::guest {
namespace {

class HarmlessSystem final : public GuestSystem {
 public:
  using GuestSystem::GuestSystem;
  Result<void> WriteKernelFile(std::string_view, std::string_view) override { return {}; }
  Result<void> Reseed(std::string_view) override { return {}; }
  Result<void> SetClock(std::int64_t unix_ns) override {
    fuzz::Require(unix_ns >= 0, "no time before 1970 gets so far");
    return {};
  }
  Result<void> SetHostname(const std::string& name) override {
    fuzz::Require(name.size() <= 64, "no long hostname gets so far");
    return {};
  }
  std::string Hostname() const override { return "fuzz"; }
  Result<void> BindOver(std::string_view, std::string_view) override { return {}; }
  void Sync() override {}
  void Settle() override {}
  Result<void> PowerOff() override { return {}; }
};

HarmlessSystem& System() {
  static TempDir root = TempDir::Create("/tmp", "hatchery-fuzz-").value();
  static HarmlessSystem system(root.path());
  return system;
}

// Every answer is one that a host can read.
void CheckAnswers(int host) {
  ttrpc::FrameDecoder decoder;
  std::string buffer(64 << 10, '\0');
  for (ssize_t n; (n = ::recv(host, buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0;) {
    decoder.Append(std::string_view(buffer).substr(0, static_cast<std::size_t>(n)));
    for (;;) {
      const auto frame = decoder.Next();
      fuzz::Require(frame.has_value(), "the agent sends frames");
      if (!*frame) break;
      const auto response = ttrpc::ParseResponse(**frame);
      fuzz::Require(response.has_value(), "the agent sends responses");
      fuzz::Require(!response->error || !response->error->message.empty(), "an error has words");
    }
  }
}

}  // namespace
}  // namespace hatchery::agent::guest

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  using namespace hatchery::agent::guest;
  int fds[2];
  fuzz::Require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
                "a socket pair can be made");
  UniqueFd host(fds[1]);
  // No more than the socket takes at once.
  const std::size_t sent = std::min<std::size_t>(size, 64 << 10);
  fuzz::Require(::send(host.get(), data, sent, MSG_NOSIGNAL) == static_cast<ssize_t>(sent),
                "the socket takes the input");
  ::shutdown(host.get(), SHUT_WR);

  const auto loop = EventLoop::Create().value();
  auto worker = std::make_unique<Worker>();
  Onliner onliner(*loop, *worker, System(), /*has_uevents=*/true);
  Services services(*loop, *worker, System(), onliner);
  Dispatcher dispatcher;
  services.AddTo(dispatcher);
  using Exec = agent::v1::ExecRequest;
  dispatcher.AddAsync<Exec>(
      "hatchery.agent.v1.Guest", "Exec",
      [](const Exec&, const std::shared_ptr<Call>& call) { call->Finish(std::string()); });
  {
    const auto connection =
        Connection::Create(*loop, dispatcher, UniqueFd(fds[0]), Connection::Kind::kSocket, [&loop] {
          loop->Stop();
        }).value();
    loop->Run();
  }
  worker.reset();  // before what it works for
  CheckAnswers(host.get());
  return 0;
}
