#include "cmd/hatchery/requests.h"

#include <google/protobuf/util/time_util.h>

#include <filesystem>

#include "base/duration.h"
#include "cmd/hatchery/exit_code.h"
#include "cmd/hatchery/json_output.h"

namespace hatchery::cli {

namespace {

using google::protobuf::util::TimeUtil;

Result<Bytes> Size(const std::string& option, const std::string& text) {
  auto size = ParseBytes(text);
  if (!size) return InvalidArgument(option, size.error().message);
  return size;
}

Result<google::protobuf::Duration> Duration(const std::string& option, const std::string& text) {
  auto duration = ParseDuration(text);
  if (!duration) return InvalidArgument(option, duration.error().message);
  return TimeUtil::NanosecondsToDuration(duration->count());
}

template <class Request>
Result<void> SetShape(const ShapeOptions& shape, Request& request) {
  if (shape.vcpus) request.set_vcpus(*shape.vcpus);
  if (!shape.memory.empty()) {
    ASSIGN_OR_RETURN(const Bytes memory, Size("--memory", shape.memory));
    request.set_memory_bytes(memory.count());
  }
  return {};
}

std::string Absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

}  // namespace

Result<v1::AcquireRequest> ToRequest(const AcquireOptions& options) {
  v1::AcquireRequest request;
  request.set_request_id(options.request_id);
  request.set_template_name(options.template_name);
  RETURN_IF_ERROR(SetShape(options.shape, request));
  request.set_sandbox_id(options.sandbox_id);
  request.set_hostname(options.hostname);
  request.set_resize_in_background(options.resize_in_background);
  if (options.bind_to_caller) request.set_bind_to_caller(true);
  if (!options.ttl.empty()) {
    ASSIGN_OR_RETURN(*request.mutable_ttl(), Duration("--ttl", options.ttl));
  }
  return request;
}

Result<v1::RenewRequest> ToRequest(const RenewOptions& options) {
  v1::RenewRequest request;
  request.set_vm_id(options.vm_id);
  if (!options.ttl.empty()) {
    ASSIGN_OR_RETURN(*request.mutable_ttl(), Duration("--ttl", options.ttl));
  }
  return request;
}

Result<v1::ExecRequest> ToRequest(const ExecOptions& options, const std::string& vm_id) {
  v1::ExecRequest request;
  request.set_vm_id(vm_id);
  if (options.command.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "no command given; write it after --, as in -- uname -a");
  }
  for (const std::string& argument : options.command) request.add_argv(argument);
  for (const std::string& setting : options.env) {
    const auto equals = setting.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return InvalidArgument("--env", "'" + setting + "' is not of the form NAME=VALUE");
    }
    (*request.mutable_env())[setting.substr(0, equals)] = setting.substr(equals + 1);
  }
  request.set_cwd(options.cwd);
  if (!options.timeout.empty()) {
    ASSIGN_OR_RETURN(*request.mutable_timeout(), Duration("--timeout", options.timeout));
  }
  return request;
}

Result<v1::TemplateSpec> ToRequest(const SpecOptions& options) {
  v1::TemplateSpec spec;
  spec.set_name(options.name);
  spec.set_kernel(Absolute(options.kernel));
  spec.set_initrd(Absolute(options.initrd));
  spec.set_image(Absolute(options.image));
  spec.set_kernel_params(options.kernel_params);
  if (options.vcpus) spec.set_vcpus(*options.vcpus);
  if (options.max_vcpus) spec.set_max_vcpus(*options.max_vcpus);
  if (!options.memory.empty()) {
    ASSIGN_OR_RETURN(const Bytes memory, Size("--memory", options.memory));
    spec.set_memory_bytes(memory.count());
  }
  if (!options.max_memory.empty()) {
    ASSIGN_OR_RETURN(const Bytes memory, Size("--max-memory", options.max_memory));
    spec.set_max_memory_bytes(memory.count());
  }
  spec.set_accelerator(options.accelerator);
  if (!options.boot_timeout.empty()) {
    ASSIGN_OR_RETURN(*spec.mutable_boot_timeout(),
                     Duration("--boot-timeout", options.boot_timeout));
  }
  return spec;
}

Result<v1::SetPoolRequest> ToRequest(const PoolOptions& options) {
  v1::SetPoolRequest request;
  request.set_template_name(options.template_name);
  RETURN_IF_ERROR(SetShape(options.shape, request));
  request.set_target(options.target);
  request.set_wait(options.wait);
  return request;
}

Result<v1::ListVmsRequest> ToRequest(const VmFilter& filter) {
  v1::ListVmsRequest request;
  request.set_template_name(filter.template_name);
  if (!filter.state.empty()) {
    ASSIGN_OR_RETURN(const v1::VmState state, ParseVmState(filter.state));
    request.set_state(state);
  }
  return request;
}

int ExitCodeOf(const v1::ExecResponse& response) {
  if (response.timed_out()) return kExitTimedOut;
  switch (response.end_case()) {
    // A process's exit code has 8 bits.
    case v1::ExecResponse::kExitCode: return response.exit_code() & 0xff;
    case v1::ExecResponse::kSignal: return kExitSignalled + response.signal();
    case v1::ExecResponse::END_NOT_SET: return kExitHatcheryFailed;
  }
  return kExitHatcheryFailed;
}

}  // namespace hatchery::cli
