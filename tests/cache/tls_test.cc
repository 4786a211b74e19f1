// The service over TCP: with mutual TLS, and not otherwise.
#include "cache/rpc/tls.h"

#include "tests/cache/certificates.h"
#include "tests/cache/rpc_fixture.h"

namespace hatchery::cache::rpc {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class TlsTest : public RpcTest {
 protected:
  TlsOptions Options(const std::string& listen = "127.0.0.1:0") {
    return {listen, own_.certificate, own_.key, ca_.ca()};
  }
  void Listen(const Access::Lists& lists = {}) {
    Serve({.socket = Socket(), .access = Access::Create(lists, 0).value(), .tls = Options()});
    ASSERT_GT(server_->tcp_port(), 0);
  }
  std::string Address() const { return "127.0.0.1:" + std::to_string(server_->tcp_port()); }
  static std::string Text(const std::string& path) { return ReadFile(path).value(); }

  std::unique_ptr<api::Cache::Stub> StubFor(const TestCa::Pair& client) {
    return api::Cache::NewStub(grpc::CreateChannel(
        Address(),
        grpc::SslCredentials({Text(ca_.ca()), Text(client.key), Text(client.certificate)})));
  }
  grpc::Status List(const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
    api::ListVmsResponse all;
    return api::Cache::NewStub(grpc::CreateChannel(Address(), credentials))
        ->ListVms(Context().get(), {}, &all);
  }

  TestCa ca_;
  TestCa::Pair own_ = ca_.Issue("/CN=hatcheryd", "IP:127.0.0.1,DNS:localhost");
};

TEST_F(TlsTest, AClientIsTheTenantThatItsCertificateNames) {
  Listen({"*", "*", "tls:ops"});
  ASSERT_TRUE(InitFactory(0).ok());
  const auto ci = StubFor(ca_.Issue("/O=example/CN=ci", "DNS:ci.example.org"));
  api::AcquireResponse acquired;
  auto status = ci->Acquire(Context().get(), {}, &acquired);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(acquired.vm().tenant(), "tls:ci");

  api::ListVmsResponse all;
  const auto other = StubFor(ca_.Issue("/O=example", "DNS:other.example.org,DNS:x"));
  ASSERT_TRUE(other->ListVms(Context().get(), {}, &all).ok());
  EXPECT_EQ(all.vms_size(), 0);
  ASSERT_TRUE(other->Acquire(Context().get(), {}, &acquired).ok());
  EXPECT_EQ(acquired.vm().tenant(), "tls:other.example.org")
      << "no common name: the first DNS name";

  const auto ops = StubFor(ca_.Issue("/CN=ops", "DNS:x"));
  ASSERT_TRUE(ops->ListVms(Context().get(), {}, &all).ok());
  EXPECT_EQ(all.vms_size(), 2);
}

TEST_F(TlsTest, ThereIsNoProcessToBindALeaseTo) {
  Listen();
  ASSERT_TRUE(InitFactory(0).ok());
  api::AcquireRequest request;
  request.set_bind_to_caller(true);
  api::AcquireResponse acquired;
  const auto status =
      StubFor(ca_.Issue("/CN=ci", "DNS:ci"))->Acquire(Context().get(), request, &acquired);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << status.error_message();
}

TEST_F(TlsTest, ANameThatCannotBeATenantIsRefused) {
  Listen();
  for (const char* subject : {"/CN=a\\/b", "/CN=a,b"}) {
    api::ListVmsResponse all;
    const auto status = StubFor(ca_.Issue(subject, "DNS:fine"))->ListVms(Context().get(), {}, &all);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << subject;
    EXPECT_THAT(status.error_message(), HasSubstr("certificate"));
  }
}

TEST_F(TlsTest, WithoutTheRightCertificateNobodyIsServed) {
  Listen();
  const auto served = ca_.Issue("/CN=ci", "DNS:ci");
  const std::string root = Text(ca_.ca());
  EXPECT_TRUE(List(grpc::SslCredentials({root, Text(served.key), Text(served.certificate)})).ok());
  TestCa other;
  const auto foreign = other.Issue("/CN=ci", "DNS:ci");
  EXPECT_EQ(
      List(grpc::SslCredentials({root, Text(foreign.key), Text(foreign.certificate)})).error_code(),
      grpc::StatusCode::UNAVAILABLE)
      << "another CA's";
  EXPECT_EQ(List(grpc::SslCredentials({root, "", ""})).error_code(), grpc::StatusCode::UNAVAILABLE)
      << "none at all";
  EXPECT_EQ(List(grpc::InsecureChannelCredentials()).error_code(), grpc::StatusCode::UNAVAILABLE)
      << "no TLS";
}

TEST_F(TlsTest, FilesThatCannotBeAreNamedWithTheirSetting) {
  const std::string junk = ca_.Path("junk");
  ASSERT_TRUE(WriteFileAtomically(junk, "no PEM").has_value());
  const auto another = ca_.Issue("/CN=x", "DNS:x");
  const struct {
    std::function<void(TlsOptions&)> spoil;
    std::string setting, file;
  } kCases[] = {
      {[](auto& o) { o.certificate = "/no/such.pem"; }, "tls.certificate: ", "/no/such.pem"},
      {[](auto& o) { o.key = "/no/such.key"; }, "tls.key: ", "/no/such.key"},
      {[](auto& o) { o.client_ca = "/no/such.ca"; }, "tls.client_ca: ", "/no/such.ca"},
      {[&](auto& o) { o.certificate = junk; }, "tls.certificate: ", junk},
      {[&](auto& o) { o.key = junk; }, "tls.key: ", junk},
      {[&](auto& o) { o.client_ca = junk; }, "tls.client_ca: ", junk},
      {[&](auto& o) { o.key = another.key; }, "tls.key: ", another.key},
  };
  for (const auto& c : kCases) {
    auto options = Options();
    c.spoil(options);
    const auto made = MakeServerCredentials(options);
    ASSERT_FALSE(made.has_value()) << c.setting << c.file;
    EXPECT_THAT(made.error().message, AllOf(testing::StartsWith(c.setting), HasSubstr(c.file)));
  }
}

TEST_F(TlsTest, APortThatIsTakenIsNamed) {
  Listen();
  const auto taken = Address();
  auto start = [&]() -> Task<std::unique_ptr<Server>> {
    co_return Server::Start(outside_.io.get_executor(), cache(), {},
                            {.socket = outside_.dir.path() / "other.sock", .tls = Options(taken)});
  };
  auto second = OnLoop(start());
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message, AllOf(HasSubstr("tls.listen"), HasSubstr(taken)));
}

}  // namespace
}  // namespace hatchery::cache::rpc
