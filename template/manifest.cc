#include "template/manifest.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/sha256.h"
#include "hatchery/store/v1/template.pb.h"

namespace hatchery::tmpl {

namespace {

constexpr std::string_view kMagic = "HATCHTPL";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderSize = 16;

std::string LittleEndian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
  return out;
}

std::uint32_t ReadU32(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<unsigned char>(bytes[at + static_cast<std::size_t>(i)]);
  }
  return value;
}

// What digests are computed over: a sequence of byte strings, each after its length (u64 le), so
// that no two different sequences read the same. Protobuf's own bytes would not do: it promises no
// order for map entries.
class Canonical {
 public:
  explicit Canonical(std::string_view domain) { Add(domain); }
  void Add(std::string_view bytes) {
    hash_.Update(LittleEndian(bytes.size(), 8));
    hash_.Update(bytes);
  }
  void Add(std::uint64_t number) { Add(std::string_view(LittleEndian(number, 8))); }
  void Add(const std::map<std::string, std::string>& entries) {
    Add(std::uint64_t{entries.size()});
    for (const auto& [name, value] : entries) {
      Add(std::string_view(name));
      Add(std::string_view(value));
    }
  }
  void Add(const Shape& shape) {
    Add(std::uint64_t{shape.vcpus});
    Add(std::uint64_t{shape.max_vcpus});
    Add(shape.memory.count());
    Add(shape.max_memory.count());
  }
  std::string FinishHex() { return ToHex(hash_.Finish()); }

 private:
  Sha256 hash_;
};

std::int64_t UnixNanoseconds(WallTime time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// What is wrong with a manifest's fields, by themselves and among each other.
std::optional<std::string> FindFault(const Manifest& m) {
  const Shape& s = m.shape;
  if (s.vcpus == 0 || s.vcpus > s.max_vcpus || s.max_vcpus > hypervisor::kMaxVcpus) {
    return "vcpus " + std::to_string(s.vcpus) + " of at most " + std::to_string(s.max_vcpus);
  }
  if (s.memory == Bytes() || s.memory > s.max_memory || s.max_memory > hypervisor::kMaxMemory) {
    return "memory " + ToString(s.memory) + " of at most " + ToString(s.max_memory);
  }
  if (!s.memory.IsMultipleOf(kChunk)) {
    return "memory " + ToString(s.memory) + " is not a multiple of " + ToString(kChunk);
  }
  if (m.accelerator == hypervisor::Accelerator::kAuto) return "accelerator 'auto'";
  const std::uint64_t chunks = s.memory.count() / kChunk.count();
  if (m.memory_chunks.size() != chunks) {
    return std::to_string(m.memory_chunks.size()) + " memory chunks instead of " +
           std::to_string(chunks);
  }
  for (const std::string& hash : m.memory_chunks) {
    if (!hash.empty() && hash.size() != kSha256Size) {
      return "a memory chunk's hash of " + std::to_string(hash.size()) + " bytes";
    }
  }
  if (m.state_size > kMaxStateSize) return "state_size " + ToString(m.state_size);
  if (m.state_sha256.size() != kSha256Size) {
    return "state_sha256 of " + std::to_string(m.state_sha256.size()) + " bytes";
  }
  return std::nullopt;
}

Result<Manifest> FromMessage(const store::v1::TemplateManifest& message) {
  Manifest m;
  m.digest = TemplateDigest(message.digest());
  m.created = WallTime(std::chrono::duration_cast<WallTime::duration>(
      std::chrono::nanoseconds(message.created_unix_ns())));
  m.shape = {.vcpus = message.vcpus(),
             .max_vcpus = message.max_vcpus(),
             .memory = Bytes(message.memory_bytes()),
             .max_memory = Bytes(message.max_memory_bytes())};
  auto accelerator = hypervisor::ParseAccelerator(message.accelerator());
  if (!accelerator) return DataLoss("the manifest's accelerator cannot be read");
  m.accelerator = *accelerator;
  m.inputs = {message.inputs().begin(), message.inputs().end()};
  m.fingerprint = {message.fingerprint().begin(), message.fingerprint().end()};
  m.agent_version = message.agent_version();
  m.memory_chunks = {message.memory_chunks().begin(), message.memory_chunks().end()};
  m.state_size = Bytes(message.state_size());
  m.state_sha256 = message.state_sha256();
  return m;
}

}  // namespace

