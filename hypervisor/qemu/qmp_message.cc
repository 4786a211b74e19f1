#include "hypervisor/qemu/qmp_message.h"

namespace hatchery::hypervisor::qemu {

namespace {

std::unexpected<Error> Malformed(std::string_view line, std::string_view why) {
  constexpr std::size_t kShown = 120;
  // Through the JSON writer, so that no control character reaches a log.
  return DataLoss("QEMU sent a message that " + std::string(why) + ": " +
                  DumpJson(Json(std::string(line.substr(0, kShown)))));
}

std::unexpected<Error> QmpError(const Json& error) {
  const std::string kind = Text(error, "class");
  std::string words = Text(error, "desc");
  if (words.empty()) words = "no reason given";
  if (kind == "CommandNotFound") return MakeError(Code::kUnimplemented, std::move(words));
  if (kind == "DeviceNotFound") return MakeError(Code::kNotFound, std::move(words));
  return MakeError(Code::kInternal, std::move(words));
}

}  // namespace

std::string Text(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

std::int64_t Number(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<std::int64_t>() : 0;
}

Result<QmpMessage> ParseQmpMessage(std::string_view line) {
  auto json = ParseJson(line, "a QMP message");
  if (!json) return Malformed(line, "is not JSON");
  if (!json->is_object()) return Malformed(line, "is not an object");
  if (json->contains("QMP")) return QmpMessage(QmpGreeting{});
  if (const auto event = json->find("event"); event != json->end()) {
    if (!event->is_string()) return Malformed(line, "has an event without a name");
    QmpEvent result{event->get<std::string>(), Json::object()};
    if (const auto data = json->find("data"); data != json->end()) {
      if (!data->is_object()) return Malformed(line, "has an event whose data is not an object");
      result.data = std::move(*data);
    }
    return QmpMessage(std::move(result));
  }
  const auto value = json->find("return");
  const auto error = json->find("error");
  if (value == json->end() && error == json->end()) return Malformed(line, "is of no known kind");
  const auto id = json->find("id");
  if (id == json->end() || !id->is_number_unsigned()) return Malformed(line, "answers no command");
  QmpReply reply{id->get<std::uint64_t>(), Json()};
  if (error == json->end()) {
    reply.result = std::move(*value);
  } else {
    if (!error->is_object()) return Malformed(line, "has an error that is not an object");
    reply.result = QmpError(*error);
  }
  return QmpMessage(std::move(reply));
}

std::string EncodeQmpCommand(std::string_view command, const Json& arguments, std::uint64_t id) {
  Json json = {{"execute", command}, {"id", id}};
  if (!arguments.empty()) json["arguments"] = arguments;
  return DumpJson(json) + "\n";
}

Result<void> LineBuffer::Append(std::string_view bytes) {
  bytes_ += bytes;
  if (bytes_.size() > kMaxQmpLine && bytes_.find('\n', scanned_) == std::string::npos) {
    return DataLoss("QEMU sent a line longer than " + std::to_string(kMaxQmpLine) + " bytes");
  }
  return {};
}

std::optional<std::string> LineBuffer::Next() {
  for (;;) {
    const auto end = bytes_.find('\n', scanned_);
    if (end == std::string::npos) {
      scanned_ = bytes_.size();
      return std::nullopt;
    }
    std::string line = bytes_.substr(0, end);
    bytes_.erase(0, end + 1);
    scanned_ = 0;
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) return line;
  }
}

}  // namespace hatchery::hypervisor::qemu
