#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/files.h"
#include "cmd/hatchery/client.h"
#include "cmd/hatchery/json_output.h"
#include "cmd/hatchery/progress.h"
#include "cmd/hatchery/requests.h"
#include "cmd/hatchery/table.h"
#include "cmd/hatchery/text_output.h"
#include "hatchery/v1/errors.pb.h"

namespace hatchery::cli {
namespace {

TEST(Table, AlignsAndMarksWhatIsEmpty) {
  Table table({{"NAME"}, {"N", Align::kRight}, {"X"}});
  table.Add({"a", "1", ""});
  table.Add({"längster", "1000", "y"});
  EXPECT_EQ(table.Render(),
            "NAME         N  X\n"
            "a            1  -\n"
            "längster  1000  y\n");
}

TEST(Table, KeepsControlCharactersFromTheTerminal) {
  EXPECT_EQ(Printable("a\033[2Jb\tc\nd\x7f"), "a?[2Jb\tc\nd?");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "2J \xc3\xa4"),
            "?2J \xc3\xa4");
  Table table({{"A"}});
  table.Add({"two\nlines"});
  EXPECT_EQ(table.Render(), "A\ntwo lines\n");
}

TEST(Fields, LeavesOutWhatHasNoValue) {
  EXPECT_EQ(RenderFields({{"vm", "vm-1"}, {"lease", ""}, {"memory", "1 GiB"}}),
            "vm:     vm-1\nmemory: 1 GiB\n");
}

TEST(Pools, SayWhoMadeThem) {
  google::protobuf::RepeatedPtrField<v1::Pool> pools;
  pools.Add()->set_vcpus(1);
  pools.Add()->set_learned(true);
  const std::string table = PoolTable(pools);
  EXPECT_LT(table.find("operator"), table.find("demand"));
  EXPECT_NE(table.find("demand"), std::string::npos);
  EXPECT_EQ(ToJson(pools[0])["learned"], false);
  EXPECT_EQ(ToJson(pools[1])["learned"], true);
}

TEST(Vm, SaysItsVsockContextIdIfItHasOne) {
  v1::GetVmResponse response;
  EXPECT_EQ(ToText(response, {}).find("vsock"), std::string::npos);
  EXPECT_EQ(ToJson(response.vm())["vsock_cid"], 0);
  response.mutable_vm()->set_vsock_cid(4711);
  EXPECT_THAT(ToText(response, {}), testing::ContainsRegex("vsock cid: +4711\n"));
  EXPECT_EQ(ToJson(response.vm())["vsock_cid"], 4711);
}

TEST(Vms, SayWhatWasNotRenewed) {
  v1::AcquireResponse response;
  EXPECT_EQ(ToText(response, {}).find("not renewed"), std::string::npos);
  EXPECT_EQ(ToJson(response)["not_renewed"], Json::array());
  response.mutable_vm()->add_not_renewed("hostname");
  response.mutable_vm()->add_not_renewed("boot_id");
  EXPECT_THAT(ToText(response, {}), testing::HasSubstr("hostname, boot_id (the guest's agent is "));
  EXPECT_EQ(ToJson(response)["not_renewed"], Json::array({"hostname", "boot_id"}));
}

TEST(Status, SaysWhatMemoryAndTenantsTake) {
  v1::StatusResponse status;
  EXPECT_EQ(ToText(status, {}).find("memory"), std::string::npos);
  EXPECT_TRUE(ToJson(status)["memory"].is_null());
  status.mutable_memory()->set_total_bytes(24ull << 30);
  status.mutable_memory()->set_available_bytes(10ull << 30);
  status.mutable_memory()->set_reserve_bytes(512 << 20);
  status.mutable_memory()->set_growth_bytes(3ull << 30);
  status.add_templates();
  auto& tenant = *status.add_tenants();
  tenant.set_name("uid:7");
  tenant.set_leases(3);
  tenant.set_max_leases(10);
  tenant.set_vcpus(6);
  status.set_waiting_acquires(5);
  const std::string text = ToText(status, {});
  EXPECT_THAT(text, testing::HasSubstr("10 GiB of 24 GiB available, 512 MiB kept for the host"));
  EXPECT_THAT(text, testing::HasSubstr("acquires waiting: 5"));
  EXPECT_THAT(text, testing::ContainsRegex("uid:7 +3 of 10 +6 "));
  const Json json = ToJson(status);
  EXPECT_EQ(json["memory"]["growth_bytes"], 3ull << 30);
  EXPECT_EQ(json["tenants"][0]["max_leases"], 10);
  EXPECT_EQ(json["waiting_acquires"], 5);
}

TEST(Errors, SayWhenToTryAgain) {
  v1::RetryInfoDetail retry;
  retry.mutable_retry_delay()->set_nanos(250'000'000);
  v1::ErrorStatus details;
  details.add_details()->set_type_url("type.googleapis.com/google.rpc.BadRequest");
  auto* any = details.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any->set_value(retry.SerializeAsString());
  const grpc::Status full(grpc::StatusCode::RESOURCE_EXHAUSTED, "full",
                          details.SerializeAsString());
  const Error error = ToError(full, {.socket = "/none"}, std::nullopt);
  EXPECT_EQ(error.message, "full; try again in 250ms");
  EXPECT_EQ(error.retry_after, std::chrono::milliseconds(250));
  const grpc::Status broken(grpc::StatusCode::RESOURCE_EXHAUSTED, "full", "\xff garbage");
  EXPECT_EQ(ToError(broken, {.socket = "/none"}, std::nullopt).message, "full");
}

