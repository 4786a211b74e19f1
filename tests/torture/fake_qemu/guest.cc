#include "tests/torture/fake_qemu/guest.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <ctime>
#include <utility>

#include "base/ids.h"
#include "kata/agent.pb.h"

namespace hatchery::torture {

namespace {

using agent::guest::Connection;

constexpr std::string_view kGuestService = "hatchery.agent.v1.Guest";
constexpr std::string_view kHealthService = "grpc.Health";
constexpr std::string_view kVersion = "fake";

}  // namespace

FakeGuest::FakeGuest(agent::guest::EventLoop& loop, const Board& board, UniqueFd listener)
    : loop_(loop), board_(board), listener_(std::move(listener)) {
  AddCalls();
  Accept();
}

// Watches for the next client; there is none now.
void FakeGuest::Accept() {
  auto watch = loop_.Watch(listener_.get(), EPOLLIN, [this](std::uint32_t) {
    UniqueFd accepted(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!accepted) return;
    loop_.Unwatch(watch_);
    if (auto raw = Duplicate(accepted.get())) raw_ = *std::move(raw);
    auto made = Connection::Create(loop_, dispatcher_, std::move(accepted),
                                   Connection::Kind::kSocket, [this] {
                                     raw_.Reset();
                                     connection_.reset();
                                     Accept();
                                   });
    if (made) connection_ = *std::move(made);
  });
  if (watch) watch_ = *watch;
}

void FakeGuest::Run() {
  running_ = true;
  Drain();
}

void FakeGuest::SendGarbage() {
  constexpr std::string_view kGarbage = "\xff\xff\xff\xff this is no frame \xff\xff\xff\xff";
  if (raw_) (void)::send(raw_.get(), kGarbage.data(), kGarbage.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void FakeGuest::FallSilent(bool silent) {
  silent_ = silent;
  Drain();
}

void FakeGuest::WhenRunning(std::function<void()> action) {
  waiting_.push_back(std::move(action));
  Drain();
}

void FakeGuest::Drain() {
  while (running_ && !silent_ && !waiting_.empty()) {
    const auto action = std::move(waiting_.front());
    waiting_.pop_front();
    action();
  }
}

void FakeGuest::AddCalls() {
  // A call that answers with `reply(request)`, once the guest runs.
  auto add = [this]<class Request>(std::string_view service, std::string_view method,
                                   std::type_identity<Request>, auto reply) {
    dispatcher_.AddAsync<Request>(service, method,
                                  [this, reply](const Request& request, const CallPtr& call) {
                                    WhenRunning([reply, request, call] { reply(request, call); });
                                  });
  };
  add(kHealthService, "Check", std::type_identity<::grpc::CheckRequest>(),
      [](const auto&, const CallPtr& call) {
        ::grpc::HealthCheckResponse response;
        response.set_status(::grpc::HealthCheckResponse::SERVING);
        call->Finish(response.SerializeAsString());
      });
  add(kHealthService, "Version", std::type_identity<::grpc::CheckRequest>(),
      [](const auto&, const CallPtr& call) {
        ::grpc::VersionCheckResponse response;
        response.set_grpc_version("hatchery.agent.v1");  // it passes for ours
        response.set_agent_version(std::string(kVersion));
        call->Finish(response.SerializeAsString());
      });
  add(kGuestService, "Personalize", std::type_identity<agent::v1::PersonalizeRequest>(),
      [this](const auto& request, const CallPtr& call) { Personalize(request, call); });
  add(kGuestService, "AwaitOnline", std::type_identity<agent::v1::AwaitOnlineRequest>(),
      [this](const auto&, const CallPtr& call) {
        agent::v1::AwaitOnlineResponse response;
        response.set_online_vcpus(board_.vcpus);
        response.set_online_memory_bytes(board_.memory_bytes);
        call->Finish(response.SerializeAsString());
      });
  add(kGuestService, "Exec", std::type_identity<agent::v1::ExecRequest>(),
      [this](const auto& request, const CallPtr& call) { Exec(request, call); });
  add(kGuestService, "Details", std::type_identity<agent::v1::DetailsRequest>(),
      [this](const auto&, const CallPtr& call) { call->Finish(Details().SerializeAsString()); });
  add(kGuestService, "PrepareSave", std::type_identity<agent::v1::PrepareSaveRequest>(),
      [](const auto&, const CallPtr& call) { call->Finish(std::string()); });
}

void FakeGuest::Personalize(const agent::v1::PersonalizeRequest& request, const CallPtr& call) {
  agent::v1::PersonalizeResponse response;
  response.set_reseeded(!request.seed().empty());
  response.set_clock_set(request.time_unix_ns() > 0);
  if (!request.hostname().empty()) hostname_ = request.hostname();
  response.set_hostname_set(!request.hostname().empty());
  if (!request.machine_id().empty()) machine_id_ = request.machine_id();
  response.set_machine_id_set(!request.machine_id().empty());
  if (request.renew_boot_id()) {
    boot_id_ = ToHex(RandomBytes(16));
    for (const std::size_t at : {20, 16, 12, 8}) boot_id_.insert(at, "-");
    response.set_boot_id(boot_id_);
  }
  response.set_online_vcpus(board_.vcpus);
  response.set_online_memory_bytes(board_.memory_bytes);
  call->Finish(response.SerializeAsString());
}

// Knows the few commands that the test's clients run: `true`, and a shell that prints who it is and
// who marked it, and takes the mark in $HOLDER.
void FakeGuest::Exec(const agent::v1::ExecRequest& request, const CallPtr& call) {
  const std::string program = request.argv_size() > 0 ? request.argv(0) : "";
  agent::v1::ExecResponse response;
  response.set_exit_code(0);
  if (program == "/bin/sh") {
    response.set_out(machine_id_ + "\n" + boot_id_ + "\n" + (mark_.empty() ? "" : mark_ + "\n"));
    if (const auto holder = request.env().find("HOLDER"); holder != request.env().end()) {
      mark_ = holder->second;
    }
  } else if (program != "true") {
    return call->Finish(NotFound("no program '" + program + "'"));
  }
  call->Finish(response.SerializeAsString());
}

agent::v1::DetailsResponse FakeGuest::Details() const {
  agent::v1::DetailsResponse response;
  response.set_agent_version(std::string(kVersion));
  response.set_kernel_release(std::string(kVersion));
  response.set_hostname(hostname_);
  response.set_boot_id(boot_id_);
  response.set_machine_id(machine_id_);
  response.set_online_vcpus(board_.vcpus);
  response.set_online_memory_bytes(board_.memory_bytes);
  response.set_memory_block_bytes(std::uint64_t{128} << 20);
  response.set_time_unix_ns(std::int64_t{1'000'000'000} * ::time(nullptr));
  return response;
}

}  // namespace hatchery::torture
