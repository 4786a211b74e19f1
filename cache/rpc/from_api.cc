#include "cache/rpc/from_api.h"

#include <algorithm>

namespace hatchery::cache::rpc {

namespace {

constexpr int kMaxStrings = 4096;
constexpr std::size_t kMaxString = (128 << 10) - 1;  // MAX_ARG_STRLEN, less the end's zero byte
// Of ARG_MAX, 2 MiB where the guest's stack has its usual 8 MiB: the pointers take a part, too.
constexpr std::size_t kMaxTotal = 1 << 20;
constexpr std::size_t kMaxStdin = 2 << 20;
constexpr std::size_t kMaxPath = 4095;  // PATH_MAX, less the end's zero byte
// Of the kernel's COMMAND_LINE_SIZE, 2048; the rest is for what the driver sets.
constexpr std::size_t kMaxKernelParams = 1536;

bool HasZeroByte(const std::string& text) { return text.find('\0') != std::string::npos; }

Result<void> CheckAbsolutePath(const std::string& field, const std::string& path) {
  if (path.size() > kMaxPath) {
    return InvalidArgument(field, "is longer than " + std::to_string(kMaxPath) + " bytes");
  }
  if (HasZeroByte(path)) return InvalidArgument(field, "holds a zero byte");
  if (!path.empty() && path[0] != '/') {
    return InvalidArgument(field, "'" + path + "' is not an absolute path");
  }
  return {};
}

// One string for execve(2), counted in `total`.
Result<void> CheckString(const char* field, const std::string& text, std::size_t& total) {
  if (HasZeroByte(text)) return InvalidArgument(field, "holds a zero byte");
  if (text.size() > kMaxString) {
    return InvalidArgument(field, "holds a string of " + std::to_string(text.size()) +
                                      " bytes; at most " + std::to_string(kMaxString) + " fit");
  }
  total += text.size() + 1;
  if (total > kMaxTotal) {
    return InvalidArgument(field, "argv and env take more than 1 MiB together");
  }
  return {};
}

Result<void> CheckCount(const char* field, std::size_t count) {
  if (count <= kMaxStrings) return {};
  return InvalidArgument(field, "has more than " + std::to_string(kMaxStrings) + " entries");
}

Result<void> CheckVcpus(const char* field, std::uint32_t vcpus) {
  if (vcpus == 0) return InvalidArgument(field, "must be at least 1");
  if (vcpus > hypervisor::kMaxVcpus) {
    return InvalidArgument(
        field, std::to_string(vcpus) + " is more than " + std::to_string(hypervisor::kMaxVcpus));
  }
  return {};
}

Result<void> CheckMemory(const char* field, Bytes memory) {
  if (memory > hypervisor::kMaxMemory) {
    return InvalidArgument(field,
                           ToString(memory) + " is more than " + ToString(hypervisor::kMaxMemory));
  }
  if (memory == Bytes() || !memory.IsMultipleOf(hypervisor::kMemoryBlock)) {
    return InvalidArgument(
        field, ToString(memory) + " is not a multiple of " + ToString(hypervisor::kMemoryBlock));
  }
  return {};
}

Result<void> CheckSizes(const api::TemplateSpec& in) {
  if (in.has_vcpus()) RETURN_IF_ERROR(CheckVcpus("vcpus", in.vcpus()));
  if (in.has_max_vcpus()) RETURN_IF_ERROR(CheckVcpus("max_vcpus", in.max_vcpus()));
  if (in.has_memory_bytes()) {
    RETURN_IF_ERROR(CheckMemory("memory_bytes", Bytes(in.memory_bytes())));
  }
  if (in.has_max_memory_bytes()) {
    RETURN_IF_ERROR(CheckMemory("max_memory_bytes", Bytes(in.max_memory_bytes())));
  }
  return {};
}

Result<void> CheckKernelParams(const std::string& params) {
  if (params.size() > kMaxKernelParams) {
    return InvalidArgument("kernel_params",
                           "is longer than " + std::to_string(kMaxKernelParams) + " bytes");
  }
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::ranges::any_of(params, is_control)) {
    return InvalidArgument("kernel_params", "holds a control character");
  }
  return {};
}

Result<LeaseTerm> TermOf(const api::AcquireRequest& request) {
  if (request.has_ttl()) {
    ASSIGN_OR_RETURN(const auto ttl, rpc::FromApi(request.ttl(), "ttl"));
    return LeaseTerm{LeaseTerm::Kind::kTtl, ttl};
  }
  return LeaseTerm{request.bind_to_caller() ? LeaseTerm::Kind::kCaller : LeaseTerm::Kind::kHeld};
}

}  // namespace

Result<AcquireParams> FromApi(const api::AcquireRequest& request) {
  AcquireParams params;
  params.request_id = RequestId(request.request_id());
  params.template_name = request.template_name();
  if (request.has_vcpus()) params.vcpus = request.vcpus();
  if (request.has_memory_bytes()) params.memory = Bytes(request.memory_bytes());
  params.sandbox_id = request.sandbox_id();
  params.hostname = request.hostname();
  params.resize_in_background = request.resize_in_background();
  ASSIGN_OR_RETURN(params.term, TermOf(request));
  return params;
}

