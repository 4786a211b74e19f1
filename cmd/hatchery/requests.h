// What the user wrote, and the requests that it becomes. Pure: only syntax is checked here, ranges
// are the server's to refuse. kInvalidArgument names the option.
#pragma once

#include <hatchery/v1/cache.pb.h>
#include <hatchery/v1/factory.pb.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"

namespace hatchery::cli {

// Most that is forwarded as a command's input; the API's limit.
inline constexpr Bytes kMaxStdin = Bytes::MiB(2);

// Sizes a VM shall have in total; empty or absent: as in the template.
struct ShapeOptions {
  std::optional<std::uint32_t> vcpus;
  std::string memory;
};

struct AcquireOptions {
  std::string template_name;
  ShapeOptions shape;
  std::string sandbox_id;
  std::string request_id;
  std::string hostname;
  bool resize_in_background = false;
  std::string ttl;              // empty: held until released
  bool bind_to_caller = false;  // until this process ends, instead
};
Result<v1::AcquireRequest> ToRequest(const AcquireOptions& options);

struct RenewOptions {
  std::string vm_id;
  std::string ttl;  // empty: as long as before
};
Result<v1::RenewRequest> ToRequest(const RenewOptions& options);

struct ExecOptions {
  std::vector<std::string> command;
  std::vector<std::string> env;  // "NAME=value"
  std::string cwd;
  std::string timeout;
  bool forward_stdin = false;
};
// Without the input, which is read only when all else is right.
Result<v1::ExecRequest> ToRequest(const ExecOptions& options, const std::string& vm_id);

struct SpecOptions {
  std::string name;
  std::string kernel, initrd, image;  // relative ones are taken from the working directory
  std::string kernel_params;
  std::optional<std::uint32_t> vcpus, max_vcpus;
  std::string memory, max_memory;
  std::string accelerator;
  std::string boot_timeout;
};
Result<v1::TemplateSpec> ToRequest(const SpecOptions& options);

struct PoolOptions {
  std::string template_name;
  ShapeOptions shape;
  std::uint32_t target = 0;
  bool wait = true;
};
Result<v1::SetPoolRequest> ToRequest(const PoolOptions& options);

struct VmFilter {
  std::string template_name;
  std::string state;
};
Result<v1::ListVmsRequest> ToRequest(const VmFilter& filter);

// What `run` and `vm exec` exit with.
int ExitCodeOf(const v1::ExecResponse& response);

}  // namespace hatchery::cli
