// What the service needs to be reached over TCP: mutual TLS, or nothing.
#pragma once

#include <grpcpp/security/server_credentials.h>

#include <filesystem>
#include <memory>
#include <string>

#include "base/status.h"

namespace hatchery::cache::rpc {

struct TlsOptions {
  std::string listen;  // "HOST:PORT"; port 0: one that is free
  // PEM files. Read once: new ones need a restart.
  std::filesystem::path certificate;  // the daemon's own, and those between it and its CA
  std::filesystem::path key;
  std::filesystem::path client_ca;  // whoever it has signed for may connect
};

// Credentials that make gRPC ask each client for a certificate, verify it against `client_ca`, and
// talk to nobody else. Reads and checks the files: the error names the setting and the file.
Result<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsOptions& options);

}  // namespace hatchery::cache::rpc
