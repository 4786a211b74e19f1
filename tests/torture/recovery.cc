#include "tests/torture/recovery.h"

#include <signal.h>

#include <cstdio>
#include <string>

#include "base/files.h"
#include "tests/torture/client.h"

namespace hatchery::torture {

namespace {

constexpr auto kPatience = std::chrono::minutes(10);

// The first thing that goes wrong.
Result<void> Measure(Site& site, unsigned vms, unsigned times) {
  const auto must = [](const grpc::Status& status, const char* what) -> Result<void> {
    if (status.ok()) return {};
    return Internal(std::string(what) + ": " + status.error_message());
  };
  Operator op(site.daemon().socket());
  Client client("c", site.daemon().socket(), site.journal());
  if (!site.Start()) return Internal("the daemon does not start: " + site.daemon().said());
  RETURN_IF_ERROR(must(op.Init(vms - vms / 2, kPatience), "init"));
  for (unsigned i = 0; i < vms / 2; ++i) {
    const std::string name = "c-" + std::to_string(i);
    RETURN_IF_ERROR(
        must(client.Acquire({.sandbox = name, .request_id = name}, kPatience), "acquire"));
  }
  for (unsigned i = 0; i < times; ++i) {
    RETURN_IF_ERROR(must(op.SetPool(vms - vms / 2, /*wait=*/true, kPatience), "filling the pool"));
    site.NoteEnds("kill");
    site.daemon().Kill();
    site.Look();
    if (!site.Start()) return Internal("the daemon does not start: " + site.daemon().said());
    Operator again(site.daemon().socket());
    if (!again.Status(kPatience)) return Internal("no answer after the restart");
    op = std::move(again);
    site.Look();
  }
  Client last("c", site.daemon().socket(), site.journal());
  last.Recall(ReadJournal(site.journals() / "torture.jsonl"));
  const auto held = last.held();
  for (const auto& [sandbox, holding] : held) {
    RETURN_IF_ERROR(must(last.Exec(sandbox, kPatience), "exec"));
    RETURN_IF_ERROR(must(last.Release(sandbox, kPatience), "release"));
  }
  RETURN_IF_ERROR(must(op.Destroy(kPatience), "destroy"));
  (void)site.daemon().Signal(SIGTERM);
  (void)site.daemon().WaitEnd(kPatience);
  return site.LookForLeftOvers({}, {});
}

}  // namespace

std::vector<std::string> MeasureRecovery(const RunOptions& options, unsigned vms, unsigned times) {
  AdoptOrphans();
  auto flags = DaemonFlags(options);
  for (const char* flag : {"--pool-learn", "false"}) flags.emplace_back(flag);
  std::vector<std::string> found;
  {
    Site site(options.root, ExecutablePath().parent_path() / "hatcheryd-torture", flags);
    if (auto measured = Measure(site, vms, times); !measured) {
      found.push_back(measured.error().message);
    }
    if (site.daemon().started()) site.daemon().Kill();
    for (const Vmm& vmm : FindVmms(site.state_dir())) ::kill(vmm.process.pid, SIGKILL);
  }
  for (auto& violation : Report(options.root / "journals")) found.push_back(std::move(violation));
  return found;
}

}  // namespace hatchery::torture
