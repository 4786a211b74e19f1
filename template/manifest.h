// What a template is: the manifest that stands beside its memory and device state, and its digest.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "hypervisor/config.h"
#include "hypervisor/driver.h"

namespace hatchery::tmpl {

// Memory is hashed and checked in chunks of this size, so that verifying runs in parallel and an
// error names the place.
inline constexpr Bytes kChunk = Bytes::MiB(2);

// Limits of what is read from disk. A manifest of the largest memory (hypervisor::kMaxMemory) has
// 17 MiB of hashes; QEMU's device state is about 0.4 MiB.
inline constexpr Bytes kMaxManifestPayload = Bytes::MiB(32);
inline constexpr Bytes kMaxStateSize = Bytes::MiB(256);

// The sizes a template was booted with: a clone starts with these and can grow to the maxima.
struct Shape {
  std::uint32_t vcpus = 1;
  std::uint32_t max_vcpus = 8;
  Bytes memory;
  Bytes max_memory;
  bool operator==(const Shape&) const = default;
};

struct Manifest {
  // SHA-256 over everything below: what the template's state depends on and what it consists of.
  // Two builds of the same inputs are two templates, since no two boots leave the same memory.
  TemplateDigest digest;

  WallTime created;
  Shape shape;
  hypervisor::Accelerator accelerator = hypervisor::Accelerator::kTcg;
  // What it was made from: "kernel", "initrd", "image" -> SHA-256 of the content, "kernel_params"
  // -> their text, "driver" -> the driver's name.
  std::map<std::string, std::string> inputs;
  // What it can be cloned with (hypervisor/driver.h).
  hypervisor::Fingerprint fingerprint;
  std::string agent_version;

  // SHA-256 (32 raw bytes) of each chunk of memory, in order; empty for a chunk of zeros, which is
  // a hole in the file.
  std::vector<std::string> memory_chunks;
  Bytes state_size;
  std::string state_sha256;  // 32 raw bytes
};

// Whether `text` is 64 lower-case hexadecimal digits. Whatever comes from outside must pass before
// it becomes part of a path.
bool IsDigest(std::string_view text);

// SHA-256, in hexadecimal, over the canonical encoding of all fields but `digest`.
TemplateDigest ComputeDigest(const Manifest& manifest);

// One hash over inputs, fingerprint and shape alone: equal for two builds from the same things. It
// is how "is this name's template still what would be built today" is answered.
std::string ComputeInputsHash(const std::map<std::string, std::string>& inputs,
                              const hypervisor::Fingerprint& fingerprint, const Shape& shape);

// On disk: the file "manifest" of a template's folder.
//
//   offset 0   8 bytes   magic "HATCHTPL"
//          8   u32 le    format version (1)
//         12   u32 le    length of the payload, at most 32 MiB
//         16   payload   hatchery.store.v1.TemplateManifest
//         end  32 bytes  SHA-256 of all before it
std::string EncodeManifest(const Manifest& manifest);
// kDataLoss names what is wrong: magic, version, length, checksum, a field, or a digest that is not
// the one computed from the content. Never crashes, whatever the bytes.
Result<Manifest> DecodeManifest(std::string_view bytes);

// The first entry in which the two differ, as "cpu.model is 'max' in the template and 'host' here";
// empty if they are the same.
std::string FirstDifference(const hypervisor::Fingerprint& in_template,
                            const hypervisor::Fingerprint& here);

}  // namespace hatchery::tmpl
