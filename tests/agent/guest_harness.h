// The agent's server on a thread of the test, a fake guest in a temporary folder, and a blocking
// client at the other end of a socket pair.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/guest/server.h"
#include "agent/ttrpc/envelope.h"
#include "base/files.h"
#include "hatchery/agent/v1/guest.pb.h"
#include "kata/agent.pb.h"

namespace hatchery::agent::guest {

// A guest with one CPU and two memory blocks of 128 MiB; effects are recorded, or fail on request.
class FakeGuest : public GuestSystem {
 public:
  explicit FakeGuest(const fs::path& root) : GuestSystem(root), root_(root) {
    Put("/sys/devices/system/memory/block_size_bytes", "8000000\n");
    Put("/proc/sys/kernel/random/boot_id", "template-boot-id\n");
    Put("/proc/sys/vm/drop_caches", "0\n");
    AddCpu(0, "1");
    AddMemoryBlock(0, "online");
    AddMemoryBlock(1, "online");
  }

  void Put(const std::string& path, const std::string& text) {
    ASSERT_TRUE(MakeDirectories(Path(path).parent_path()).has_value()) << path;
    ASSERT_TRUE(WriteFileAtomically(Path(path), text).has_value()) << path;
  }
  void AddCpu(int number, const std::string& online) {
    const std::lock_guard lock(cpus_mutex_);
    Put("/sys/devices/system/cpu/cpu" + std::to_string(number) + "/online", online + "\n");
    CountCpus();
  }
  void AddMemoryBlock(int number, const std::string& state) {
    Put("/sys/devices/system/memory/memory" + std::to_string(number) + "/state", state + "\n");
  }

  // The part called `name` ("seed", "clock", …, or a path) fails from now on.
  void Fail(const std::string& name, Error error) {
    const std::lock_guard lock(mutex_);
    failures_[name] = std::move(error);
  }
  void Heal() {
    const std::lock_guard lock(mutex_);
    failures_.clear();
  }
  std::vector<std::string> Effects() const {
    const std::lock_guard lock(mutex_);
    return effects_;
  }

  // Runs in the thread that is about to write a kernel file.
  std::function<void(std::string_view path)> before_write;

  Result<void> WriteKernelFile(std::string_view path, std::string_view text) override {
    if (before_write) before_write(path);
    RETURN_IF_ERROR(Do(std::string(path), std::string(path) + "=" + std::string(text)));
    std::string stored(text);
    if (stored == "online_movable") stored = "online";
    const std::lock_guard lock(cpus_mutex_);
    RETURN_IF_ERROR(GuestSystem::WriteKernelFile(path, stored + "\n"));
    CountCpus();
    return {};
  }
  Result<void> Reseed(std::string_view seed) override {
    return Do("seed", "seed " + std::to_string(seed.size()));
  }
  Result<void> SetClock(std::int64_t unix_ns) override {
    return Do("clock", "clock " + std::to_string(unix_ns));
  }
  Result<void> SetHostname(const std::string& name) override {
    return Do("hostname", "hostname " + name);
  }
  std::string Hostname() const override { return "fake"; }
  Result<void> BindOver(std::string_view source, std::string_view target) override {
    RETURN_IF_ERROR(Do("bind", "bind " + std::string(target)));
    fs::remove(Path(target));
    fs::create_symlink(Path(source), Path(target));
    return {};
  }
  void Sync() override { (void)Do("sync", "sync"); }
  void Settle() override { (void)Do("settle", "settle"); }
  Result<void> PowerOff() override {
    auto done = Do("poweroff", "poweroff");
    powered_off = true;
    powered_off.notify_all();
    return done;
  }

  std::atomic<bool> powered_off = false;

 private:
  Result<void> Do(const std::string& name, const std::string& effect) {
    const std::lock_guard lock(mutex_);
    if (const auto it = failures_.find(name); it != failures_.end()) {
      return std::unexpected(it->second);
    }
    effects_.push_back(effect);
    return {};
  }
  // As the kernel does: the list of CPUs whose file says 1.
  void CountCpus() {
    std::string list;
    for (int cpu = 0; cpu < 16; ++cpu) {
      const std::string path = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online";
      if (Read(path).value_or("0") != "1") continue;
      if (!list.empty()) list += ",";
      list += std::to_string(cpu);
    }
    // Renamed into place: the server's threads read it meanwhile.
    const fs::path path = Path("/sys/devices/system/cpu/online");
    ASSERT_TRUE(WriteFileAtomically(path, list + "\n").has_value());
  }

