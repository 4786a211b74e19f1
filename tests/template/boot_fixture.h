// A fake host with guests whose agents answer, and files that pass for a guest's.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "agent/fake/fake_agent.h"
#include "base/files.h"
#include "base/run.h"
#include "hypervisor/fake/fake_driver.h"
#include "template/boot.h"

namespace hatchery::tmpl {

class BootFixture : public testing::Test {
 protected:
  static constexpr auto kLong = std::chrono::minutes(5);  // never waited for

  BootFixture() {
    Write("kernel", "a kernel");
    Write("initrd", "an initrd");
  }

  void Write(const char* name, std::string_view content) {
    ASSERT_TRUE(WriteFileAtomically(dir_.path() / name, content).has_value());
  }

  hypervisor::VmConfig Config(hypervisor::Accelerator accelerator) {
    hypervisor::VmConfig config;
    config.id = VmId("vm-1");
    config.kernel = dir_.path() / "kernel";
    config.initrd = dir_.path() / "initrd";
    config.accelerator = accelerator;
    config.memory = Bytes::MiB(128);
    return config;
  }

  Endpoint AgentOf(const char* vm) { return UnixEndpoint{run_root_ / vm / "agent.sock"}; }

  Result<BootedVm> Boot(hypervisor::VmConfig config, std::chrono::nanoseconds timeout = kLong) {
    return RunUntilDone(io_, booter_.Boot(std::move(config), After(timeout)));
  }
  Result<void> Destroy(BootedVm booted) {
    booted.agent.reset();
    return RunUntilDone(io_, booter_.Destroy(std::move(booted.vm)));
  }

  // Runs the loop until `happened`.
  void RunUntil(const std::function<bool()>& happened) {
    io_.restart();
    while (!happened() && io_.run_one() > 0) {
    }
    ASSERT_TRUE(happened());
  }

  // Starts `task`, cancels it once `when` holds, and returns what it said.
  template <class T>
  Result<T> CancelWhen(Task<T> task, const std::function<bool()>& when) {
    std::optional<Result<T>> result;
    TaskScope scope(io_.get_executor());
    scope.Spawn("cancelled", [](Task<T> t, std::optional<Result<T>>& out) -> asio::awaitable<void> {
      out = co_await std::move(t);
    }(std::move(task), result));
    RunUntil(when);
    scope.Cancel();
    RunUntil([&] { return scope.size() == 0; });
    return *std::move(result);
  }

  void ExpectNothingLeft() {
    EXPECT_TRUE(host_.live().empty());
    EXPECT_TRUE(!fs::exists(run_root_) || fs::is_empty(run_root_));
  }

  TempDir dir_ = TempDir::Create("/tmp", "boot-").value();
  fs::path run_root_ = dir_.path() / "run";
  asio::io_context io_;
  hypervisor::fake::FakeHost host_{io_.get_executor()};
  hypervisor::fake::FakeDriver driver_{host_};
  agent::FakeAgents agents_{io_.get_executor()};
  AcceleratorVerdicts verdicts_{dir_.path() / "accelerators.json"};
  Booter booter_{driver_, agents_, verdicts_, run_root_};
};

}  // namespace hatchery::tmpl
