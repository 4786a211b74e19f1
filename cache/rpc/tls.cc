#include "cache/rpc/tls.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/files.h"

namespace hatchery::cache::rpc {

namespace {

constexpr Bytes kMaxPem = Bytes::MiB(1);

using Bio = std::unique_ptr<BIO, decltype([](BIO* bio) { ::BIO_free(bio); })>;
using Certificate = std::unique_ptr<X509, decltype([](X509* x509) { ::X509_free(x509); })>;
using Key = std::unique_ptr<EVP_PKEY, decltype([](EVP_PKEY* key) { ::EVP_PKEY_free(key); })>;

Bio Memory(const std::string& text) {
  return Bio(::BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}
Certificate FirstCertificate(const std::string& pem) {
  return Certificate(::PEM_read_bio_X509(Memory(pem).get(), nullptr, nullptr, nullptr));
}
// A key that is encrypted must not make us ask for its password on a terminal.
int NoPassword(char*, int, int, void*) { return -1; }

std::unexpected<Error> Bad(const char* setting, const std::filesystem::path& file,
                           const std::string& why) {
  return MakeError(Code::kInvalidArgument, std::string(setting) + ": " + file.string() + " " + why);
}

Result<std::string> ReadPem(const char* setting, const std::filesystem::path& file) {
  auto text = ReadFile(file, kMaxPem);
  if (!text) return Annotate(text.error(), setting);
  return *std::move(text);
}

}  // namespace

Result<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsOptions& options) {
  ASSIGN_OR_RETURN(std::string certificate, ReadPem("tls.certificate", options.certificate));
  ASSIGN_OR_RETURN(std::string key, ReadPem("tls.key", options.key));
  ASSIGN_OR_RETURN(std::string client_ca, ReadPem("tls.client_ca", options.client_ca));

  // gRPC would say only that it could not start.
  const Certificate own = FirstCertificate(certificate);
  if (!own) return Bad("tls.certificate", options.certificate, "holds no certificate in PEM");
  const Key own_key(::PEM_read_bio_PrivateKey(Memory(key).get(), nullptr, NoPassword, nullptr));
  if (!own_key) {
    return Bad("tls.key", options.key, "holds no private key in PEM that needs no password");
  }
  if (::X509_check_private_key(own.get(), own_key.get()) != 1) {
    return Bad("tls.key", options.key,
               "is not the key of the certificate in " + options.certificate.string());
  }
  if (!FirstCertificate(client_ca)) {
    return Bad("tls.client_ca", options.client_ca, "holds no certificate in PEM");
  }

  grpc::SslServerCredentialsOptions ssl(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  ssl.pem_root_certs = std::move(client_ca);
  ssl.pem_key_cert_pairs.push_back({std::move(key), std::move(certificate)});
  return grpc::SslServerCredentials(ssl);
}

}  // namespace hatchery::cache::rpc
