#include "tests/torture/worker.h"

#include <signal.h>

#include <cstdio>
#include <ctime>
#include <vector>

#include "tests/torture/client.h"
#include "tests/torture/dice.h"
#include "tests/torture/journal.h"

namespace hatchery::torture {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMostHeld = 4;
// Requests of unknown outcome: with more, only these are asked for again.
constexpr std::size_t kMostAsked = 4;

// Waits, unless SIGTERM comes first; then true. SIGTERM is blocked.
bool ToldToEnd(milliseconds patience) {
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  const timespec time{.tv_sec = patience.count() / 1000,
                      .tv_nsec = patience.count() % 1000 * 1'000'000};
  return ::sigtimedwait(&end, nullptr, &time) == SIGTERM;
}

class Worker {
 public:
  explicit Worker(const WorkerOptions& options)
      : options_(options),
        journal_(options.journals / (options.name + ".jsonl")),
        client_(options.name, options.socket, journal_) {
    const auto lines = ReadJournal(options.journals / (options.name + ".jsonl"));
    client_.Recall(lines);
    for (const Json& line : lines) step_ = line.value("step", step_);
  }

  void Step();
  // How long until the next step.
  milliseconds pause() const { return pause_; }
  // True when nothing is held any more.
  bool Close();

 private:
  milliseconds Patience(Dice& dice) const;
  void AskForNew(Dice& dice);
  void AskAgain(Dice& dice);

  const WorkerOptions options_;
  Journal journal_;
  Client client_;
  std::uint64_t step_ = 0;
  milliseconds pause_{0};
};

// Mostly enough; sometimes so little that the call is cancelled on its way.
milliseconds Worker::Patience(Dice& dice) const {
  const bool hasty = dice.Chance(15);
  const auto little = milliseconds(dice.Between(1, options_.real_guests ? 2000 : 40));
  return hasty ? little : milliseconds(options_.real_guests ? 60'000 : 20'000);
}

void Worker::AskForNew(Dice& dice) {
  Wish wish;
  wish.sandbox = options_.name + "-" + std::to_string(step_);
  const bool has_id = dice.Chance(80);
  if (has_id) wish.request_id = "r-" + wish.sandbox;
  const auto term = dice.Below(10);
  if (term >= 5) wish.term = term >= 8 ? Term::kCaller : Term::kTtl;
  const auto ttl = milliseconds(dice.Between(1000, 8000));
  if (wish.term == Term::kTtl) wish.ttl = options_.real_guests ? 10 * ttl : ttl;
  if (dice.Chance(15)) wish.vcpus = 2;
  const auto status = client_.Acquire(wish, Patience(dice));
  // Without an id there is no asking again; if it was granted, ReleaseUnheard() finds it.
  if (!status.ok() && !has_id) client_.GiveUp(wish.sandbox);
}

void Worker::AskAgain(Dice& dice) {
  auto it = client_.asked().begin();
  std::advance(it, dice.Below(client_.asked().size()));
  const Wish wish = it->second;
  (void)client_.Acquire(wish, Patience(dice));
}

void Worker::Step() {
  ++step_;
  journal_.Write({{"did", "step"}, {"client", options_.name}, {"step", step_}});
  Dice dice(options_.seed, options_.name, step_);
  pause_ = milliseconds(dice.Between(0, options_.real_guests ? 500 : 60));
  const auto action = dice.Below(100);
  const auto which = dice.Next();
  const auto patience = Patience(dice);
  const auto asked = client_.asked().size();
  if (asked >= kMostAsked || (asked > 0 && action < 40)) return AskAgain(dice);
  if (client_.held().empty() || (client_.held().size() < kMostHeld && action < 40)) {
    return AskForNew(dice);
  }
  auto it = client_.held().begin();
  std::advance(it, which % client_.held().size());
  const std::string sandbox = it->first;
  if (action < 65) {
    (void)client_.Exec(sandbox, patience);
  } else if (action < 75 && it->second.wish.term == Term::kTtl) {
    (void)client_.Renew(sandbox, patience);
  } else if (action < 78) {
    (void)client_.ReleaseUnheard(patience);
  } else {
    (void)client_.Release(sandbox, patience);
  }
}

bool Worker::Close() {
  const auto patience = milliseconds(options_.real_guests ? 60'000 : 20'000);
  const auto asked = client_.asked();
  for (const auto& [sandbox, wish] : asked) (void)client_.Acquire(wish, patience);
  auto held = client_.held();
  for (const auto& [sandbox, holding] : held) (void)client_.Exec(sandbox, patience);
  held = client_.held();
  for (const auto& [sandbox, holding] : held) (void)client_.Release(sandbox, patience);
  const auto unheard = client_.ReleaseUnheard(patience);
  return unheard.ok() && client_.asked().empty() && client_.held().empty();
}

}  // namespace

int RunWorker(const WorkerOptions& options) {
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &end, nullptr);
  Worker worker(options);
  while (!ToldToEnd(worker.pause())) worker.Step();
  const auto until = std::chrono::steady_clock::now() + options.last_words;
  while (!worker.Close()) {
    if (std::chrono::steady_clock::now() >= until) {
      std::fprintf(stderr, "%s could not give back all that it holds\n", options.name.c_str());
      return 1;
    }
    (void)ToldToEnd(milliseconds(200));
  }
  return 0;
}

}  // namespace hatchery::torture
