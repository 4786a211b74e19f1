// What the torture does to the world, one deed at a time, as its dice say; each is written down
// before it is done. Deeds that last (a stopped VMM, a full disk) end by themselves some deeds
// later, or with EndAll(). One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/torture/dice.h"
#include "tests/torture/site.h"
#include "tests/torture/world.h"

namespace hatchery::torture {

class Mischief {
 public:
  struct Means {
    Site& site;
    bool pretended_vmms = false;  // they can be made to send garbage
    bool own_disk = false;        // the state directory is a small file system of its own
    // SIGKILL for a client, which is then started again.
    std::function<void(std::uint64_t which)> kill_client;
    // Runs a shell command in the guest of a VM that somebody holds.
    std::function<void(const std::string& vm, const std::string& script)> run_in_guest;
  };

  explicit Mischief(Means means) : means_(std::move(means)) {}

  // Deed number `step`. The daemon runs.
  void Do(std::uint64_t seed, std::uint64_t step);
  // Undoes what lasts, if its time has come.
  void Undo();
  // Undoes all that lasts.
  void EndAll();

  // SIGKILLs, crash points that were set, and other ends of the daemon: that it was to die.
  bool expects_death() const { return expects_death_; }
  void DaemonStarted() { expects_death_ = false; }

 private:
  using Time = std::chrono::steady_clock::time_point;

  void KillDaemon();
  void StopDaemon();
  void CrashDaemon(Dice& dice);
  void PauseDaemon(Dice& dice);
  void HurtVmm(Dice& dice, const std::string& deed);
  void HurtAgent(Dice& dice);
  void FillDisk(Dice& dice);
  void RefuseWrites(Dice& dice);
  void FillDescriptors(Dice& dice);
  void SetClock(Dice& dice);
  void Note(const std::string& deed, Json more = Json::object());
  void Later(Dice& dice, std::int64_t least_ms, std::int64_t most_ms, std::function<void()> undo);

  Means means_;
  bool expects_death_ = false;
  std::multimap<Time, std::function<void()>> undo_;
};

}  // namespace hatchery::torture
