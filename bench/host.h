// Where a benchmark on real VMs takes place: a hatcheryd of our own with one template, and the same
// parts without a daemon beside it, on that template.
#pragma once

#include <functional>
#include <memory>

#include "bench/benchmark.h"
#include "bench/daemon.h"
#include "bench/local.h"
#include "bench/recorder.h"
#include "bench/served.h"
#include "cmd/hatchery/local.h"

namespace hatchery::bench {

class Host {
 public:
  // Starts the daemon below `root`, an existing folder of our own, and makes the template; fills
  // setup.environment.
  static Result<std::unique_ptr<Host>> Start(const Setup& setup, const std::filesystem::path& root);

  Served& served() { return *served_; }
  Local& local() { return *local_; }
  Daemon& daemon() { return *daemon_; }
  Sizes base() const { return {setup_.vcpus, setup_.memory}; }  // of the template
  bool interrupted() const { return setup_.interrupt.signal() != 0; }
  void Say(const std::string& text) const { setup_.say(text); }

  // Runs a Task of local() to its end.
  template <class T>
  Result<T> Run(Task<T> task) {
    return cli::RunHere(io_, setup_.interrupt, std::move(task));
  }

  // Ends the daemon and its VMs. Without it, the destructor does.
  Result<void> End() { return daemon_->End(); }

 private:
  explicit Host(const Setup& setup) : setup_(setup) {}

  const Setup& setup_;
  asio::io_context io_;
  std::unique_ptr<Daemon> daemon_;
  std::unique_ptr<Served> served_;
  std::unique_ptr<Local> local_;
};

// A VM of Host::local(), ended when this goes.
class Guest {
 public:
  explicit Guest(Host& host) : host_(host) {}
  Guest(Host& host, factory::Machine machine) : machine(std::move(machine)), host_(host) {}
  ~Guest() { (void)End(); }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  Result<void> End() {
    return machine.vm ? host_.Run(host_.local().Destroy(machine)) : Result<void>();
  }
  pid_t pid() const { return machine.vm->endpoints().pid; }

  factory::Machine machine;

 private:
  Host& host_;
};

// How many clones the daemon makes at once unless told otherwise: one per CPU.
std::size_t RefillConcurrency();

// A benchmark on a Host: starts one, lets `measure` record into `recorder`, ends it, and answers
// with what was recorded, the template's size among the parameters. `measure` returns an error only
// where it cannot go on at all. An error, too, if what was started could not be ended; kCancelled
// after an interrupt.
Result<Section> OnHost(const Setup& setup, Recorder recorder,
                       const std::function<Result<void>(Host&, Recorder&)>& measure);

}  // namespace hatchery::bench
