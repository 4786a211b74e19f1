#include "cmd/hatcheryd/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "base/files.h"
#include "cache/access.h"
#include "cmd/hatcheryd/setting_makers.h"

namespace hatchery::daemon {

namespace {

Setting Endpoint() {
  Setting setting = Path("", "endpoint",
                         "Where clients connect: unix:///PATH or a path.\n"
                         "Empty: hatchery.sock in state_dir.",
                         [](auto& c) -> auto& { return c.endpoint; });
  setting.set = [](Config& config, const std::string& text) -> Result<void> {
    std::string path = text;
    if (path.starts_with("unix:")) path.erase(0, 5);
    if (path.starts_with("//")) path.erase(0, 2);
    if (text.empty()) {
      config.endpoint.clear();
      return {};
    }
    if (path.empty() || (path == text && path.find('/') == std::string::npos &&
                         path.find(':') != std::string::npos)) {
      return Bad("'" + text + "' is no unix socket; write unix:///PATH");
    }
    config.endpoint = "unix://" + fs::absolute(path).lexically_normal().string();
    return {};
  };
  return setting;
}

Setting SocketMode() {
  return {
      "",
      "socket_mode",
      Kind::kText,
      "Permissions of the socket, in octal. Who can write to it can call the daemon; what it may\n"
      "do then is said in [access].",
      [](Config& config, const std::string& text) -> Result<void> {
        unsigned mode = 0;
        const char* const last = text.data() + text.size();
        const auto [end, error] = std::from_chars(text.data(), last, mode, 8);
        if (error != std::errc() || end != last || mode > 0777) {
          return Bad("'" + text + "' is not a mode from 0 to 0777");
        }
        config.socket_mode = mode;
        return {};
      },
      [](const Config& config) {
        std::array<char, 8> digits{};
        const auto end = std::to_chars(digits.begin(), digits.end(), config.socket_mode, 8);
        return "0" + std::string(digits.begin(), end.ptr);
      }};
}

// A list of [access]. Who its names are is looked up when the daemon starts.
template <class Field>
Setting Allowed(std::string key, std::string help, Field field) {
  Setting setting = Text("access", std::move(key), std::move(help), field);
  setting.set = [field](Config& config, const std::string& text) -> Result<void> {
    RETURN_IF_ERROR(cache::ParseAccessList(text));
    field(config) = text;
    return {};
  };
  return setting;
}

Setting KataTemplate() {
  Setting setting =
      Text("kata", "template",
           "The template whose warm VMs are handed over. They come from a pool of it,\n"
           "which there must be (`hatchery pool set`).",
           [](auto& c) -> auto& { return c.kata.template_name; });
  setting.set = [](Config& config, const std::string& text) -> Result<void> {
    RETURN_IF_ERROR(ValidateName("template", text));
    config.kata.template_name = text;
    return {};
  };
  return setting;
}

Setting TlsListen() {
  Setting setting =
      Text("tls", "listen",
           "HOST:PORT to serve on over TCP, too; always with TLS, and only for clients with a\n"
           "certificate that client_ca has signed. Port 0: one that is free; the log says which.\n"
           "Empty: not at all.",
           [](auto& c) -> auto& { return c.tls.listen; });
  setting.set = [](Config& config, const std::string& text) -> Result<void> {
    const auto colon = text.rfind(':');
    const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    const bool is_port = !port.empty() && error == std::errc() && end == port.data() + port.size();
    // An IPv6 address needs brackets, or its end would be the port.
    const std::string host = text.substr(0, is_port ? colon : 0);
    const bool is_host =
        !host.empty() && host.find('/') == std::string::npos &&
        (host.find(':') == std::string::npos || (host.starts_with('[') && host.ends_with(']')));
    if (!text.empty() && !is_host) {
      return Bad("'" + text + "' is not HOST:PORT, as in 0.0.0.0:7443 or [::]:7443");
    }
    config.tls.listen = text;
    return {};
  };
  return setting;
}

std::vector<Setting> MakeSettings() {
  using factory::RehearseCommand;
  using hypervisor::Accelerator;
  using std::chrono::hours;
  using std::chrono::milliseconds;
  const Bytes block = hypervisor::kMemoryBlock;
  const Bytes most_memory = hypervisor::kMaxMemory;
  const std::uint32_t most_vcpus = hypervisor::kMaxVcpus;
  return {
      Path("", "state_dir",
           "Everything the daemon keeps is below this folder: templates, records, sockets, VMs.\n"
           "One daemon per folder.",
           [](auto& c) -> auto& { return c.state_dir; }),
      Endpoint(),
      SocketMode(),

      Allowed("read",
              "Who may do what, separated by commas: uid:1000, gid:2000, user:NAME, group:NAME, "
              "tls:NAME\n"
              "(the name in a client's certificate), or * for all who can connect. root and the "
              "user\n"
              "that the daemon runs as may do everything. read: look at one's own VMs, at "
              "templates and\n"
              "pools. acquire: take VMs, use them, give them back; who may, may also read. "
              "administer:\n"
              "templates, pools and all tenants' VMs; who may, may also acquire.",
              [](auto& c) -> auto& { return c.access.read; }),
      Allowed("acquire", "", [](auto& c) -> auto& { return c.access.acquire; }),
      Allowed("administer", "", [](auto& c) -> auto& { return c.access.administer; }),

      TlsListen(),
      Path(
          "tls", "certificate",
          "The daemon's own certificate, its key, and who signs clients' (PEM). Read at the start.",
          [](auto& c) -> auto& { return c.tls.certificate; }),
      Path("tls", "key", "", [](auto& c) -> auto& { return c.tls.key; }),
      Path("tls", "client_ca", "", [](auto& c) -> auto& { return c.tls.client_ca; }),

      Choice<log::Level>("log", "level", "debug, info, warning or error.",
                         {{"debug", log::Level::kDebug},
                          {"info", log::Level::kInfo},
                          {"warning", log::Level::kWarning},
                          {"error", log::Level::kError}},
                         [](auto& c) -> auto& { return c.log.level; }),
      Choice<log::Format>("log", "format", "text for people, json for programs; on stderr.",
                          {{"text", log::Format::kText}, {"json", log::Format::kJson}},
                          [](auto& c) -> auto& { return c.log.format; }),

      Choice<DriverName>("driver", "name",
                         "qemu, or fake: VMs that exist in memory only, for trying out clients.",
                         {{"qemu", DriverName::kQemu}, {"fake", DriverName::kFake}},
                         [](auto& c) -> auto& { return c.driver.name; }),
      Choice<Accelerator>(
          "driver", "accelerator",
          "kvm, tcg (emulation), or auto: KVM if it truly runs the guest on this "
          "host, else TCG.",
          {{"auto", Accelerator::kAuto}, {"kvm", Accelerator::kKvm}, {"tcg", Accelerator::kTcg}},
          [](auto& c) -> auto& { return c.driver.accelerator; }),

      Text("qemu", "binary", "A path, or a name that is looked up in PATH. QEMU 7.2 or later.",
           [](auto& c) -> auto& { return c.qemu.binary; }),
      Boolean("qemu", "sandbox", "Run QEMU in its seccomp sandbox.",
              [](auto& c) -> auto& { return c.qemu.sandbox; }),
      Boolean(
          "qemu", "zygote",
          "Fork VMMs from one that is loaded already: a third less CPU time to make a clone, and\n"
          "5 MiB less memory for each. They then share one address layout, 256 at a time.",
          [](auto& c) -> auto& { return c.qemu.zygote; }),
      Size("qemu", "tb_size",
           "The most that translated code may take of one VM's private memory, under TCG.",
           Bytes::MiB(1), Bytes::MiB(1), Bytes::GiB(2),
           [](auto& c) -> auto& { return c.qemu.tb_size; }),
      Choice<UseVsock>(
          "qemu", "vsock",
          "Give each VM a vsock context id of its own where the host has /dev/vhost-vsock, for\n"
          "clients that reach agents that way: auto, with [kata] endpoint; always; never. vsock "
          "has\n"
          "no permissions: any process on the host can talk to such a VM's agent. Templates made\n"
          "with it cannot be cloned without, nor the other way round.",
          {{"auto", UseVsock::kAuto}, {"always", UseVsock::kAlways}, {"never", UseVsock::kNever}},
          [](auto& c) -> auto& { return c.qemu.vsock; }),

      Text("vmm", "uids",
           "User ids that VMMs run as, FIRST-LAST, each VM with one of its own; no account may "
           "have\n"
           "them. auto: 1879048192-1879113727 when the daemon runs as root, else as the daemon.\n"
           "none: as the daemon.",
           [](auto& c) -> auto& { return c.vmm.uids; }),
      Text(
          "vmm", "cgroup",
          "Control group below which each VMM gets its own, with limits on memory, processes and\n"
          "CPU. auto: below the daemon's own, version 1 or 2, where it may; none: no groups; or a\n"
          "name, from the root.",
          [](auto& c) -> auto& { return c.vmm.cgroup; }),
      Size("vmm", "memory_overhead",
           "What a VMM may take beyond its guest's memory before its group's limit ends it.",
           Bytes::MiB(1), Bytes::MiB(16), Bytes::GiB(64),
           [](auto& c) -> auto& { return c.vmm.memory_overhead; }),
      Number("vmm", "pids", "Threads that a VMM may have.", 16, 100'000,
             [](auto& c) -> auto& { return c.vmm.pids; }),
      Size("vmm", "console",
           "How much of what a guest prints is kept; older output is dropped. Guests that print\n"
           "without end cannot fill the disk.",
           Bytes::KiB(4), Bytes::KiB(64), Bytes::GiB(1),
           [](auto& c) -> auto& { return c.vmm.console; }),

      Path("guest", "image_dir",
           "The default guest's kernel and initrd (`hatchery image build`).\n"
           "Empty: the folder image in state_dir.",
           [](auto& c) -> auto& { return c.guest.image_dir; }),
      Path("guest", "kernel",
           "A guest of your own instead: a kernel, and either an initrd or a disk image, with the\n"
           "agent in it.",
           [](auto& c) -> auto& { return c.guest.kernel; }),
      Path("guest", "initrd", "", [](auto& c) -> auto& { return c.guest.initrd; }),
      Path("guest", "image", "", [](auto& c) -> auto& { return c.guest.image; }),
      Text("guest", "kernel_params", "Added to the kernel parameters that the driver sets.",
           [](auto& c) -> auto& { return c.guest.kernel_params; }),

      Number("template", "vcpus",
             "Sizes of a template that is created without: what its VMs start with, and how far\n"
             "they can grow when acquired. Memory in multiples of 128MiB.",
             1, most_vcpus, [](auto& c) -> auto& { return c.tmpl.vcpus; }),
      Number("template", "max_vcpus", "", 1, most_vcpus,
             [](auto& c) -> auto& { return c.tmpl.max_vcpus; }),
      Size("template", "memory", "", block, block, most_memory,
           [](auto& c) -> auto& { return c.tmpl.memory; }),
      Size("template", "max_memory", "", block, block, most_memory,
           [](auto& c) -> auto& { return c.tmpl.max_memory; }),
      Duration("template", "boot_timeout",
               "Start to agent answering, saving included. Under TCG on a busy host a boot takes\n"
               "several times as long as on an idle one.",
               milliseconds(1), hours(24), [](auto& c) -> auto& { return c.tmpl.boot_timeout; }),

      Number("pool", "size", "Warm VMs that `hatchery factory init` keeps when not told a number.",
             0, 10'000, [](auto& c) -> auto& { return c.pool.size; }),
      Number("pool", "parallel_clones",
             "Clones made at once, over all pools. 0: one per CPU of the host.", 0, 256,
             [](auto& c) -> auto& { return c.pool.parallel_clones; }),
      Duration("pool", "clone_timeout", "One clone, from spawn to warm.", milliseconds(1), hours(1),
               [](auto& c) -> auto& { return c.pool.clone_timeout; }),
      Choice<RehearseCommand>(
          "pool", "rehearse_command",
          "Whether a clone runs a command before it is warm, so that the first one after an\n"
          "acquire is as fast as the later ones. auto: unless the guest is emulated (TCG), where\n"
          "that takes 8 MiB of each warm VM and doubles the time to make one; never, always.",
          {{"auto", RehearseCommand::kAuto},
           {"always", RehearseCommand::kAlways},
           {"never", RehearseCommand::kNever}},
          [](auto& c) -> auto& { return c.pool.rehearse_command; }),
      Boolean(
          "pool", "learn",
          "Keep warm VMs of shapes that are asked for often without being told: a shape that is\n"
          "acquired learn_after times within learn_window gets a pool, with one VM for each\n"
          "learn_after acquires in the window. It goes when nobody asks for a whole window.\n"
          "`hatchery pool list` shows such pools; `pool set` makes one yours.",
          [](auto& c) -> auto& { return c.pool.learn; }),
      Number("pool", "learn_after", "", 1, 1000,
             [](auto& c) -> auto& { return c.pool.learn_after; }),
      Duration("pool", "learn_window", "", std::chrono::seconds(10), hours(24),
               [](auto& c) -> auto& { return c.pool.learn_window; }),
      Number("pool", "learned_size", "The most VMs that one such pool keeps.", 1, 100,
             [](auto& c) -> auto& { return c.pool.learned_size; }),
      Number("pool", "learned_pools", "The most such pools that one template has.", 1, 100,
             [](auto& c) -> auto& { return c.pool.learned_pools; }),
      Size("pool", "learned_memory",
           "The most memory that the VMs of all such pools have together, as their guests see it.\n"
           "While they wait they take a small part of it from the host.",
           block, block, Bytes::GiB(1 << 20),
           [](auto& c) -> auto& { return c.pool.learned_memory; }),

      Number(
          "acquire", "parallel",
          "VMs that are made unique at once. More acquires wait for their turn, in order: guests\n"
          "that all run at once would only get in each other's way. 0: two per CPU of the host.",
          0, 10'000, [](auto& c) -> auto& { return c.acquire.parallel; }),
      Duration("acquire", "timeout", "For a client that sets no deadline of its own.",
               milliseconds(1), hours(1), [](auto& c) -> auto& { return c.acquire.timeout; }),
      Duration("acquire", "personalize_timeout",
               "For the guest to confirm that it was made unique. A VM that does not is destroyed\n"
               "and the next one is used.",
               milliseconds(1), hours(1),
               [](auto& c) -> auto& { return c.acquire.personalize_timeout; }),

      Number(
          "acquire", "waiting",
          "Acquires that may wait at once, for their turn or for a clone. One more is refused at\n"
          "once, with a hint when to try again.",
          1, 1'000'000, [](auto& c) -> auto& { return c.acquire.waiting; }),

      Duration(
          "lease", "grace",
          "How long a VM lives on after its lease has run out or the process that holds it has\n"
          "ended. A renewal, or the same request from a new process, keeps it.",
          milliseconds(0), hours(24), [](auto& c) -> auto& { return c.lease.grace; }),
      Duration(
          "lease", "longest_ttl",
          "The longest time to live that a lease may be given at once. Leases that would be held\n"
          "until released get this one, to be renewed. 0s: no limit.",
          milliseconds(0), hours(24 * 365), [](auto& c) -> auto& { return c.lease.longest_ttl; }),

      Size("limits", "host_reserve",
           "Memory that stays free for the host. Acquires and clones that would go below it are\n"
           "refused, and idle VMs are ended. 0B: no accounting.",
           Bytes::MiB(1), Bytes(0), Bytes::GiB(1 << 20),
           [](auto& c) -> auto& { return c.limits.host_reserve; }),
      Number(
          "limits", "growth_percent",
          "How much of what leased guests could still grow to is set aside for them, in percent.\n"
          "100: all of it, so that none can be short; less trusts that not all grow at once.",
          0, 100, [](auto& c) -> auto& { return c.limits.growth_percent; }),
      Number("limits", "tenant_leases",
             "The most that one tenant may hold at once: leases, vCPUs, memory. 0: no limit.", 0,
             1'000'000, [](auto& c) -> auto& { return c.limits.tenant_leases; }),
      Number("limits", "tenant_vcpus", "", 0, 1'000'000,
             [](auto& c) -> auto& { return c.limits.tenant_vcpus; }),
      Size("limits", "tenant_memory", "", Bytes::MiB(1), Bytes(0), Bytes::GiB(1 << 20),
           [](auto& c) -> auto& { return c.limits.tenant_memory; }),

      Duration("health", "agent_interval",
               "How often the agent of each leased VM is asked whether it is there. 0s: never.",
               milliseconds(0), hours(1), [](auto& c) -> auto& { return c.health.agent_interval; }),
      Duration("health", "agent_timeout",
               "How long it may take to answer; two that are missed in a row are reported.",
               milliseconds(1), hours(1), [](auto& c) -> auto& { return c.health.agent_timeout; }),
      Duration(
          "health", "end_silent_after",
          "End a leased VM whose agent has been silent for so long. 0s: never, only report it.",
          milliseconds(0), hours(24 * 365),
          [](auto& c) -> auto& { return c.health.end_silent_after; }),
      Number(
          "health", "quarantine_after",
          "Clones of one template that may fail in a row before it is quarantined: none are made\n"
          "of it for a while, longer each time, but one now and then to see whether it is well.",
          1, 1000, [](auto& c) -> auto& { return c.health.quarantine_after; }),
      Number("health", "events",
             "How many changes of VMs' states are kept for those who watch and were away.", 100,
             1'000'000, [](auto& c) -> auto& { return c.health.events; }),

      Choice<OnStop>(
          "stop", "warm",
          "When the daemon stops: destroy its warm VMs, or keep them for the next start.\n"
          "Leased VMs live on either way.",
          {{"destroy", OnStop::kDestroy}, {"keep", OnStop::kKeep}},
          [](auto& c) -> auto& { return c.stop.warm; }),

      Path("kata", "endpoint",
           "A socket on which Kata Containers' VM cache protocol is spoken, too: usually\n"
           "/var/run/kata-containers/cache.sock. Its mode is 0600. Empty: none.",
           [](auto& c) -> auto& { return c.kata.endpoint; }),
      KataTemplate(),
      Number("kata", "vcpus",
             "The shape of that pool's VMs, which clients may still add to. 0: the template's own.",
             0, hypervisor::kMaxVcpus, [](auto& c) -> auto& { return c.kata.vcpus; }),
      Size("kata", "memory", "", block, Bytes(0), hypervisor::kMaxMemory,
           [](auto& c) -> auto& { return c.kata.memory; }),
      Path("kata", "vm_config",
           "Files with the JSON that clients are told, word for word: they compare it with their "
           "own\n"
           "configuration, field by field. Read at the start. `hatchery kata config` says what in\n"
           "it is not true of the VMs. Empty: made from the template.",
           [](auto& c) -> auto& { return c.kata.vm_config; }),
      Path("kata", "agent_config", "", [](auto& c) -> auto& { return c.kata.agent_config; }),
      Choice<OnQuit>(
          "kata", "quit",
          "What a client ends that says Quit: the listener on this socket, or the daemon.",
          {{"listener", OnQuit::kListener}, {"daemon", OnQuit::kDaemon}},
          [](auto& c) -> auto& { return c.kata.quit; }),
  };
}

}  // namespace

std::string_view Name(Kind kind) {
  switch (kind) {
    case Kind::kText: return "a string";
    case Kind::kInteger: return "a whole number";
    case Kind::kBoolean: return "true or false";
  }
  return {};
}

std::string Setting::Flag() const {
  std::string name = Path();
  std::ranges::replace(name, '.', '-');
  std::ranges::replace(name, '_', '-');
  return "--" + name;
}

const std::vector<Setting>& AllSettings() {
  static const std::vector<Setting> settings = MakeSettings();
  return settings;
}

std::vector<Contradiction> FindContradictions(const Config& config) {
  std::vector<Contradiction> found;
  if (config.state_dir.empty()) found.push_back({"state_dir", "must not be empty"});
  if (config.qemu.binary.empty()) found.push_back({"qemu.binary", "must not be empty"});
  const auto check_socket = [&found](const char* setting, const fs::path& path) {
    // sockaddr_un holds 107 bytes and an end.
    if (path.string().size() <= 107) return;
    found.push_back({setting, "the socket's path " + path.string() +
                                  " is longer than the 107 bytes a unix socket can have"});
  };
  check_socket(config.endpoint.empty() ? "state_dir" : "endpoint", SocketPath(config));
  check_socket("kata.endpoint", config.kata.endpoint);
  if (!config.kata.endpoint.empty() && config.kata.endpoint == SocketPath(config)) {
    found.push_back({"kata.endpoint", "is where the service's own protocol is spoken already"});
  }
  const auto& tls = config.tls;
  if (tls.listen.empty() &&
      !(tls.certificate.empty() && tls.key.empty() && tls.client_ca.empty())) {
    const char* const set = !tls.certificate.empty() ? "tls.certificate"
                            : !tls.key.empty()       ? "tls.key"
                                                     : "tls.client_ca";
    found.push_back({set, "is set without tls.listen, which would use it"});
  }
  if (!tls.listen.empty() &&
      (tls.certificate.empty() || tls.key.empty() || tls.client_ca.empty())) {
    found.push_back({"tls.listen",
                     "needs tls.certificate, tls.key and tls.client_ca with it: over TCP clients "
                     "are served only with mutual TLS"});
  }
  if (config.tmpl.vcpus > config.tmpl.max_vcpus) {
    found.push_back({"template.vcpus", std::to_string(config.tmpl.vcpus) +
                                           " is more than template.max_vcpus, " +
                                           std::to_string(config.tmpl.max_vcpus)});
  }
  if (config.tmpl.memory > config.tmpl.max_memory) {
    found.push_back({"template.memory", ToString(config.tmpl.memory) +
                                            " is more than template.max_memory, " +
                                            ToString(config.tmpl.max_memory)});
  }
  const auto& guest = config.guest;
  if (guest.kernel.empty() && !(guest.initrd.empty() && guest.image.empty())) {
    found.push_back({guest.initrd.empty() ? "guest.image" : "guest.initrd",
                     "is set without guest.kernel; set both, or neither for the default guest"});
  }
  if (!guest.kernel.empty() && guest.initrd.empty() == guest.image.empty()) {
    found.push_back({"guest.kernel", guest.initrd.empty()
                                         ? "needs either guest.initrd or guest.image with it"
                                         : "takes guest.initrd or guest.image, not both"});
  }
  return found;
}

}  // namespace hatchery::daemon