bool IsDigest(std::string_view text) {
  return text.size() == 2 * kSha256Size && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

TemplateDigest ComputeDigest(const Manifest& m) {
  Canonical form("hatchery template 1");
  form.Add(static_cast<std::uint64_t>(UnixNanoseconds(m.created)));
  form.Add(m.shape);
  form.Add(hypervisor::Name(m.accelerator));
  form.Add(m.inputs);
  form.Add(m.fingerprint);
  form.Add(std::string_view(m.agent_version));
  form.Add(std::uint64_t{m.memory_chunks.size()});
  for (const std::string& hash : m.memory_chunks) form.Add(std::string_view(hash));
  form.Add(m.state_size.count());
  form.Add(std::string_view(m.state_sha256));
  return TemplateDigest(form.FinishHex());
}

std::string ComputeInputsHash(const std::map<std::string, std::string>& inputs,
                              const hypervisor::Fingerprint& fingerprint, const Shape& shape) {
  Canonical form("hatchery template inputs 1");
  form.Add(inputs);
  form.Add(fingerprint);
  form.Add(shape);
  return form.FinishHex();
}

std::string EncodeManifest(const Manifest& m) {
  store::v1::TemplateManifest message;
  message.set_digest(m.digest.str());
  message.set_created_unix_ns(UnixNanoseconds(m.created));
  message.set_vcpus(m.shape.vcpus);
  message.set_max_vcpus(m.shape.max_vcpus);
  message.set_memory_bytes(m.shape.memory.count());
  message.set_max_memory_bytes(m.shape.max_memory.count());
  message.set_accelerator(std::string(hypervisor::Name(m.accelerator)));
  message.mutable_inputs()->insert(m.inputs.begin(), m.inputs.end());
  message.mutable_fingerprint()->insert(m.fingerprint.begin(), m.fingerprint.end());
  message.set_agent_version(m.agent_version);
  for (const std::string& hash : m.memory_chunks) message.add_memory_chunks(hash);
  message.set_state_size(m.state_size.count());
  message.set_state_sha256(m.state_sha256);

  const std::string payload = message.SerializeAsString();
  std::string bytes(kMagic);
  bytes += LittleEndian(kVersion, 4);
  bytes += LittleEndian(payload.size(), 4);
  bytes += payload;
  bytes += Sha256Of(bytes);
  return bytes;
}

Result<Manifest> DecodeManifest(std::string_view bytes) {
  if (bytes.size() < kHeaderSize + kSha256Size) {
    return DataLoss("the manifest ends after " + std::to_string(bytes.size()) + " bytes");
  }
  if (!bytes.starts_with(kMagic)) {
    return DataLoss("the manifest does not begin with '" + std::string(kMagic) + "'");
  }
  if (const std::uint32_t version = ReadU32(bytes, 8); version != kVersion) {
    return DataLoss("the manifest has format version " + std::to_string(version) +
                    "; this program reads version " + std::to_string(kVersion));
  }
  const std::uint32_t length = ReadU32(bytes, 12);
  const std::size_t present = bytes.size() - kHeaderSize - kSha256Size;
  if (length > kMaxManifestPayload.count() || length != present) {
    return DataLoss("the manifest's length field says " + std::to_string(length) + " bytes, " +
                    std::to_string(present) + " are there");
  }
  if (Sha256Of(bytes.substr(0, kHeaderSize + length)) != bytes.substr(kHeaderSize + length)) {
    return DataLoss("the manifest's checksum is wrong");
  }
  store::v1::TemplateManifest message;
  if (!message.ParseFromArray(bytes.data() + kHeaderSize, static_cast<int>(length))) {
    return DataLoss("the manifest's payload cannot be parsed");
  }
  ASSIGN_OR_RETURN(Manifest m, FromMessage(message));
  if (auto fault = FindFault(m)) return DataLoss("the manifest is not sane: " + *fault);
  if (const TemplateDigest computed = ComputeDigest(m); computed != m.digest) {
    return DataLoss("the manifest says digest '" + m.digest.str() + "', its content has " +
                    computed.str());
  }
  return m;
}

std::string FirstDifference(const hypervisor::Fingerprint& in_template,
                            const hypervisor::Fingerprint& here) {
  auto shown = [](const hypervisor::Fingerprint& entries, const std::string& name) {
    const auto found = entries.find(name);
    return found == entries.end() ? std::string("missing") : "'" + found->second + "'";
  };
  auto names = in_template;
  names.insert(here.begin(), here.end());
  for (const auto& [name, unused] : names) {
    const std::string then = shown(in_template, name), now = shown(here, name);
    if (then != now) return name + " is " + then + " in the template and " + now + " here";
  }
  return {};
}

}  // namespace hatchery::tmpl
