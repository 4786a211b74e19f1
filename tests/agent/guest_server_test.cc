#include <fcntl.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <random>

#include "tests/agent/guest_harness.h"

namespace hatchery::agent::guest {
namespace {

class ServerTest : public GuestTest {
 protected:
  static std::string Word() {
    v1::ExecRequest request;
    request.add_argv("true");
    return request.SerializeAsString();
  }
};

TEST_F(ServerTest, AnswersHealth) {
  TestClient client = Connect();
  EXPECT_TRUE(client.Check().has_value());
  const auto version =
      client.Ask<grpc::VersionCheckResponse>("grpc.Health", "Version", grpc::CheckRequest());
  EXPECT_EQ(version->grpc_version(), "hatchery.agent.v1");
  EXPECT_EQ(version->agent_version(), HATCHERY_VERSION);
}

TEST_F(ServerTest, RefusesUnknownMethodsAndServices) {
  TestClient client = Connect();
  EXPECT_EQ(client.Call("grpc.Health", "Wealth", "").error().code, Code::kUnimplemented);
  EXPECT_EQ(client.Call("", "", "").error().code, Code::kUnimplemented);
  EXPECT_EQ(client.Call("grpc", "Health/Check", "").error().code, Code::kUnimplemented);
  EXPECT_TRUE(client.Check().has_value());
}

TEST_F(ServerTest, RefusesAPayloadThatDoesNotParse) {
  TestClient client = Connect();
  for (const char* method : {"Personalize", "Exec"}) {
    EXPECT_EQ(client.Call(kGuest, method, "\xff\xff\xff").error().code, Code::kInvalidArgument);
  }
  EXPECT_TRUE(client.Check().has_value());
}

TEST_F(ServerTest, RefusesAnEnvelopeThatDoesNotParse) {
  TestClient client = Connect();
  client.SendBytes(ttrpc::EncodeFrame({.stream_id = 77, .data = "\x0a\xff"}).value());
  EXPECT_EQ(client.AnswerTo(77).error().code, Code::kInvalidArgument);
  client.SendBytes(ttrpc::EncodeRequest(78, "grpc.Health", "Check", "", {}).value());
  EXPECT_EQ(client.AnswerTo(78).error().code, Code::kInvalidArgument) << "an even stream id";
  EXPECT_TRUE(client.Check().has_value());
}

TEST_F(ServerTest, TakesRequestsByteByByte) {
  TestClient client = Connect();
  const std::string bytes = ttrpc::EncodeRequest(5, "grpc.Health", "Check", "", {}).value();
  for (const char byte : bytes) client.SendBytes({&byte, 1});
  EXPECT_TRUE(client.AnswerTo(5).has_value());
}

TEST_F(ServerTest, AnswersManyRequestsOfOneWrite) {
  TestClient client = Connect();
  std::string bytes;
  for (std::uint32_t id = 1; id < 2000; id += 2) {
    bytes += ttrpc::EncodeRequest(id, "grpc.Health", "Check", "", {}).value();
  }
  client.SendBytes(bytes);
  for (std::uint32_t id = 1; id < 2000; id += 2) {
    const auto frame = client.Receive();
    ASSERT_TRUE(frame.has_value());
    EXPECT_EQ(frame->stream_id, id);
  }
}

TEST_F(ServerTest, ClosesASocketThatCarriesGarbageAndServesOthers) {
  TestClient bad = Connect(), good = Connect();
  std::mt19937 random(7);
  std::string noise(4096, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  noise[0] = '\x7f';
  bad.SendBytes(noise);
  EXPECT_FALSE(bad.Receive().has_value());
  EXPECT_TRUE(good.Check().has_value());
}

TEST_F(ServerTest, IgnoresFramesThatAreNoRequests) {
  TestClient client = Connect();
  client.SendBytes(ttrpc::EncodeFrame({.stream_id = 1, .type = ttrpc::MessageType::kData}).value());
  client.SendBytes(ttrpc::EncodeResponse(3, "x").value());
  EXPECT_TRUE(client.Check().has_value());
}

TEST_F(ServerTest, KeepsAnswersForAPeerThatReadsLate) {
  TestClient client = Connect();
  v1::ExecRequest request;
  for (const char* arg : {"head", "-c", "1500000", "/dev/zero"}) request.add_argv(arg);
  request.set_output_limit(1'500'000);
  std::vector<std::uint32_t> ids;
  // More than the socket and the server's bound on unsent answers hold together.
  for (int i = 0; i < 12; ++i)
    ids.push_back(client.Send(kGuest, "Exec", request.SerializeAsString()));
  // By the time another connection has run a command, the answers wait, and this one is not read.
  TestClient other = Connect();
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(other.Call(kGuest, "Exec", Word()).has_value());
  ids.push_back(client.Send("grpc.Health", "Check", ""));
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto frame = client.Receive();
    ASSERT_TRUE(frame.has_value());
    bytes += frame->data.size();
  }
  EXPECT_GE(bytes, 12u * 1'500'000);
  EXPECT_TRUE(client.Check().has_value());
}

TEST_F(ServerTest, TellsDetails) {
  guest_.Put("/etc/machine-id", "00112233445566778899aabbccddeeff\n");
  TestClient client = Connect();
  const auto details = client.Ask<v1::DetailsResponse>(kGuest, "Details", v1::DetailsRequest());
  EXPECT_EQ(details->hostname(), "fake");
  EXPECT_EQ(details->boot_id(), "template-boot-id");
  EXPECT_EQ(details->machine_id(), "00112233445566778899aabbccddeeff");
  EXPECT_EQ(details->online_vcpus(), 1u);
  EXPECT_EQ(details->online_memory_bytes(), 256u << 20);
  EXPECT_EQ(details->memory_block_bytes(), 128u << 20);
  EXPECT_GT(details->time_unix_ns(), 0);
}

TEST_F(ServerTest, PreparesForTheSave) {
  TestClient client = Connect();
  EXPECT_TRUE(client.Call(kGuest, "PrepareSave", "").has_value());
  EXPECT_THAT(guest_.Effects(),
              testing::IsSupersetOf({"sync", "/proc/sys/vm/drop_caches=3", "settle"}));
  guest_.Fail("/proc/sys/vm/drop_caches", Error{Code::kPermissionDenied, "read-only"});
  EXPECT_EQ(client.Call(kGuest, "PrepareSave", "").error().code, Code::kPermissionDenied);
}

TEST_F(ServerTest, RepliesBeforeItPowersOff) {
  TestClient client = Connect();
  EXPECT_TRUE(client.Call(kGuest, "PowerOff", "").has_value());
  guest_.powered_off.wait(false);
}

// A terminal behaves much as the port: it outlives those who open its other side.
class PortTest : public GuestTest {
 protected:
  void SetUp() override {
    UniqueFd port(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(port.valid() && ::grantpt(port.get()) == 0 && ::unlockpt(port.get()) == 0);
    termios raw{};
    ::tcgetattr(port.get(), &raw);
    ::cfmakeraw(&raw);
    ::tcsetattr(port.get(), TCSANOW, &raw);
    char name[64];
    ASSERT_EQ(::ptsname_r(port.get(), name, sizeof(name)), 0);
    host_side_ = name;
    port_ = Duplicate(port.get()).value();
    server_ = Server::Create(guest_, false).value();
    ASSERT_TRUE(server_->Serve(std::move(port), Connection::Kind::kPort).has_value());
    thread_ = std::thread([this] { server_->Run(); });
  }
  TestClient Open() {
    UniqueFd fd(::open(host_side_.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(fd.valid());
    return TestClient(std::move(fd));
  }
  // Sends to a loop that stands still, until all has arrived at its end; returns when the loop has
  // handled it: what arrived before a turn of the loop is handled in that turn or the one after.
  void SendAndSettle(TestClient& client, std::string_view bytes) {
    std::atomic<bool> holds = false, go_on = false;
    server_->Post([&] {
      holds = true;
      holds.notify_all();
      go_on.wait(false);
    });
    holds.wait(false);
    client.SendBytes(bytes);
    // Spins at most for as long as the kernel takes to move the bytes across.
    for (int waiting = 0; waiting < static_cast<int>(bytes.size());) {
      pollfd poll{.fd = port_.get(), .events = POLLIN};
      if (::poll(&poll, 1, 20'000) != 1 || ::ioctl(port_.get(), FIONREAD, &waiting) != 0) {
        ADD_FAILURE() << "the bytes did not arrive";
        break;
      }
    }
    go_on = true;
    go_on.notify_all();
    LetTheLoopTurn();
  }
  void LetTheLoopTurn() {
    for (int i = 0; i < 3; ++i) {
      std::atomic<bool> done = false;
      server_->Post([&done] {
        done = true;
        done.notify_all();
      });
      done.wait(false);
    }
  }

  UniqueFd port_;  // of the same terminal as the server's
  std::string host_side_;
};

TEST_F(PortTest, ServesOneHostAfterAnother) {
  for (int i = 0; i < 20; ++i) {
    TestClient client = Open();
    ASSERT_TRUE(client.Check().has_value()) << i;
  }
}

TEST_F(PortTest, ForgetsHalfAFrameWhenTheHostLeaves) {
  TestClient first = Open();
  ASSERT_TRUE(first.Check().has_value());
  SendAndSettle(first, std::string_view("\0\0\0\x10\0", 5));
  first.Close();
  LetTheLoopTurn();
  EXPECT_TRUE(Open().Check().has_value());
}

TEST_F(PortTest, IsDeafAfterGarbageUntilTheHostReconnects) {
  TestClient first = Open();
  ASSERT_TRUE(first.Check().has_value());
  SendAndSettle(first, std::string(64, '\xff'));
  SendAndSettle(first, ttrpc::EncodeRequest(99, "grpc.Health", "Check", "", {}).value());
  first.Close();
  LetTheLoopTurn();
  TestClient second = Open();
  const std::uint32_t id = second.Send("grpc.Health", "Check", "");
  const auto frame = second.Receive();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->stream_id, id) << "nothing was answered before";
}

TEST_F(PortTest, ANewHostDoesNotGetAnAnswerToTheOldOne) {
  TestClient first = Open();
  v1::PersonalizeRequest request;
  request.set_seed(std::string(32, 's'));
  request.set_time_unix_ns(1);
  request.set_vcpus(2);
  request.set_timeout_ms(60'000);
  SendAndSettle(
      first,
      ttrpc::EncodeRequest(99, kGuest, "Personalize", request.SerializeAsString(), {}).value());
  first.Close();
  LetTheLoopTurn();
  TestClient second = Open();
  ASSERT_TRUE(second.Check().has_value());
  guest_.AddCpu(1, "0");
  Announce("cpu");
  LetTheLoopTurn();
  // Done by the worker after the CPU, so answered after what the old host asked for.
  const std::uint32_t id = second.Send(kGuest, "PrepareSave", "");
  const auto frame = second.Receive();
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->stream_id, id);
  EXPECT_FALSE(second.Receive(0).has_value());
}

TEST(FindPort, GoesByName) {
  auto dir = TempDir::Create(fs::temp_directory_path(), "guest-test-").value();
  FakeGuest guest(dir.path());
  EXPECT_EQ(FindPort(guest, kPortName).error().code, Code::kNotFound);
  guest.Put("/sys/class/virtio-ports/vport1p1/name", "org.qemu.guest_agent.0\n");
  guest.Put("/sys/class/virtio-ports/vport1p2/name", "org.hatchery.agent.0\n");
  EXPECT_EQ(FindPort(guest, kPortName).value(), "/dev/vport1p2");
}

TEST(Uevent, IsReadFromTheKernelsMessage) {
  constexpr std::string_view kMessage(
      "add@/devices/system/cpu/cpu1\0ACTION=add\0DEVPATH=/devices/system/cpu/cpu1\0"
      "SUBSYSTEM=cpu\0SEQNUM=1234\0",
      100);
  EXPECT_EQ(ParseUevent(kMessage), (Uevent{"add", "cpu"}));
  EXPECT_EQ(ParseUevent(""), Uevent{});
  EXPECT_EQ(ParseUevent("garbage"), Uevent{});
}

}  // namespace
}  // namespace hatchery::agent::guest
