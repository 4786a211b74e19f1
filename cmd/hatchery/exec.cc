#include "cmd/hatchery/exec.h"

#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/duration.h"

namespace hatchery::cli {

namespace {

using google::protobuf::util::TimeUtil;
using std::chrono::nanoseconds;

// The daemon ends the command at its time limit and still has to say so.
constexpr std::chrono::seconds kGrace{15};

Result<std::string> ReadInput(int fd) {
  std::string input;
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoError(errno, "reading stdin");
    if (count == 0) return input;
    input.append(buffer.data(), static_cast<std::size_t>(count));
    if (input.size() > kMaxStdin.count()) {
      return ResourceExhausted("stdin is more than the " + ToString(kMaxStdin) +
                               " that can be forwarded; let the command fetch its input itself");
    }
  }
}

}  // namespace

void AddExecOptions(CLI::App* verb, ExecOptions& options) {
  verb->add_option("--env,-e", options.env, "Set a variable for the command; may be repeated")
      ->type_name("NAME=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  verb->add_option("--cwd", options.cwd, "The command's working directory; / if not given")
      ->type_name("DIR");
  verb->add_option("--timeout", options.timeout,
                   "End the command after this long, with exit code 124")
      ->type_name("DURATION");
  verb->add_flag("--stdin,-i", options.forward_stdin,
                 "Forward stdin, read to its end first; 2 MiB at most");
}

Result<v1::ExecRequest> PrepareExec(const Context& context, const ExecOptions& options) {
  ASSIGN_OR_RETURN(v1::ExecRequest request, ToRequest(options, ""));
  if (options.forward_stdin) {
    ASSIGN_OR_RETURN(*request.mutable_stdin_data(), ReadInput(context.io.stdin_fd));
  }
  return request;
}

Result<v1::ExecResponse> Exec(Client& client, const v1::ExecRequest& request) {
  CallOptions options;
  if (request.has_timeout()) {
    options.timeout = nanoseconds(TimeUtil::DurationToNanoseconds(request.timeout())) + kGrace;
  }
  return client.Call(client.cache(), &v1::Cache::Stub::Exec, request, options);
}

int Finish(const Context& context, const v1::ExecRequest& request,
           const v1::ExecResponse& response) {
  context.io.out << response.out() << std::flush;
  context.io.err << response.err() << std::flush;
  if (!context.io.out.good()) {
    context.Complain("could not write the command's output");
    return kExitHatcheryFailed;
  }
  auto truncated = [&](const char* name, const std::string& kept) {
    context.Complain(std::string(name) + " was cut off after " + ToString(Bytes(kept.size())) +
                     "; let the command write to a file in the VM instead");
  };
  if (response.out_truncated()) truncated("stdout", response.out());
  if (response.err_truncated()) truncated("stderr", response.err());
  if (response.timed_out()) {
    context.Complain(
        "the command did not end " +
        (request.has_timeout()
             ? "within " + ToString(nanoseconds(TimeUtil::DurationToNanoseconds(request.timeout())))
             : std::string("in time")) +
        " and was killed");
  }
  return ExitCodeOf(response);
}

}  // namespace hatchery::cli
