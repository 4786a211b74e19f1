#include "template/manifest.h"

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <random>

#include "base/sha256.h"
#include "hatchery/store/v1/template.pb.h"

namespace hatchery::tmpl {
namespace {

Manifest Example() {
  Manifest m;
  m.created = WallTime(std::chrono::seconds(1'700'000'000));
  m.shape = {.vcpus = 1, .max_vcpus = 8, .memory = Bytes::MiB(6), .max_memory = Bytes::GiB(8)};
  m.accelerator = hypervisor::Accelerator::kTcg;
  m.inputs = {{"kernel", std::string(64, 'a')}, {"kernel_params", "quiet"}, {"driver", "fake"}};
  m.fingerprint = {{"vmm.version", "QEMU 7.2.22"}, {"machine", "q35"}};
  m.agent_version = "0.1.0";
  m.memory_chunks = {Sha256Of("one"), "", Sha256Of("three")};
  m.state_size = Bytes(5);
  m.state_sha256 = Sha256Of("state");
  m.digest = ComputeDigest(m);
  return m;
}

// A manifest file around `payload`, with everything right but perhaps the payload.
std::string Frame(const std::string& payload) {
  std::string bytes("HATCHTPL\x01\0\0\0", 12);
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(payload.size() >> (8 * i)));
  bytes += payload;
  return bytes + Sha256Of(bytes);
}

void ExpectDataLoss(std::string_view bytes, std::string_view what) {
  auto decoded = DecodeManifest(bytes);
  ASSERT_FALSE(decoded.has_value()) << what;
  EXPECT_EQ(decoded.error().code, Code::kDataLoss) << what;
}

TEST(Manifest, ComesBackAsItWas) {
  const Manifest m = Example();
  auto back = DecodeManifest(EncodeManifest(m));
  ASSERT_TRUE(back.has_value()) << ToString(back.error());
  EXPECT_EQ(back->digest, m.digest);
  EXPECT_EQ(back->created, m.created);
  EXPECT_EQ(back->shape, m.shape);
  EXPECT_EQ(back->accelerator, m.accelerator);
  EXPECT_EQ(back->inputs, m.inputs);
  EXPECT_EQ(back->fingerprint, m.fingerprint);
  EXPECT_EQ(back->agent_version, m.agent_version);
  EXPECT_EQ(back->memory_chunks, m.memory_chunks);
  EXPECT_EQ(back->state_size, m.state_size);
  EXPECT_EQ(back->state_sha256, m.state_sha256);
}

TEST(Manifest, TakesWordsThatAreNotUtf8) {
  Manifest m = Example();
  m.agent_version = "\xff\xfe";
  m.inputs["kernel_params"] = "x=\xc3";
  m.digest = ComputeDigest(m);
  auto back = DecodeManifest(EncodeManifest(m));
  ASSERT_TRUE(back.has_value()) << ToString(back.error());
  EXPECT_EQ(back->agent_version, m.agent_version);
  EXPECT_EQ(back->inputs, m.inputs);
}

// The format on disk: a change of any of these breaks every template there is.
TEST(Manifest, HasTheHeaderAndDigestOfVersion1) {
  const std::string bytes = EncodeManifest(Example());
  EXPECT_EQ(ToHex(bytes.substr(0, 12)),
            "4841544348"
            "54504c"
            "01000000");
  const std::size_t payload = bytes.size() - 16 - 32;
  EXPECT_EQ(static_cast<unsigned char>(bytes[12]), payload & 255);
  EXPECT_EQ(static_cast<unsigned char>(bytes[13]), payload >> 8);
  EXPECT_EQ(ToHex(bytes.substr(14, 2)), "0000");
  EXPECT_EQ(Example().digest.str(),
            "7a8e9080c644180eae1381cf5e84beda3900c6788d8b6b7ed0da4f996385ba92");
}

TEST(Manifest, EveryTruncationIsRefused) {
  const std::string bytes = EncodeManifest(Example());
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    ExpectDataLoss(bytes.substr(0, length), "length " + std::to_string(length));
  }
  ExpectDataLoss(bytes + '\0', "one more");
}

TEST(Manifest, EveryBitFlipIsRefused) {
  const std::string good = EncodeManifest(Example());
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    ExpectDataLoss(bytes, "bit " + std::to_string(bit));
  }
}

TEST(Manifest, RandomBytesNeverCrashIt) {
  google::protobuf::LogSilencer quiet;  // it reports every text that is not UTF-8
  std::mt19937 random(4711);
  auto some_bytes = [&random] {
    std::string bytes(random() % 400, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    return bytes;
  };
  for (int i = 0; i < 20'000; ++i) {
    ExpectDataLoss(some_bytes(), "bare");
    ExpectDataLoss(Frame(some_bytes()), "framed");
  }
}

// With a right checksum around it, and even a right digest: what makes no sense stays refused.
TEST(Manifest, RefusesWhatIsNotSane) {
  auto refused = [](std::string_view what, auto change) {
    Manifest m = Example();
    change(m);
    m.digest = ComputeDigest(m);
    auto decoded = DecodeManifest(EncodeManifest(m));
    ASSERT_FALSE(decoded.has_value()) << what;
    EXPECT_EQ(decoded.error().code, Code::kDataLoss) << what;
    EXPECT_NE(decoded.error().message.find(what), std::string::npos) << decoded.error().message;
  };
  refused("memory chunks", [](Manifest& m) { m.memory_chunks.pop_back(); });
  refused("memory chunks", [](Manifest& m) { m.memory_chunks.emplace_back(); });
  refused("chunk's hash", [](Manifest& m) { m.memory_chunks[1] = "short"; });
  refused("memory 0 B", [](Manifest& m) { m.shape.memory = Bytes(); });
  refused("multiple", [](Manifest& m) { m.shape.memory = Bytes::MiB(5); });
  refused("at most", [](Manifest& m) { m.shape.max_memory = Bytes::MiB(4); });
  refused("at most", [](Manifest& m) { m.shape.max_memory = Bytes(~std::uint64_t{0}); });
  refused("vcpus", [](Manifest& m) { m.shape.vcpus = 0; });
  refused("vcpus", [](Manifest& m) { m.shape.vcpus = 9; });
  refused("vcpus", [](Manifest& m) { m.shape.max_vcpus = 100'000; });
  refused("accelerator", [](Manifest& m) { m.accelerator = hypervisor::Accelerator::kAuto; });
  refused("state_sha256", [](Manifest& m) { m.state_sha256.clear(); });
  refused("state_size", [](Manifest& m) { m.state_size = Bytes::GiB(1); });
}

TEST(Manifest, RefusesADigestThatIsNotTheContents) {
  Manifest m = Example();
  m.digest = TemplateDigest(std::string(64, '0'));
  ExpectDataLoss(EncodeManifest(m), "another digest");
  m.digest = TemplateDigest("../../etc/passwd");
  ExpectDataLoss(EncodeManifest(m), "a path");
}

TEST(Manifest, RefusesUnknownAccelerators) {
  store::v1::TemplateManifest message;
  message.set_accelerator("warp");
  ExpectDataLoss(Frame(message.SerializeAsString()), "warp");
  EXPECT_NE(DecodeManifest(Frame(message.SerializeAsString())).error().message.find("accelerator"),
            std::string::npos);
}

TEST(Manifest, TheDigestCoversEveryField) {
  const TemplateDigest before = Example().digest;
  auto differs = [&](auto change) {
    Manifest m = Example();
    change(m);
    EXPECT_NE(ComputeDigest(m), before);
  };
  differs([](Manifest& m) { m.created += std::chrono::nanoseconds(1); });
  differs([](Manifest& m) { m.shape.vcpus = 2; });
  differs([](Manifest& m) { m.shape.max_vcpus = 9; });
  differs([](Manifest& m) { m.shape.memory = Bytes::MiB(8); });
  differs([](Manifest& m) { m.shape.max_memory = Bytes::GiB(9); });
  differs([](Manifest& m) { m.accelerator = hypervisor::Accelerator::kKvm; });
  differs([](Manifest& m) { m.inputs["kernel_params"] = "loud"; });
  differs([](Manifest& m) { m.fingerprint["machine"] = "pc"; });
  differs([](Manifest& m) { m.agent_version = "0.2.0"; });
  differs([](Manifest& m) { m.memory_chunks[0].clear(); });
  differs([](Manifest& m) { m.state_size = Bytes(6); });
  differs([](Manifest& m) { m.state_sha256 = Sha256Of("other"); });
  // Moving a border between two fields moves the digest, too.
  differs([](Manifest& m) {
    m.fingerprint = m.inputs;
    m.inputs.clear();
  });
}

TEST(Manifest, TheInputsHashIsThatOfTheInputsAlone) {
  const Manifest m = Example();
  Manifest other = Example();
  other.created += std::chrono::hours(1);
  other.memory_chunks[0] = Sha256Of("another boot");
  auto hash = [](const Manifest& x) { return ComputeInputsHash(x.inputs, x.fingerprint, x.shape); };
  EXPECT_EQ(hash(m), hash(other));
  other.inputs["kernel"] = std::string(64, 'b');
  EXPECT_NE(hash(m), hash(other));
}

TEST(FirstDifference, NamesTheEntryAndBothValues) {
  EXPECT_EQ(FirstDifference({{"a", "1"}}, {{"a", "1"}}), "");
  EXPECT_EQ(
      FirstDifference({{"a", "1"}, {"cpu.model", "max"}}, {{"a", "1"}, {"cpu.model", "host"}}),
      "cpu.model is 'max' in the template and 'host' here");
  EXPECT_EQ(FirstDifference({}, {{"b", "2"}}), "b is missing in the template and '2' here");
  EXPECT_EQ(FirstDifference({{"b", "2"}}, {}), "b is '2' in the template and missing here");
}

TEST(IsDigest, TakesNothingButADigest) {
  EXPECT_TRUE(IsDigest(std::string(64, 'f')));
  EXPECT_FALSE(IsDigest(std::string(64, 'F')));
  EXPECT_FALSE(IsDigest(std::string(63, 'f')));
  EXPECT_FALSE(IsDigest(std::string(65, 'f')));
  EXPECT_FALSE(IsDigest(std::string(61, 'f') + "/.."));
  EXPECT_FALSE(IsDigest(""));
}

}  // namespace
}  // namespace hatchery::tmpl
