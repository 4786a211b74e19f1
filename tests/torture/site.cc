#include "tests/torture/site.h"

#include <stdexcept>

#include "base/files.h"
#include "cache/records.h"
#include "cache/vms.h"
#include "tests/torture/world.h"

namespace hatchery::torture {

namespace {

constexpr auto kReady = std::chrono::seconds(60);

Json ShowVmms(const std::filesystem::path& state_dir) {
  Json all = Json::array();
  for (const Vmm& vmm : FindVmms(state_dir)) {
    all.push_back({{"pid", vmm.process.pid}, {"start", vmm.process.start}, {"vm", vmm.vm}});
  }
  return all;
}

std::filesystem::path Prepared(const std::filesystem::path& root) {
  for (const char* folder : {"state", "journals"}) {
    if (auto made = MakeDirectories(root / folder); !made) {
      throw std::runtime_error(made.error().message);
    }
  }
  return root;
}

}  // namespace

std::vector<std::string> FakeVmmFlags(const std::filesystem::path& fake_qemu) {
  // Any file is a kernel to a VMM that boots none.
  return {"--qemu-binary",        fake_qemu, "--qemu-zygote",         "false",
          "--guest-kernel",       fake_qemu, "--guest-initrd",        fake_qemu,
          "--template-memory",    "128MiB",  "--template-max-memory", "1GiB",
          "--driver-accelerator", "tcg"};
}

Site::Site(std::filesystem::path root, std::filesystem::path daemon, std::vector<std::string> flags)
    : root_(Prepared(root)),
      journal_(journals() / "torture.jsonl"),
      daemon_({.binary = std::move(daemon),
               .state_dir = state_dir(),
               .flags = std::move(flags),
               .log = root_ / "daemon.log"}) {
  auto mapped = MapControls(root_ / "controls");
  if (!mapped) throw std::runtime_error(mapped.error().message);
  controls_ = *mapped;
}

bool Site::Start(std::vector<std::string> environment) {
  environment.push_back(std::string(kControlsVariable) + "=" + (root_ / "controls").string());
  journal_.Write({{"did", "start daemon"}});
  if (!daemon_.Start(std::move(environment)) || !daemon_.WaitReady(kReady)) return false;
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(daemon_.start_time());
  journal_.Write({{"did", "daemon ready"}, {"took_us", took.count()}});
  return true;
}

void Site::NoteEnds(const std::string& why) {
  journal_.Write({{"did", "daemon ends"}, {"why", why}});
}

void Site::Look() {
  const std::int64_t begun = SinceBootNs();
  Json vmms = ShowVmms(state_dir());
  journal_.Write({{"did", "looked"}, {"begun", begun}, {"vmms", std::move(vmms)}});
}

Result<void> Site::ReadStore() {
  Json vmms = ShowVmms(state_dir());
  ASSIGN_OR_RETURN(const auto store, cache::OpenRocksDb(state_dir() / "metadata"));
  ASSIGN_OR_RETURN(const auto stored, cache::LoadRecords(*store));
  Json vms = Json::object(), leases = Json::object();
  for (const auto& vm : stored.vms) vms[vm.id()] = cache::PhaseName(vm.phase());
  for (const auto& lease : stored.leases) leases[lease.vm_id()] = lease.id();
  journal_.Write({{"did", "read the store"},
                  {"vms", std::move(vms)},
                  {"leases", std::move(leases)},
                  {"vmms", std::move(vmms)}});
  return {};
}

Result<void> Site::LookForLeftOvers(const std::set<std::string>& vms,
                                    const std::set<pid_t>& known) {
  auto left = FindLeftOvers(state_dir(), vms, known);
  ASSIGN_OR_RETURN(const auto store, cache::OpenRocksDb(state_dir() / "metadata"));
  ASSIGN_OR_RETURN(const auto stored, cache::LoadRecords(*store));
  for (const auto& vm : stored.vms) left.push_back("a record of VM " + vm.id());
  for (const auto& lease : stored.leases) left.push_back("a record of lease " + lease.id());
  for (const auto& pool : stored.pools) left.push_back("a record of pool " + cache::PoolKey(pool));
  for (const auto& name : stored.template_names) left.push_back("a record of " + name.name());
  journal_.Write({{"did", "looked for what is left"}, {"left", left}});
  return {};
}

Checker CheckJournals(const std::filesystem::path& journals, Checker::Limits limits) {
  Checker checker(limits);
  for (const Json& line : ReadJournals(journals)) checker.Read(line);
  checker.Finish();
  return checker;
}

}  // namespace hatchery::torture
