#include "cmd/hatchery/client.h"

#include "base/fd.h"
#include "cmd/duration.h"

namespace hatchery::cli {

namespace fs = std::filesystem;

namespace {

// Two outputs of 1 MiB each fit easily; a guest that floods does not reach it, the server caps.
constexpr int kMaxMessage = 64 << 20;

std::string Hint(const fs::path& socket) {
  return "start it with `hatcheryd --state-dir " + socket.parent_path().string() +
         "`, or name another with --endpoint or HATCHERY_ENDPOINT";
}

// Why nobody answers at `socket`.
std::string Unreachable(const fs::path& socket, const std::string& server_message) {
  const auto connection = ConnectUnix(socket);
  if (connection) {
    // The daemon lives: either it said why itself, or it went away in the middle.
    // The latter in gRPC's own words; the daemon's may speak of a VM's connections.
    bool from_grpc = server_message.empty();
    for (const char* words : {"Socket closed", "failed to connect to", "recvmsg:", "sendmsg:",
                              "Connection reset by peer", "Broken pipe", "GOAWAY"}) {
      from_grpc |= server_message.starts_with(words);
    }
    return from_grpc ? "the daemon at " + socket.string() + " closed the connection; see its log"
                     : server_message;
  }
  switch (connection.error().code) {
    case Code::kNotFound:
      return "there is no daemon at " + socket.string() + ": is hatcheryd running? " + Hint(socket);
    case Code::kPermissionDenied:
      return "no permission to use " + socket.string() +
             "; run as its owner, as a member of its group or as root";
    default:
      return "nobody answers at " + socket.string() + " (" + connection.error().message +
             "): is hatcheryd running? " + Hint(socket);
  }
}

}  // namespace

Result<fs::path> ParseEndpoint(std::string_view text) {
  std::string path(text);
  const bool scheme = path.starts_with("unix:");
  if (scheme) path.erase(0, 5);
  if (scheme && path.starts_with("//")) path.erase(0, 2);
  const bool looks_like_tcp =
      !scheme && (path.contains("://") || (path.contains(':') && !path.contains('/')));
  if (path.empty() || looks_like_tcp) {
    return InvalidArgument("--endpoint", "'" + std::string(text) +
                                             "' is no unix socket; write unix:///PATH or a path");
  }
  const fs::path absolute = fs::absolute(path).lexically_normal();
  if (absolute.string().size() > 107) {
    return InvalidArgument("--endpoint", "the path " + absolute.string() +
                                             " is longer than the 107 bytes of a unix socket's");
  }
  return absolute;
}

Error ToError(const grpc::Status& status, const fs::path& socket,
              std::optional<std::chrono::nanoseconds> limit) {
  Error error{static_cast<Code>(status.error_code()), status.error_message()};
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE: error.message = Unreachable(socket, error.message); break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      // gRPC's own text; the server's says what took so long.
      if (limit && error.message == "Deadline Exceeded") {
        error.message = "no answer within " + ToString(*limit) + "; give it longer with --timeout";
      }
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      error.message = "the daemon at " + socket.string() +
                      " cannot do this; is it of the same version? (" + error.message + ")";
      break;
    default: break;
  }
  if (error.message.empty()) {
    error.message = "the daemon said only " + std::string(CodeName(error.code));
  }
  return error;
}

Client::Client(fs::path socket, std::optional<std::chrono::nanoseconds> timeout,
               Interrupt& interrupt)
    : socket_(std::move(socket)), timeout_(timeout), interrupt_(interrupt) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessage);
  // A unix socket needs no proxy, and gRPC would ask the environment for one.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Another try on this host costs nothing, and a daemon that is restarted is back soon.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  const auto channel = grpc::CreateCustomChannel("unix:" + socket_.string(),
                                                 grpc::InsecureChannelCredentials(), arguments);
  cache_ = v1::Cache::NewStub(channel);
  factory_ = v1::Factory::NewStub(channel);
}

Result<void> Client::Run(const CallOptions& options,
                         const std::function<grpc::Status(grpc::ClientContext&)>& call) {
  grpc::ClientContext context;
  const auto limit = timeout_ ? timeout_ : options.timeout;
  if (limit) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::duration_cast<std::chrono::system_clock::duration>(*limit));
  }
  grpc::Status status;
  if (options.interruptible) {
    const Interrupt::Scope scope(interrupt_, [&context] { context.TryCancel(); });
    status = call(context);
  } else {
    status = call(context);
  }
  if (status.ok()) return {};
  if (options.interruptible && interrupt_.signal() != 0) return Cancelled("interrupted");
  return std::unexpected(ToError(status, socket_, limit));
}

}  // namespace hatchery::cli