  const fs::path root_;
  std::mutex cpus_mutex_;  // the list of CPUs and their files change together
  mutable std::mutex mutex_;
  std::map<std::string, Error> failures_;
  std::vector<std::string> effects_;
};

// Blocking; every read gives up after 20 s, which no test should need.
class TestClient {
 public:
  explicit TestClient(UniqueFd fd) : fd_(std::move(fd)) {}

  void SendBytes(std::string_view bytes) { ASSERT_TRUE(WriteAll(fd_.get(), bytes).has_value()); }
  std::uint32_t Send(std::string_view service, std::string_view method, std::string_view payload,
                     std::chrono::nanoseconds timeout = {}) {
    last_id_ += 2;
    SendBytes(ttrpc::EncodeRequest(last_id_, service, method, payload, timeout).value());
    return last_id_;
  }
  // The next frame; nullopt when the server closed the stream, or said nothing for so long.
  std::optional<ttrpc::Frame> Receive(int patience_ms = 20'000) {
    for (;;) {
      auto frame = decoder_.Next();
      if (!frame) return std::nullopt;
      if (*frame) return **std::move(frame);
      pollfd poll{.fd = fd_.get(), .events = POLLIN};
      if (::poll(&poll, 1, patience_ms) != 1) return std::nullopt;
      char buffer[64 << 10];
      const ssize_t size = ::read(fd_.get(), buffer, sizeof(buffer));
      if (size <= 0) return std::nullopt;
      decoder_.Append({buffer, static_cast<std::size_t>(size)});
    }
  }
  Result<std::string> Call(std::string_view service, std::string_view method,
                           std::string_view payload, std::chrono::nanoseconds timeout = {}) {
    return AnswerTo(Send(service, method, payload, timeout));
  }
  // Answers to other calls that come before it are dropped.
  Result<std::string> AnswerTo(std::uint32_t id) {
    while (auto frame = Receive()) {
      if (frame->stream_id != id) continue;
      ASSIGN_OR_RETURN(ttrpc::Response response, ttrpc::ParseResponse(*frame));
      if (response.error) return std::unexpected(*response.error);
      return std::move(response.payload);
    }
    return Unavailable("no answer");
  }
  template <class Response, class Request>
  Result<Response> Ask(std::string_view service, std::string_view method, const Request& request,
                       std::chrono::nanoseconds timeout = {}) {
    ASSIGN_OR_RETURN(const std::string payload,
                     Call(service, method, request.SerializeAsString(), timeout));
    Response response;
    if (!response.ParseFromString(payload)) return DataLoss("the answer does not parse");
    return response;
  }
  // The server serves: a round trip.
  Result<void> Check() {
    ASSIGN_OR_RETURN(auto answer, (Ask<grpc::HealthCheckResponse>("grpc.Health", "Check",
                                                                  grpc::CheckRequest())));
    if (answer.status() != grpc::HealthCheckResponse::SERVING) return Internal("not serving");
    return {};
  }
  void Close() { fd_.Reset(); }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  std::uint32_t last_id_ = 1;
  ttrpc::FrameDecoder decoder_;
};

class GuestTest : public testing::Test {
 protected:
  static constexpr std::string_view kGuest = "hatchery.agent.v1.Guest";

  // Before this, the fake guest may be changed.
  void Start() {
    server_ = Server::Create(guest_, /*listen_to_kernel=*/false).value();
    // New connections come through a listener, as they must not from another thread.
    const fs::path path = dir_.path() / "agent.sock";
    ASSERT_TRUE(server_->Listen(ListenUnix(path, 0600).value()).has_value());
    thread_ = std::thread([this] { server_->Run(); });
  }
  TestClient Connect() {
    if (!server_) Start();
    UniqueFd fd = ConnectUnix(dir_.path() / "agent.sock").value();
    ::fcntl(fd.get(), F_SETFL, 0);
    return TestClient(std::move(fd));
  }
  void TearDown() override {
    if (!server_) return;
    server_->Stop();
    if (thread_.joinable()) thread_.join();
    server_.reset();
  }
  // An "add" uevent of the subsystem.
  void Announce(const std::string& subsystem) {
    server_->InjectUevent({.action = "add", .subsystem = subsystem});
  }

  TempDir dir_ = TempDir::Create(fs::temp_directory_path(), "guest-test-").value();
  FakeGuest guest_{dir_.path() / "root"};
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

}  // namespace hatchery::agent::guest
