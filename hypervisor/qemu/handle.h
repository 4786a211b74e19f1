// What Vm::Handle() holds: enough to find a running QEMU again.
//
// One JSON object, because it is read by people as well, in the metadata store's dump:
//   {"version": 3, "driver": "qemu", "process": {"pid", "start_ticks"},
//    "config": {…, "cid": its vsock context id, 0 if it has none},
//    "cell": {"uid": 0 if none of its own, "cgroup": folders, one a line},
//    "handed_over": whether somebody else controls it}
// Version 1 had no cell, version 2 neither cid nor handed_over.
// What was hot-added is not in it: QEMU knows, and a handle may be older than the last hot-add.
#pragma once

#include <string>
#include <string_view>

#include "base/process.h"
#include "base/status.h"
#include "hypervisor/config.h"
#include "hypervisor/isolation.h"

namespace hatchery::hypervisor::qemu {

struct HandleData {
  ProcessIdentity process;
  VmConfig config;  // without template_memory_fd
  Cell cell;
  bool handed_over = false;  // somebody else controls it
};

std::string EncodeHandle(const HandleData& data);
// kDataLoss when it cannot be read, kFailedPrecondition when it is another driver's.
Result<HandleData> DecodeHandle(std::string_view text);

}  // namespace hatchery::hypervisor::qemu
