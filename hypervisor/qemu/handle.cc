#include "hypervisor/qemu/handle.h"

#include <cstdint>
#include <sstream>
#include <utility>

#include "base/json.h"
#include "hypervisor/qemu/vsock.h"

namespace hatchery::hypervisor::qemu {

namespace {

constexpr int kOldestVersion = 1;
constexpr int kFirstVersionWithCell = 2;
constexpr int kFirstVersionWithCid = 3;  // and with handed_over
constexpr int kVersion = 3;
constexpr std::string_view kDriver = "qemu";
constexpr std::size_t kMaxHandle = 64 << 10;

// Members of one JSON object; remembers whether all were there and of the right type.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {}

  std::string Text(const char* name) {
    const Json* value = Find(name);
    if (value != nullptr && value->is_string()) return value->get<std::string>();
    return Bad(name), "";
  }
  template <class T>
  T Number(const char* name) {
    const Json* value = Find(name);
    if (value != nullptr && value->is_number_unsigned()) {
      const auto number = value->get<std::uint64_t>();
      if (std::in_range<T>(number)) return static_cast<T>(number);
    }
    return Bad(name), T();
  }
  bool Flag(const char* name) {
    const Json* value = Find(name);
    if (value != nullptr && value->is_boolean()) return value->get<bool>();
    return Bad(name), false;
  }
  Json Object(const char* name) {
    const Json* value = Find(name);
    if (value != nullptr && value->is_object()) return *value;
    return Bad(name), Json::object();
  }
  const std::string& bad() const { return bad_; }

 private:
  const Json* Find(const char* name) {
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }
  void Bad(const char* name) {
    if (bad_.empty()) bad_ = name;
  }
  const Json& object_;
  std::string bad_;
};

std::unexpected<Error> Unreadable(std::string_view why) {
  return DataLoss("the handle of a VM cannot be read: " + std::string(why));
}

std::string Lines(const std::vector<std::filesystem::path>& paths) {
  std::string text;
  for (const auto& path : paths) text += path.string() + "\n";
  return text;
}

std::vector<std::filesystem::path> FromLines(const std::string& text) {
  std::vector<std::filesystem::path> paths;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) paths.emplace_back(line);
  return paths;
}

}  // namespace

std::string EncodeHandle(const HandleData& data) {
  const VmConfig& c = data.config;
  return DumpJson(
      Json{{"version", kVersion},
           {"driver", kDriver},
           {"cell", {{"uid", data.cell.uid.value_or(0)}, {"cgroup", Lines(data.cell.cgroup)}}},
           {"process", {{"pid", data.process.pid}, {"start_ticks", data.process.start_ticks}}},
           {"config",
            {{"id", c.id.str()},
             {"run_dir", c.run_dir.string()},
             {"kernel", c.kernel.string()},
             {"initrd", c.initrd.string()},
             {"image", c.image.string()},
             {"kernel_params", c.kernel_params},
             {"accelerator", Name(c.accelerator)},
             {"vcpus", c.vcpus},
             {"max_vcpus", c.max_vcpus},
             {"memory", c.memory.count()},
             {"max_memory", c.max_memory.count()},
             {"boot_to_be_template", c.boot_to_be_template},
             {"boot_from_template", c.boot_from_template},
             {"cid", c.cid}}},
           {"handed_over", data.handed_over}});
}

Result<HandleData> DecodeHandle(std::string_view text) {
  if (text.size() > kMaxHandle) return Unreadable("it is too long");
  auto json = ParseJson(text, "it");
  if (!json || !json->is_object()) return Unreadable("it is no JSON object");
  Reader top(*json);
  const std::string driver = top.Text("driver");
  if (!top.bad().empty()) return Unreadable("it names no driver");
  if (driver != kDriver) {
    return FailedPrecondition("the VM belongs to the driver '" + driver + "', not to 'qemu'");
  }
  const auto version = top.Number<int>("version");
  if (version < kOldestVersion || version > kVersion) {
    return Unreadable("its version is " + std::to_string(version) + ", not " +
                      std::to_string(kVersion));
  }
  const Json process_object = top.Object("process"), config_object = top.Object("config");
  const Json cell_object =
      version >= kFirstVersionWithCell ? top.Object("cell") : Json{{"uid", 0u}, {"cgroup", ""}};
  Reader process(process_object), config(config_object), cell(cell_object);

  HandleData data;
  data.process.pid = process.Number<pid_t>("pid");
  data.process.start_ticks = process.Number<std::uint64_t>("start_ticks");
  VmConfig& c = data.config;
  c.id = VmId(config.Text("id"));
  c.run_dir = config.Text("run_dir");
  c.kernel = config.Text("kernel");
  c.initrd = config.Text("initrd");
  c.image = config.Text("image");
  c.kernel_params = config.Text("kernel_params");
  const auto accelerator = ParseAccelerator(config.Text("accelerator"));
  c.vcpus = config.Number<std::uint32_t>("vcpus");
  c.max_vcpus = config.Number<std::uint32_t>("max_vcpus");
  c.memory = Bytes(config.Number<std::uint64_t>("memory"));
  c.max_memory = Bytes(config.Number<std::uint64_t>("max_memory"));
  c.boot_to_be_template = config.Flag("boot_to_be_template");
  c.boot_from_template = config.Flag("boot_from_template");
  if (version >= kFirstVersionWithCid) {
    c.cid = config.Number<std::uint32_t>("cid");
    data.handed_over = top.Flag("handed_over");
  }
  if (const auto uid = cell.Number<std::uint32_t>("uid"); uid != 0)
    data.cell.uid = static_cast<uid_t>(uid);
  data.cell.cgroup = FromLines(cell.Text("cgroup"));
  for (const Reader* reader : {&top, &process, &config, &cell}) {
    if (!reader->bad().empty()) return Unreadable("'" + reader->bad() + "' is missing or wrong");
  }
  if (!accelerator) return Unreadable(accelerator.error().message);
  // Signals to pid 0 or 1, or to a group, would be fatal to others.
  if (data.process.pid <= 1) return Unreadable("'pid' is no VMM's");
  // Who connects to a reserved one connects to something else than the VM.
  if (c.cid != 0 && !IsGuestCid(c.cid)) return Unreadable("'cid' is no VM's");
  c.accelerator = *accelerator;
  return data;
}

}  // namespace hatchery::hypervisor::qemu
