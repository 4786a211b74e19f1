// Where one torture happens: a state directory with its daemon, journals and controls beside it,
// and what the checker is told of all that.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "tests/torture/checker.h"
#include "tests/torture/controls.h"
#include "tests/torture/daemon.h"
#include "tests/torture/journal.h"

namespace hatchery::torture {

// The flags that make a daemon one of pretended VMs: `fake_qemu` is its VMM.
std::vector<std::string> FakeVmmFlags(const std::filesystem::path& fake_qemu);

class Site {
 public:
  // In the folder `root`, which exists: state/, journals/, daemon.log.
  Site(std::filesystem::path root, std::filesystem::path daemon, std::vector<std::string> flags);

  Daemon& daemon() { return daemon_; }
  Journal& journal() { return journal_; }
  Controls& controls() { return *controls_; }
  std::filesystem::path state_dir() const { return root_ / "state"; }
  std::filesystem::path journals() const { return root_ / "journals"; }

  // Starts the daemon and waits until it serves; false if it does not, or dies.
  bool Start(std::vector<std::string> environment = {});
  // Notes that the daemon is about to end, by whatever hand.
  void NoteEnds(const std::string& why);

  // Writes down what the process table shows.
  void Look();
  // With the daemon gone: writes down what the store holds, and where it is short of it: an error
  // says that it cannot be opened or read.
  Result<void> ReadStore();
  // After the last daemon has stopped: writes down what is left. `known`: this process's children
  // that may live.
  Result<void> LookForLeftOvers(const std::set<std::string>& vms, const std::set<pid_t>& known);

 private:
  const std::filesystem::path root_;
  Journal journal_;
  Controls* controls_ = nullptr;
  Daemon daemon_;
};

// What the journals in a folder prove.
Checker CheckJournals(const std::filesystem::path& journals, Checker::Limits limits);

}  // namespace hatchery::torture
