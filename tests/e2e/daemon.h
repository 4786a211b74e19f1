// A real hatcheryd in a state directory of its own, for end-to-end tests: started as an operator
// would, spoken to over its socket, and looked at from outside.
#pragma once

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "base/run.h"
#include "hatchery/v1/cache.grpc.pb.h"
#include "hatchery/v1/factory.grpc.pb.h"

namespace hatchery::e2e {

namespace api = hatchery::v1;

// The guest image that the build made for tests; a test without it fails.
inline fs::path ImageDir() {
  const char* dir = std::getenv("HATCHERY_TEST_IMAGE_DIR");
  return dir != nullptr ? dir : "/HATCHERY_TEST_IMAGE_DIR is not set";
}
// Where the built programs are.
inline fs::path BinDir() { return ExecutablePath().parent_path(); }

// Waits until the outside world has got there, for a bounded time.
inline bool Eventually(const std::function<bool()>& met,
                       std::chrono::seconds patience = std::chrono::seconds(30)) {
  asio::io_context io;
  const auto give_up = After(patience);
  while (!met()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    (void)RunUntilDone(io, SleepFor(std::chrono::milliseconds(10)));
  }
  return true;
}

class TestDaemon {
 public:
  explicit TestDaemon(std::vector<std::string> flags = {}) : flags_(std::move(flags)) { Start(); }
  ~TestDaemon() {
    if (process_) Stop();
    EndLeftOvers();
  }

  void Start() {
    int pipe[2];
    ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
    UniqueFd log(pipe[0]), write(pipe[1]);
    SpawnRequest request;
    request.argv = {(BinDir() / "hatcheryd").string(),
                    "--state-dir",
                    dir_.path().string(),
                    "--guest-image-dir",
                    ImageDir().string(),
                    "--driver-accelerator",
                    "tcg"};
    request.argv.insert(request.argv.end(), flags_.begin(), flags_.end());
    request.env = MinimalEnvironment();
    request.stderr_fd = write.get();
    auto spawned = spawner_.Spawn(request);
    ASSERT_TRUE(spawned.has_value()) << ToString(spawned.error());
    process_ = *std::move(spawned);
    write.Reset();
    text_.clear();
    // It says so when it serves; if it dies first, the pipe ends.
    ReadLogUntil(log.get(), "ready on");
    log_ = std::move(log);
    // Read on, so that it never blocks on a full pipe.
    drain_ = std::thread([this, fd = log_.get()] { ReadLogUntil(fd, ""); });
    Connect();
  }

  // SIGTERM, and the exit code.
  int Stop() {
    EXPECT_TRUE(process_->Signal(SIGTERM).has_value());
    return WaitForEnd();
  }
  void Kill() {
    EXPECT_TRUE(process_->Signal(SIGKILL).has_value());
    WaitForEnd();
  }
  int WaitForEnd() {
    auto status = RunUntilDone(io_, process_->Wait(After(std::chrono::seconds(90))));
    EXPECT_TRUE(status.has_value()) << "hatcheryd does not end";
    if (drain_.joinable()) drain_.join();
    log_.Reset();
    process_.reset();
    return status ? status->value : -1;
  }
  pid_t pid() const { return process_->pid(); }
  const fs::path& dir() const { return dir_.path(); }
  const std::string& log() const { return text_; }

