// The messages of QMP, QEMU's control protocol: JSON objects, one per line.
// https://www.qemu.org/docs/master/interop/qmp-spec.html. Pure functions; QEMU is not trusted to
// send well-formed text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/json.h"
#include "base/status.h"

namespace hatchery::hypervisor::qemu {

// QEMU's longest answers (query-hotpluggable-cpus of 240 vCPUs) take some 50 KiB.
inline constexpr std::size_t kMaxQmpLine = 1 << 20;

// The first line of every connection.
struct QmpGreeting {};

// The answer to the command with this id: what it returned, or QEMU's words on why not.
struct QmpReply {
  std::uint64_t id = 0;
  Result<Json> result;
};

struct QmpEvent {
  std::string name;  // "MIGRATION", "STOP", …
  Json data;         // an object, possibly empty
};

using QmpMessage = std::variant<QmpGreeting, QmpReply, QmpEvent>;

// kDataLoss for anything that is none of the three.
Result<QmpMessage> ParseQmpMessage(std::string_view line);

// A member of what QEMU sent; empty, or 0, if `object` is none or has no such member of this type.
std::string Text(const Json& object, const char* key);
std::int64_t Number(const Json& object, const char* key);

// One line, with its end.
std::string EncodeQmpCommand(std::string_view command, const Json& arguments, std::uint64_t id);

// Cuts a stream of bytes into lines.
class LineBuffer {
 public:
  // kDataLoss when a line grows past kMaxQmpLine.
  Result<void> Append(std::string_view bytes);
  // The next whole line without its end, or nothing.
  std::optional<std::string> Next();

 private:
  std::string bytes_;
  std::size_t scanned_ = 0;  // no line end before this
};

}  // namespace hatchery::hypervisor::qemu
