// The daemon's configuration: what can be set, from where, and what is refused.
//
// Every setting has a default, a key in hatchery.toml and a flag named after the key
// ("[template] max_vcpus" is --template-max-vcpus). A flag wins over the file, the file over the
// default. Values only: nothing here touches the host but the reading of the file.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/status.h"
#include "factory/factory.h"
#include "hypervisor/config.h"

namespace hatchery::daemon {

enum class DriverName { kQemu, kFake };
// What becomes of warm VMs when the daemon stops. Leased VMs always live on.
enum class OnStop { kDestroy, kKeep };
// Where the host has it: kAuto only with kata.endpoint.
enum class UseVsock { kAuto, kAlways, kNever };
// What a client of Kata's protocol ends that says Quit.
enum class OnQuit { kListener, kDaemon };

struct Config {
  std::filesystem::path state_dir = "/var/lib/hatchery";
  std::string endpoint;  // empty: see SocketPath()
  unsigned socket_mode = 0660;

  // Lists, in the form of hatchery.toml; cache/access.h reads them.
  struct {
    std::string read = "*";
    std::string acquire = "*";
    std::string administer;
  } access;

  struct {
    std::string listen;  // empty: no TCP
    std::filesystem::path certificate, key, client_ca;
  } tls;

  struct {
    log::Level level = log::Level::kInfo;
    log::Format format = log::Format::kText;
  } log;

  struct {
    DriverName name = DriverName::kQemu;
    hypervisor::Accelerator accelerator = hypervisor::Accelerator::kAuto;
  } driver;

  struct {
    std::string binary = "qemu-system-x86_64";  // a path, or a name that is looked up in PATH
    bool sandbox = true;
    bool zygote = true;
    Bytes tb_size = Bytes::MiB(32);
    UseVsock vsock = UseVsock::kAuto;
  } qemu;

  // How VMMs are kept apart from the host and from each other.
  struct {
    std::string uids = "auto";
    std::string cgroup = "auto";
    Bytes memory_overhead = Bytes::MiB(512);
    std::uint32_t pids = 512;
    Bytes console = Bytes::MiB(4);
  } vmm;

  struct {
    std::filesystem::path image_dir;  // empty: see ImageDir()
    std::filesystem::path kernel;     // all three empty: the image of image_dir
    std::filesystem::path initrd;
    std::filesystem::path image;
    std::string kernel_params;
  } guest;

  // For templates whose creator leaves these open.
  struct {
    std::uint32_t vcpus = 1;
    std::uint32_t max_vcpus = 8;
    Bytes memory = Bytes::MiB(256);
    Bytes max_memory = Bytes::GiB(4);
    std::chrono::nanoseconds boot_timeout = std::chrono::seconds(60);
  } tmpl;

  struct {
    std::uint32_t size = 4;
    std::uint32_t parallel_clones = 0;  // 0: one per CPU of the host
    std::chrono::nanoseconds clone_timeout = std::chrono::seconds(30);
    factory::RehearseCommand rehearse_command = factory::RehearseCommand::kAuto;
    bool learn = true;
    std::uint32_t learn_after = 10;
    std::chrono::nanoseconds learn_window = std::chrono::minutes(10);
    std::uint32_t learned_size = 4;
    std::uint32_t learned_pools = 4;
    Bytes learned_memory = Bytes::GiB(4);
  } pool;

  struct {
    std::uint32_t parallel = 0;  // 0: two per CPU of the host
    std::chrono::nanoseconds timeout = std::chrono::seconds(10);
    std::chrono::nanoseconds personalize_timeout = std::chrono::seconds(2);
    std::uint32_t waiting = 1000;
  } acquire;

  struct {
    std::chrono::nanoseconds grace = std::chrono::seconds(10);
    std::chrono::nanoseconds longest_ttl{};  // 0: no limit
  } lease;

  struct {
    Bytes host_reserve = Bytes::MiB(512);  // 0: memory is not accounted
    std::uint32_t growth_percent = 100;
    std::uint32_t tenant_leases = 0, tenant_vcpus = 0;  // 0: no limit
    Bytes tenant_memory;                                // likewise
  } limits;

  struct {
    std::chrono::nanoseconds agent_interval = std::chrono::seconds(10);  // 0: never
    std::chrono::nanoseconds agent_timeout = std::chrono::seconds(5);
    std::chrono::nanoseconds end_silent_after{};  // 0: never
    std::uint32_t quarantine_after = 5;
    std::uint32_t events = 10'000;
  } health;

  struct {
    OnStop warm = OnStop::kDestroy;
  } stop;

  // Kata's VM cache protocol.
  struct {
    std::filesystem::path endpoint;  // empty: not spoken
    std::string template_name = "default";
    std::uint32_t vcpus = 0;                        // 0: the template's own
    Bytes memory;                                   // likewise
    std::filesystem::path vm_config, agent_config;  // empty: made
    OnQuit quit = OnQuit::kListener;
  } kata;
};

// Where the daemon listens: the endpoint's path, or <state_dir>/hatchery.sock.
std::filesystem::path SocketPath(const Config& config);
// Where the default guest is: guest.image_dir, or <state_dir>/image.
std::filesystem::path ImageDir(const Config& config);

// The commented hatchery.toml in which every setting has its default.
std::string DefaultToml();

// Reads hatchery.toml's text. kInvalidArgument says where ("hatchery.toml:12: …") and what: broken
// TOML, a setting that does not exist (with the one that was probably meant), a wrong type, a value
// out of range, or two settings that contradict each other.
Result<Config> ParseToml(std::string_view text, const std::string& file_name);

// What a command line asks for: to run with `config`, or only to print `text` and exit with 0.
struct PrintAndExit {
  std::string text;
};
using Invocation = std::variant<Config, PrintAndExit>;

// Reads the command line (without argv[0]) and the file it names, if any. kInvalidArgument for what
// is wrong with either, kNotFound when the file is not there. Relative paths are taken from the
// working directory.
Result<Invocation> ParseCommandLine(const std::vector<std::string>& arguments);

}  // namespace hatchery::daemon
