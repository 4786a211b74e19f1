#include "bench/host.h"

#include <algorithm>
#include <thread>

#include "base/files.h"
#include "bench/environment.h"

namespace hatchery::bench {

namespace {

void Describe(const v1::Template& made, Environment& environment) {
  environment.accelerator = DescribeAccelerator(made.accelerator(), environment);
  const auto version = made.fingerprint().find("vmm.version");
  environment.vmm = version != made.fingerprint().end() ? version->second : "unknown";
  environment.template_digest = made.digest();
}

}  // namespace

Result<std::unique_ptr<Host>> Host::Start(const Setup& setup, const fs::path& root) {
  const auto image = image::Find(setup.image_dir);
  if (!image) {
    return NotFound("there is no guest image in " + setup.image_dir.string() +
                    "; build it with `hatchery image build -o " + setup.image_dir.string() + "`");
  }
  std::unique_ptr<Host> host(new Host(setup));
  setup.say("starting a daemon");
  ASSIGN_OR_RETURN(host->daemon_, Daemon::Start(host->io_, setup.interrupt,
                                                {.binary = setup.daemon,
                                                 .state_dir = root / "state",
                                                 .image_dir = setup.image_dir,
                                                 .accelerator = setup.accelerator,
                                                 .qemu = setup.qemu}));
  host->served_ = std::make_unique<Served>(host->io_, setup.interrupt, host->daemon_->client());
  setup.say("making a template");
  ASSIGN_OR_RETURN(const v1::Template made, host->served_->MakeTemplate(host->base()));
  Describe(made, setup.environment);

  LocalOptions options{.root = root / "local", .image = *image, .qemu = setup.qemu};
  ASSIGN_OR_RETURN(options.accelerator, hypervisor::ParseAccelerator(made.accelerator()));
  options.shape = {.vcpus = made.vcpus(),
                   .max_vcpus = made.max_vcpus(),
                   .memory = Bytes(made.memory_bytes()),
                   .max_memory = Bytes(made.max_memory_bytes())};
  RETURN_IF_ERROR(MakeDirectories(options.root, 0700));
  host->local_ = std::make_unique<Local>(host->io_, std::move(options));
  RETURN_IF_ERROR(
      host->Run(host->local_->UseTemplate(root / "state" / "templates" / made.digest())));
  return host;
}

std::size_t RefillConcurrency() { return std::max(1u, std::thread::hardware_concurrency()); }

Result<Section> OnHost(const Setup& setup, Recorder recorder,
                       const std::function<Result<void>(Host&, Recorder&)>& measure) {
  recorder.Parameter("vcpus", std::to_string(setup.vcpus));
  recorder.Parameter("memory", ToString(setup.memory));
  // An interrupt between two steps must not leave anything behind either.
  const cli::Interrupt::Scope hold(setup.interrupt, [] {});
  ASSIGN_OR_RETURN(TempDir scratch, TempDir::Create(fs::temp_directory_path(), "hatchery-bench-"));
  auto host = Host::Start(setup, scratch.path());
  Result<void> measured, ended;
  if (host) {
    measured = measure(**host, recorder);
    setup.say("ending the daemon");
    ended = (*host)->End();
  }
  if (setup.interrupt.signal() != 0) return Cancelled("interrupted");
  if (!host) return std::unexpected(host.error());
  RETURN_IF_ERROR(measured);
  RETURN_IF_ERROR(ended);
  return std::move(recorder).Finish();
}

}  // namespace hatchery::bench
