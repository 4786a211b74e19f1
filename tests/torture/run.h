// One torture from beginning to end: a site, a daemon, clients, mischief for as long as it is
// wanted, then peace, the giving back of everything, and the checker's verdict. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tests/torture/mischief.h"
#include "tests/torture/operator.h"
#include "tests/torture/site.h"

namespace hatchery::torture {

struct RunOptions {
  std::uint64_t seed = 0;
  std::chrono::seconds length{60};
  std::uint64_t kills = 0;  // not 0: until the daemon has died so often, however long that takes
  unsigned clients = 6;
  std::uint32_t pool = 6;
  bool real_vmms = false;
  std::filesystem::path image_dir;  // of the guest, with real VMMs
  std::filesystem::path root;       // an empty folder; everything is below it
  double rate = 0;                  // of acquires per second (endurance); 0: 80% of the peak
  std::string drop;                 // a write that the daemon is to lose, to see the test fail
};

class Run {
 public:
  explicit Run(RunOptions options);
  ~Run();

  // What was found, a line each; empty: nothing was lost, handed out twice or left over. Says what
  // it does on stdout.
  std::vector<std::string> Do();

 private:
  struct Worker {
    std::string name;
    std::unique_ptr<Process> process;
  };

  bool Prepare();
  void StartWorker(Worker& worker);
  void KillWorker(std::uint64_t which);
  void RunInGuest(const std::string& vm, const std::string& script);
  bool IsOver(std::uint64_t deaths) const;
  // Waits so long; sees to the daemon if it dies meanwhile.
  void Wait(std::chrono::milliseconds time);
  void OnDeath(const ExitStatus& status);
  void Restart();
  bool StartDaemon();
  void LookAround();
  void MakePeace();
  void EndWorkers();
  void StopDaemon();
  void TearDown();
  void Found(const std::string& what);
  std::set<pid_t> Known();

  const RunOptions options_;
  bool own_disk_ = false;
  Site site_;
  Operator operator_;
  Mischief mischief_;
  boost::asio::io_context io_;
  PosixSpawner spawner_{io_.get_executor()};
  std::vector<Worker> workers_;
  std::uint64_t deaths_ = 0;
  std::chrono::steady_clock::time_point begun_;
  std::chrono::steady_clock::time_point looked_;
};

// How a daemon is to be run for `options`: its flags.
std::vector<std::string> DaemonFlags(const RunOptions& options);

// Says what the journals in a folder hold: deeds, calls, recoveries. Returns what the checker
// found.
std::vector<std::string> Report(const std::filesystem::path& journals);

}  // namespace hatchery::torture