  static std::unique_ptr<grpc::ClientContext> Context(
      std::chrono::milliseconds timeout = std::chrono::seconds(120)) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + timeout);
    // After a restart, gRPC may still be backing off from the old daemon's end.
    context->set_wait_for_ready(true);
    return context;
  }
  grpc::Status Init(std::uint32_t pool, api::TemplateSpec spec = {}) {
    api::InitRequest request;
    *request.mutable_template_spec() = std::move(spec);
    request.set_pool_target(pool);
    auto context = Context();
    auto reader = factory->Init(context.get(), request);
    for (api::InitResponse response; reader->Read(&response);) init = response.result();
    return reader->Finish();
  }
  grpc::Status Destroy() {
    auto context = Context();
    auto reader = factory->Destroy(context.get(), {});
    for (api::DestroyResponse step; reader->Read(&step);) {
    }
    return reader->Finish();
  }
  grpc::Status Acquire(api::AcquireResponse* reply, const api::AcquireRequest& request = {}) {
    return cache->Acquire(Context().get(), request, reply);
  }
  grpc::Status Release(const std::string& vm_id) {
    api::ReleaseRequest request;
    request.set_vm_id(vm_id);
    api::ReleaseResponse reply;
    return cache->Release(Context().get(), request, &reply);
  }
  grpc::Status Exec(const std::string& vm_id, std::vector<std::string> argv,
                    api::ExecResponse* reply, api::ExecRequest request = {}) {
    request.set_vm_id(vm_id);
    request.mutable_argv()->Assign(argv.begin(), argv.end());
    return cache->Exec(Context().get(), request, reply);
  }
  // stdout of a shell command that must succeed.
  std::string Shell(const std::string& vm_id, const std::string& script) {
    api::ExecResponse reply;
    const auto status = Exec(vm_id, {"/bin/sh", "-c", script}, &reply);
    EXPECT_TRUE(status.ok()) << script << ": " << status.error_message();
    EXPECT_EQ(reply.exit_code(), 0) << script << ": " << reply.err();
    std::string out = reply.out();
    while (out.ends_with('\n')) out.pop_back();
    return out;
  }

  // Processes whose command line names our state directory, the daemon aside.
  std::set<pid_t> Vmms() const {
    std::set<pid_t> pids;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const auto command = ReadFile(entry.path() / "cmdline");
      if (!command || command->find((dir() / "vms").string() + "/") == std::string::npos) continue;
      if (IdentifyProcess(std::stoi(name))) pids.insert(std::stoi(name));
    }
    return pids;
  }
  std::set<std::string> VmFolders() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir() / "vms")) {
      names.insert(entry.path().filename());
    }
    return names;
  }
  // Nothing runs and nothing lies about.
  void ExpectNothingLeft() const {
    EXPECT_EQ(Vmms(), std::set<pid_t>{});
    EXPECT_EQ(VmFolders(), std::set<std::string>{});
    for (const auto& entry : fs::directory_iterator(dir() / "templates")) {
      EXPECT_FALSE(entry.path().filename().string().starts_with(".draft")) << entry.path();
    }
  }

  void ExpectDestroyLeavesNothing() {
    EXPECT_TRUE(Destroy().ok());
    ExpectNothingLeft();
  }

  std::unique_ptr<api::Cache::Stub> cache;
  std::unique_ptr<api::Factory::Stub> factory;
  api::InitResult init;

 private:
  void ReadLogUntil(int fd, std::string_view word) {
    char buffer[4096];
    for (ssize_t n; (n = ::read(fd, buffer, sizeof(buffer))) > 0;) {
      text_.append(buffer, static_cast<std::size_t>(n));
      if (!word.empty() && text_.find(word) != std::string::npos) return;
    }
    if (!word.empty()) ADD_FAILURE() << "hatcheryd did not start: " << text_;
  }
  void Connect() {
    auto channel = grpc::CreateChannel("unix:" + (dir() / "hatchery.sock").string(),
                                       grpc::InsecureChannelCredentials());
    cache = api::Cache::NewStub(channel);
    factory = api::Factory::NewStub(channel);
  }
  // Leased VMs outlive the daemon by design; they do not outlive the test.
  void EndLeftOvers() {
    for (const pid_t pid : Vmms()) ::kill(pid, SIGKILL);
  }

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-e2e-").value();
  std::vector<std::string> flags_;
  asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};
  std::unique_ptr<Process> process_;
  UniqueFd log_;
  std::string text_;
  std::thread drain_;
};

}  // namespace hatchery::e2e
