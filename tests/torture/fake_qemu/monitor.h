// The control side of a pretended QEMU: QMP as the driver in hypervisor/qemu speaks it, over a
// board that can grow, with a state that can be saved and loaded. Loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "agent/guest/event_loop.h"
#include "base/fd.h"
#include "base/json.h"
#include "hypervisor/qemu/qmp_message.h"
#include "tests/torture/fake_qemu/guest.h"

namespace hatchery::torture {

struct BoardLimits {
  std::uint32_t boot_vcpus = 1;
  std::uint32_t max_vcpus = 1;
};

class FakeMonitor {
 public:
  struct Deps {
    agent::guest::EventLoop& loop;
    Board& board;
    FakeGuest& guest;
    BoardLimits limits;
    std::string memory_path;  // of the template's memory; empty: none
  };

  // `incoming`: waits for a state to load. Otherwise the guest has booted already.
  FakeMonitor(Deps deps, UniqueFd listener, bool incoming);

  // Bytes that are no message, now.
  void SendGarbage();

 private:
  void Accept();
  void OnReadable();
  void Hangup();
  void OnLine(std::string_view line);
  // The command's "return", or an error's text.
  Result<Json> Execute(const std::string& command, const Json& arguments);
  Result<Json> AddDevice(const Json& arguments);
  Result<Json> RemoveDevice(const Json& arguments);
  Json CpuSlots() const;
  Json Dimms() const;
  Result<Json> Save();
  Result<Json> Load();
  void Event(std::string_view name, Json data = Json::object());
  void Send(const Json& message);

  Deps deps_;
  UniqueFd listener_;
  UniqueFd client_;
  UniqueFd passed_;  // came with the last bytes
  UniqueFd state_;   // by getfd
  agent::guest::EventLoop::WatchId watch_ = 0;
  hypervisor::qemu::LineBuffer lines_;
  std::string run_state_;
  std::map<std::uint32_t, std::string> hot_cpus_;  // device id by socket
  struct Dimm {
    std::string backend;
    std::uint64_t size = 0;
  };
  std::map<std::string, Dimm> dimms_;              // by device id
  std::map<std::string, std::uint64_t> backends_;  // sizes
};

}  // namespace hatchery::torture