Result<agent::ExecRequest> FromApi(const api::ExecRequest& request) {
  RETURN_IF_ERROR(ValidateName("vm_id", request.vm_id()));
  if (request.argv().empty() || request.argv(0).empty()) {
    return InvalidArgument("argv", "must begin with a program");
  }
  RETURN_IF_ERROR(CheckCount("argv", static_cast<std::size_t>(request.argv_size())));
  RETURN_IF_ERROR(CheckCount("env", request.env().size()));
  std::size_t total = 0;
  for (const auto& argument : request.argv()) {
    RETURN_IF_ERROR(CheckString("argv", argument, total));
  }
  for (const auto& [name, value] : request.env()) {
    if (name.empty() || name.find('=') != std::string::npos) {
      return InvalidArgument("env", "a variable's name must not be empty nor hold '='");
    }
    RETURN_IF_ERROR(CheckString("env", name, total));
    RETURN_IF_ERROR(CheckString("env", value, total));
  }
  RETURN_IF_ERROR(CheckAbsolutePath("cwd", request.cwd()));
  if (request.stdin_data().size() > kMaxStdin) {
    return InvalidArgument("stdin_data", "has more than 2 MiB");
  }
  agent::ExecRequest exec;
  exec.argv.assign(request.argv().begin(), request.argv().end());
  exec.env.insert(request.env().begin(), request.env().end());
  exec.cwd = request.cwd();
  exec.stdin_data = request.stdin_data();
  if (request.has_timeout()) {
    ASSIGN_OR_RETURN(const auto timeout, rpc::FromApi(request.timeout(), "timeout"));
    exec.timeout = std::chrono::ceil<std::chrono::milliseconds>(timeout);
  }
  if (request.output_limit() > 0) exec.output_limit = Bytes(request.output_limit());
  return exec;
}

Result<TemplateSpec> FromApi(const api::TemplateSpec& in) {
  TemplateSpec spec;
  if (!in.name().empty()) RETURN_IF_ERROR(ValidateName("name", in.name()));
  spec.name = in.name();
  RETURN_IF_ERROR(CheckAbsolutePath("kernel", in.kernel()));
  RETURN_IF_ERROR(CheckAbsolutePath("initrd", in.initrd()));
  RETURN_IF_ERROR(CheckAbsolutePath("image", in.image()));
  spec.guest = {in.kernel(), in.initrd(), in.image()};
  RETURN_IF_ERROR(CheckKernelParams(in.kernel_params()));
  if (!in.kernel_params().empty()) spec.kernel_params = in.kernel_params();
  RETURN_IF_ERROR(CheckSizes(in));
  if (in.has_vcpus()) spec.vcpus = in.vcpus();
  if (in.has_max_vcpus()) spec.max_vcpus = in.max_vcpus();
  if (in.has_memory_bytes()) spec.memory = Bytes(in.memory_bytes());
  if (in.has_max_memory_bytes()) spec.max_memory = Bytes(in.max_memory_bytes());
  if (!in.accelerator().empty()) {
    RETURN_IF_ERROR(ValidateName("accelerator", in.accelerator()));
    ASSIGN_OR_RETURN(spec.accelerator, hypervisor::ParseAccelerator(in.accelerator()));
  }
  if (in.has_boot_timeout()) {
    ASSIGN_OR_RETURN(spec.boot_timeout, rpc::FromApi(in.boot_timeout(), "boot_timeout"));
  }
  return spec;
}

Result<Cache::InitParams> FromApi(const api::InitRequest& request) {
  Cache::InitParams params;
  ASSIGN_OR_RETURN(params.spec, FromApi(request.template_spec()));
  if (!request.has_pool_target()) return params;
  if (request.pool_target() > kMaxPoolTarget) {
    return InvalidArgument("pool_target", std::to_string(request.pool_target()) + " is more than " +
                                              std::to_string(kMaxPoolTarget));
  }
  params.pool_target = request.pool_target();
  return params;
}

Result<void> Validate(const api::ListVmsRequest& filter) {
  if (!filter.template_name().empty()) {
    RETURN_IF_ERROR(ValidateName("template_name", filter.template_name()));
  }
  if (!api::VmState_IsValid(filter.state())) {
    return InvalidArgument("state", std::to_string(filter.state()) + " is no state of a VM");
  }
  return {};
}

Result<void> ValidateTemplateReference(const std::string& name) {
  constexpr std::size_t kDigest = 64;
  const bool digest =
      name.size() == kDigest && name.find_first_not_of("0123456789abcdef") == std::string::npos;
  return digest ? Result<void>() : ValidateName("name", name);
}

}  // namespace hatchery::cache::rpc