v1::Progress Bytes64(std::uint64_t done) {
  v1::Progress progress;
  progress.set_step("reading");
  progress.set_done(done << 20);
  progress.set_total(64 << 20);
  progress.set_unit("bytes");
  return progress;
}

TEST(Progress, RewritesOneLineOnATerminal) {
  std::ostringstream out;
  {
    ProgressPrinter printer(out, /*terminal=*/true);
    printer.Show(Bytes64(16));
    printer.Show(Bytes64(16));
    printer.Show(Bytes64(17));
  }
  EXPECT_EQ(out.str(),
            "\r\033[Kreading: 16 MiB of 64 MiB\r\033[Kreading: 17 MiB of 64 MiB\r\033[K");
}

TEST(Progress, TellsBytesInQuartersElsewhere) {
  std::ostringstream out;
  {
    ProgressPrinter printer(out, /*terminal=*/false);
    for (std::uint64_t done = 0; done <= 64; ++done) printer.Show(Bytes64(done));
  }
  EXPECT_EQ(out.str(),
            "reading: 0 B of 64 MiB\nreading: 16 MiB of 64 MiB\nreading: 32 MiB of 64 MiB\n"
            "reading: 48 MiB of 64 MiB\nreading: 64 MiB of 64 MiB\n");
}

TEST(Endpoint, MayBeWrittenInThreeWays) {
  for (const char* text : {"unix:///run/h.sock", "unix:/run/h.sock", "/run/h.sock"}) {
    EXPECT_EQ(ParseEndpoint(text).value_or(Target()).socket, "/run/h.sock") << text;
  }
  EXPECT_EQ(ParseEndpoint("h.sock").value_or(Target()).socket,
            std::filesystem::current_path() / "h.sock");
}

TEST(Endpoint, RefusesWhatIsNoUnixSocket) {
  for (const std::string& text : {std::string(), std::string("unix:"), std::string("localhost:1"),
                                  std::string("http://x/y"), "/" + std::string(107, 'x')}) {
    EXPECT_FALSE(ParseEndpoint(text).has_value()) << text;
  }
}

TEST(Endpoint, OverTcpNeedsThreeFilesThatAreThere) {
  const TempDir dir = TempDir::Create("/tmp", "hatchery-cli-").value();
  const std::string pem = dir.path() / "some.pem";
  ASSERT_TRUE(WriteFileAtomically(pem, "PEM").has_value());
  const auto target = ParseEndpoint("tcp://host.example.org:7443", {pem, pem, pem});
  ASSERT_TRUE(target.has_value()) << ToString(target.error());
  EXPECT_EQ(target->address, "host.example.org:7443");
  EXPECT_EQ(target->key, "PEM");
  EXPECT_EQ(target->Name(), "tcp://host.example.org:7443");

  const std::pair<TlsFiles, std::string> kMissing[] = {
      {{}, "--tls-ca"}, {{pem, "", pem}, "--tls-cert"}, {{pem, pem, "/no/such.key"}, "--tls-key"}};
  for (const auto& [files, option] : kMissing) {
    const auto refused = ParseEndpoint("tcp://h:1", files);
    ASSERT_FALSE(refused.has_value()) << option;
    EXPECT_EQ(refused.error().field, option) << refused.error().message;
  }
  for (const char* text : {"tcp://", "tcp://h", "tcp://:1", "tcp://h:", "tcp://h:1/x"}) {
    EXPECT_FALSE(ParseEndpoint(text, {pem, pem, pem}).has_value()) << text;
  }
}

TEST(Requests, LeaveWhatWasNotGivenToTheServer) {
  const auto acquire = ToRequest(AcquireOptions{});
  ASSERT_TRUE(acquire.has_value());
  EXPECT_FALSE(acquire->has_vcpus());
  EXPECT_FALSE(acquire->has_memory_bytes());
  const auto spec = ToRequest(SpecOptions{.name = "x", .memory = "512M", .boot_timeout = "90s"});
  ASSERT_TRUE(spec.has_value());
  EXPECT_EQ(spec->memory_bytes(), 512u << 20);
  EXPECT_EQ(spec->boot_timeout().seconds(), 90);
  EXPECT_FALSE(spec->has_max_memory_bytes());
  EXPECT_EQ(spec->kernel(), "");
}

TEST(Requests, NameTheOptionThatIsWrong) {
  EXPECT_EQ(ToRequest(SpecOptions{.max_memory = "x"}).error().field, "--max-memory");
  EXPECT_EQ(ToRequest(SpecOptions{.boot_timeout = "5"}).error().field, "--boot-timeout");
  EXPECT_EQ(ToRequest(PoolOptions{.shape = {.memory = "x"}}).error().field, "--memory");
  EXPECT_EQ(ToRequest(ExecOptions{.command = {"a"}, .env = {"=v"}}, "").error().field, "--env");
}

TEST(ExitCode, IsTheCommandsOwn) {
  v1::ExecResponse response;
  EXPECT_EQ(ExitCodeOf(response), 125);
  response.set_exit_code(3);
  EXPECT_EQ(ExitCodeOf(response), 3);
  response.set_exit_code(0);
  EXPECT_EQ(ExitCodeOf(response), 0);
  response.set_signal(9);
  EXPECT_EQ(ExitCodeOf(response), 137);
  response.set_timed_out(true);
  EXPECT_EQ(ExitCodeOf(response), 124);
}

}  // namespace
}  // namespace hatchery::cli
