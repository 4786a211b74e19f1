#include "cmd/hatchery/client.h"

#include <google/protobuf/util/time_util.h>

#include "base/duration.h"
#include "base/fd.h"
#include "base/files.h"
#include "hatchery/v1/errors.pb.h"

namespace hatchery::cli {

namespace {

// Two outputs of 1 MiB each fit easily; a guest that floods does not reach it, the server caps.
constexpr int kMaxMessage = 64 << 20;

std::string Hint(const fs::path& socket) {
  return "start it with `hatcheryd --state-dir " + socket.parent_path().string() +
         "`, or name another with --endpoint or HATCHERY_ENDPOINT";
}

// Whether a message is in gRPC's own words; the daemon's may speak of a VM's connections.
bool IsFromGrpc(const std::string& message) {
  bool from_grpc = message.empty();
  for (const char* words : {"Socket closed", "failed to connect to", "recvmsg:", "sendmsg:",
                            "Connection reset by peer", "Broken pipe", "GOAWAY"}) {
    from_grpc |= message.starts_with(words);
  }
  return from_grpc;
}

// Why nobody answers at `socket`.
std::string Unreachable(const fs::path& socket, const std::string& server_message) {
  const auto connection = ConnectUnix(socket);
  if (connection) {
    // The daemon lives: either it said why itself, or it went away in the middle.
    return IsFromGrpc(server_message)
               ? "the daemon at " + socket.string() + " closed the connection; see its log"
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

// The google.rpc.RetryInfo among the details; 0 if there is none.
std::chrono::milliseconds RetryAfter(const grpc::Status& status) {
  v1::ErrorStatus details;
  if (!details.ParseFromString(status.error_details())) return {};
  for (const auto& any : details.details()) {
    v1::RetryInfoDetail retry;
    if (!any.type_url().ends_with("/google.rpc.RetryInfo")) continue;
    if (!retry.ParseFromString(any.value())) continue;
    return std::chrono::milliseconds(
        google::protobuf::util::TimeUtil::DurationToMilliseconds(retry.retry_delay()));
  }
  return {};
}

// Why a call over TCP got no answer. Of what went wrong with TLS each side knows only its own half.
std::string UnreachableOverTcp(const Target& target, const std::string& message) {
  if (!IsFromGrpc(message)) return message;
  const auto says = [&](std::string_view words) { return message.contains(words); };
  const std::string name = target.Name();
  if (says("Connection refused")) {
    return "nobody listens at " + name + ": is hatcheryd running there, with [tls] listen?";
  }
  if (says("certificate verify failed") || says("CERTIFICATE_VERIFY_FAILED") ||
      says("not in peer certificate") || says("Hostname Verification")) {
    return "the certificate of the daemon at " + name +
           " is not signed by --tls-ca, has expired, or is for another name";
  }
  const bool closed = says("handshake") || says("Socket closed") || says("Connection reset");
  if (says("failed to connect to") && !closed) {
    return "cannot reach " + name + ": " + message;
  }
  return "the daemon at " + name +
         " closed the connection: either it ended, or it does not accept the certificate of "
         "--tls-cert, which its [tls] client_ca must have signed";
}

Result<std::string> ReadPem(const char* option, const std::string& file) {
  if (file.empty()) {
    return InvalidArgument(option,
                           "is needed for tcp://, where only mutual TLS is spoken: give --tls-ca, "
                           "--tls-cert and --tls-key, or HATCHERY_TLS_CA, HATCHERY_TLS_CERT and "
                           "HATCHERY_TLS_KEY");
  }
  auto text = ReadFile(file, Bytes::MiB(1));
  if (!text) return InvalidArgument(option, text.error().message);
  return *std::move(text);
}

Result<Target> ParseTcp(std::string_view address, const TlsFiles& files) {
  const auto colon = address.rfind(':');
  const bool is_address = colon != std::string_view::npos && colon > 0 &&
                          colon + 1 < address.size() && !address.contains('/');
  if (!is_address) {
    return InvalidArgument("--endpoint", "'tcp://" + std::string(address) +
                                             "' has no host and port; write tcp://HOST:PORT");
  }
  Target target;
  target.address = address;
  ASSIGN_OR_RETURN(target.ca, ReadPem("--tls-ca", files.ca));
  ASSIGN_OR_RETURN(target.certificate, ReadPem("--tls-cert", files.certificate));
  ASSIGN_OR_RETURN(target.key, ReadPem("--tls-key", files.key));
  return target;
}

std::shared_ptr<grpc::Channel> OpenChannel(const Target& target) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessage);
  // A unix socket needs no proxy, and gRPC would ask the environment for one.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!target.socket.empty()) {
    return grpc::CreateCustomChannel("unix:" + target.socket.string(),
                                     grpc::InsecureChannelCredentials(), arguments);
  }
  return grpc::CreateCustomChannel(
      target.address, grpc::SslCredentials({target.ca, target.key, target.certificate}), arguments);
}

}  // namespace

std::string Target::Name() const { return socket.empty() ? "tcp://" + address : socket.string(); }

Result<Target> ParseEndpoint(std::string_view text, const TlsFiles& files) {
  constexpr std::string_view kTcp = "tcp://";
  if (text.starts_with(kTcp)) return ParseTcp(text.substr(kTcp.size()), files);
  std::string path(text);
  const bool scheme = path.starts_with("unix:");
  if (scheme) path.erase(0, 5);
  if (scheme && path.starts_with("//")) path.erase(0, 2);
  const bool looks_like_tcp =
      !scheme && (path.contains("://") || (path.contains(':') && !path.contains('/')));
  if (path.empty() || looks_like_tcp) {
    return InvalidArgument("--endpoint", "'" + std::string(text) +
                                             "' is no endpoint; write unix:///PATH or a path, or "
                                             "tcp://HOST:PORT");
  }
  const fs::path absolute = fs::absolute(path).lexically_normal();
  if (absolute.string().size() > 107) {
    return InvalidArgument("--endpoint", "the path " + absolute.string() +
                                             " is longer than the 107 bytes of a unix socket's");
  }
  Target target;
  target.socket = absolute;
  return target;
}

Error ToError(const grpc::Status& status, const Target& target,
              std::optional<std::chrono::nanoseconds> limit) {
  Error error{static_cast<Code>(status.error_code()), status.error_message()};
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      error.message = target.socket.empty() ? UnreachableOverTcp(target, error.message)
                                            : Unreachable(target.socket, error.message);
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      // gRPC's own text; the server's says what took so long.
      if (limit && error.message == "Deadline Exceeded") {
        error.message = "no answer within " + ToString(*limit) + "; give it longer with --timeout";
      }
      break;
    case grpc::StatusCode::UNIMPLEMENTED:
      error.message = "the daemon at " + target.Name() +
                      " cannot do this; is it of the same version? (" + error.message + ")";
      break;
    default: break;
  }
  if (error.message.empty()) {
    error.message = "the daemon said only " + std::string(CodeName(error.code));
  }
  error.retry_after = RetryAfter(status);
  if (error.retry_after.count() > 0) {
    error.message += "; try again in " + ToString(std::chrono::nanoseconds(error.retry_after));
  }
  return error;
}

Client::Client(Target target, std::optional<std::chrono::nanoseconds> timeout, Interrupt& interrupt)
    : target_(std::move(target)), timeout_(timeout), interrupt_(interrupt) {
  const auto channel = OpenChannel(target_);
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
  return std::unexpected(ToError(status, target_, limit));
}

}  // namespace hatchery::cli
