// Calls to the daemon: where it is, how long a call may take, and errors that say what to do.
#pragma once

#include <grpcpp/grpcpp.h>
#include <hatchery/v1/cache.grpc.pb.h>
#include <hatchery/v1/factory.grpc.pb.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "cmd/hatchery/interrupt.h"

namespace hatchery::cli {

inline constexpr std::string_view kDefaultEndpoint = "unix:///var/lib/hatchery/hatchery.sock";
// For calls that read what is there. Calls that do work have no limit but the user's.
inline constexpr std::chrono::seconds kQueryTimeout{30};

// Where a daemon is: on this host behind a unix socket, or elsewhere behind mutual TLS.
struct Target {
  std::filesystem::path socket;  // absolute; empty: over TCP
  std::string address;           // "HOST:PORT", over TCP
  // Over TCP, in PEM: who has signed the daemon's certificate; our own certificate and its key.
  std::string ca, certificate, key;

  // For messages: the socket's path, or "tcp://HOST:PORT".
  std::string Name() const;
};

// The files of --tls-ca, --tls-cert and --tls-key; empty where not given.
struct TlsFiles {
  std::string ca, certificate, key;
};

// From "unix:///PATH", "unix:PATH" or a bare path, and from "tcp://HOST:PORT", for which it reads
// `files`. kInvalidArgument names the option for anything else, for a path longer than a unix
// socket's 107 bytes, and for files that are missing or cannot be read.
Result<Target> ParseEndpoint(std::string_view text, const TlsFiles& files = {});

// The error of a call that ended with `status`, made for people. `limit` is the call's time limit.
// Looks at the socket if the daemon could not be reached, to say why. Says when to try again if the
// daemon did.
Error ToError(const grpc::Status& status, const Target& target,
              std::optional<std::chrono::nanoseconds> limit);

struct CallOptions {
  std::optional<std::chrono::nanoseconds> timeout = {};  // none: as long as it takes
  bool interruptible = true;                             // cancelled by an interrupt
};

// One connection. Calls block; one thread.
class Client {
 public:
  // `timeout` is the user's, and wins over that of CallOptions.
  Client(Target target, std::optional<std::chrono::nanoseconds> timeout, Interrupt& interrupt);

  v1::Cache::Stub& cache() { return *cache_; }
  v1::Factory::Stub& factory() { return *factory_; }

  // A unary call: client.Call(client.cache(), &v1::Cache::Stub::ListVms, request).
  template <class Stub, class Request, class Response>
  Result<Response> Call(Stub& stub,
                        grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                     Response*),
                        const Request& request, const CallOptions& options = {}) {
    Response response;
    RETURN_IF_ERROR(Run(options, [&](grpc::ClientContext& context) {
      return (stub.*method)(&context, request, &response);
    }));
    return response;
  }

  // A call that streams its progress and ends with its result; `each` sees every message.
  template <class Stub, class Request, class Response>
  Result<void> Stream(Stub& stub,
                      std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                          grpc::ClientContext*, const Request&),
                      const Request& request,
                      const std::function<void(const std::type_identity_t<Response>&)>& each,
                      const CallOptions& options = {}) {
    return StreamWhile(
        stub, method, request,
        [&](const Response& response) {
          each(response);
          return true;
        },
        options);
  }

  // A call that streams without end: cancelled, and kCancelled, when `each` says false.
  template <class Stub, class Request, class Response>
  Result<void> StreamWhile(Stub& stub,
                           std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(
                               grpc::ClientContext*, const Request&),
                           const Request& request,
                           const std::function<bool(const std::type_identity_t<Response>&)>& each,
                           const CallOptions& options = {}) {
    return Run(options, [&](grpc::ClientContext& context) {
      const auto reader = (stub.*method)(&context, request);
      bool wanted = true;
      for (Response response; reader->Read(&response);) {
        if (wanted && !each(response)) {
          wanted = false;
          context.TryCancel();
        }
      }
      return reader->Finish();
    });
  }

 private:
  Result<void> Run(const CallOptions& options,
                   const std::function<grpc::Status(grpc::ClientContext&)>& call);

  const Target target_;
  const std::optional<std::chrono::nanoseconds> timeout_;
  Interrupt& interrupt_;
  std::unique_ptr<v1::Cache::Stub> cache_;
  std::unique_ptr<v1::Factory::Stub> factory_;
};

}  // namespace hatchery::cli
