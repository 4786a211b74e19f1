#include "tests/torture/fake_qemu/monitor.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/files.h"

namespace hatchery::torture {

namespace {

// What a saved state and a template's memory begin with, so that a clone notices when it is given
// anything else.
constexpr std::string_view kState = "state of a guest that is none\n";
constexpr std::string_view kMemory = "memory of a guest that is none\n";

std::string Text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool BeginsWith(int fd, std::string_view text) {
  std::string have(text.size(), '\0');
  return ::pread(fd, have.data(), have.size(), 0) == static_cast<ssize_t>(have.size()) &&
         have == text;
}

}  // namespace

FakeMonitor::FakeMonitor(Deps deps, UniqueFd listener, bool incoming)
    : deps_(std::move(deps)),
      listener_(std::move(listener)),
      run_state_(incoming ? "inmigrate" : "running") {
  Accept();
  if (incoming) return;
  if (!deps_.memory_path.empty()) {
    const UniqueFd memory(::open(deps_.memory_path.c_str(), O_RDWR | O_CLOEXEC));
    if (::pwrite(memory.get(), kMemory.data(), kMemory.size(), 0) < 0) {
      std::perror("writing the template's memory");
    }
  }
  deps_.guest.Run();
}

void FakeMonitor::Accept() {
  auto watch = deps_.loop.Watch(listener_.get(), EPOLLIN, [this](std::uint32_t) {
    UniqueFd accepted(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!accepted) return;
    deps_.loop.Unwatch(watch_);
    client_ = std::move(accepted);
    lines_ = {};
    auto reading =
        deps_.loop.Watch(client_.get(), EPOLLIN, [this](std::uint32_t) { OnReadable(); });
    if (reading) watch_ = *reading;
    Send({{"QMP", {{"version", Json::object()}, {"capabilities", Json::array()}}}});
  });
  if (watch) watch_ = *watch;
}

void FakeMonitor::Hangup() {
  deps_.loop.Unwatch(watch_);
  client_.Reset();
  Accept();
}

void FakeMonitor::OnReadable() {
  std::array<char, 16 << 10> bytes{};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec part{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(client_.get(), &message, MSG_CMSG_CLOEXEC);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0) return Hangup();
  if (const cmsghdr* header = CMSG_FIRSTHDR(&message);
      header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    passed_.Reset(fd);
  }
  if (!lines_.Append({bytes.data(), static_cast<std::size_t>(size)})) return Hangup();
  while (client_) {
    const auto line = lines_.Next();
    if (!line) return;
    OnLine(*line);
  }
}

void FakeMonitor::OnLine(std::string_view line) {
  const auto request = ParseJson(line, "a command");
  if (!request || !request->is_object()) return Hangup();
  const auto arguments = request->value("arguments", Json::object());
  const auto result = Execute(Text(*request, "execute"), arguments);
  Json reply;
  if (result) {
    reply["return"] = *result;
  } else {
    const bool unknown = result.error().code == Code::kUnimplemented;
    const bool missing = result.error().code == Code::kNotFound;
    reply["error"] = {
        {"class", unknown ? "CommandNotFound" : (missing ? "DeviceNotFound" : "GenericError")},
        {"desc", result.error().message}};
  }
  if (const auto id = request->find("id"); id != request->end()) reply["id"] = *id;
  Send(reply);
}

Result<Json> FakeMonitor::Execute(const std::string& command, const Json& arguments) {
  Json done = Json::object();
  if (command == "qmp_capabilities" || command == "migrate-set-capabilities") return done;
  if (command == "query-status") {
    return Json{{"status", run_state_}, {"running", run_state_ == "running"}};
  }
  if (command == "stop") {
    run_state_ = "paused";
    deps_.guest.Pause();
    Event("STOP");
    return done;
  }
  if (command == "cont") {
    run_state_ = "running";
    Event("RESUME");
    deps_.guest.Run();
    return done;
  }
  if (command == "getfd") {
    if (!passed_) return Internal("no descriptor came along");
    state_ = std::move(passed_);
    return done;
  }
  if (command == "migrate") return Save();
  if (command == "migrate-incoming") return Load();
  if (command == "object-add") {
    backends_[Text(arguments, "id")] = arguments.value("size", std::uint64_t{0});
    return done;
  }
  if (command == "object-del") {
    if (backends_.erase(Text(arguments, "id")) == 0) return Internal("no such object");
    return done;
  }
  if (command == "device_add") return AddDevice(arguments);
  if (command == "device_del") return RemoveDevice(arguments);
  if (command == "query-hotpluggable-cpus") return CpuSlots();
  if (command == "query-memory-devices") return Dimms();
  if (command == "quit") ::_exit(0);
  return Unimplemented("the command " + command + " has not been found");
}

Result<Json> FakeMonitor::AddDevice(const Json& arguments) {
  const std::string id = Text(arguments, "id");
  if (Text(arguments, "driver") == "pc-dimm") {
    const std::string backend = Text(arguments, "memdev");
    const auto found = backends_.find(backend);
    if (found == backends_.end()) return Internal("no memory backend " + backend);
    dimms_[id] = {backend, found->second};
    deps_.board.memory_bytes += found->second;
    return Json::object();
  }
  const auto socket = arguments.value("socket-id", std::uint32_t{0});
  if (socket < deps_.limits.boot_vcpus || socket >= deps_.limits.max_vcpus ||
      hot_cpus_.contains(socket)) {
    return Internal("socket " + std::to_string(socket) + " is not free");
  }
  hot_cpus_[socket] = id;
  ++deps_.board.vcpus;
  return Json::object();
}

Result<Json> FakeMonitor::RemoveDevice(const Json& arguments) {
  const std::string id = Text(arguments, "id");
  if (const auto dimm = dimms_.find(id); dimm != dimms_.end()) {
    deps_.board.memory_bytes -= dimm->second.size;
    dimms_.erase(dimm);
  } else if (std::erase_if(hot_cpus_, [&](const auto& cpu) { return cpu.second == id; }) > 0) {
    --deps_.board.vcpus;
  } else {
    return NotFound("no device " + id);
  }
  Event("DEVICE_DELETED", {{"device", id}, {"path", "/machine/peripheral/" + id}});
  return Json::object();
}

Json FakeMonitor::CpuSlots() const {
  Json slots = Json::array();
  for (std::uint32_t socket = deps_.limits.max_vcpus; socket-- > 0;) {
    Json slot = {{"type", "max-x86_64-cpu"},
                 {"vcpus-count", 1},
                 {"props", {{"socket-id", socket}, {"core-id", 0}, {"thread-id", 0}}}};
    if (socket < deps_.limits.boot_vcpus) {
      slot["qom-path"] = "/machine/unattached/device[" + std::to_string(socket) + "]";
    } else if (const auto hot = hot_cpus_.find(socket); hot != hot_cpus_.end()) {
      slot["qom-path"] = "/machine/peripheral/" + hot->second;
    }
    slots.push_back(slot);
  }
  return slots;
}

Json FakeMonitor::Dimms() const {
  Json all = Json::array();
  for (const auto& [id, dimm] : dimms_) {
    all.push_back(
        {{"type", "dimm"},
         {"data", {{"id", id}, {"memdev", "/objects/" + dimm.backend}, {"size", dimm.size}}}});
  }
  return all;
}

Result<Json> FakeMonitor::Save() {
  Event("MIGRATION", {{"status", "setup"}});
  Event("MIGRATION", {{"status", "active"}});
  const bool saved = WriteAll(state_.get(), kState).has_value();
  run_state_ = "postmigrate";
  Event("MIGRATION", {{"status", saved ? "completed" : "failed"}});
  return Json::object();
}

Result<Json> FakeMonitor::Load() {
  const UniqueFd memory(::open(deps_.memory_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!BeginsWith(state_.get(), kState) || !BeginsWith(memory.get(), kMemory)) {
    std::fprintf(stderr, "fake-qemu: this is no state that it saved\n");
    ::_exit(1);
  }
  for (const char* status : {"setup", "active", "completed"}) {
    Event("MIGRATION", {{"status", status}});
  }
  run_state_ = "paused";
  return Json::object();
}

void FakeMonitor::Event(std::string_view name, Json data) {
  Send({{"event", name}, {"data", std::move(data)}});
}

void FakeMonitor::Send(const Json& message) {
  const std::string line = DumpJson(message) + "\n";
  // Far less than the socket's buffer holds: a peer that leaves it full is as good as gone.
  if (client_) (void)::send(client_.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void FakeMonitor::SendGarbage() {
  constexpr std::string_view kGarbage = "}{ this is no message \x01\xff\n";
  if (client_) {
    (void)::send(client_.get(), kGarbage.data(), kGarbage.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

}  // namespace hatchery::torture
