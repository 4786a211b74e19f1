#include "bench/load.h"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <latch>
#include <mutex>
#include <thread>

namespace hatchery::bench {

namespace {

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

void Count(Load& load, const Failure& failure, double seconds) {
  if (failure.empty()) {
    load.samples.push_back(seconds);
  } else {
    ++load.failures[failure];
  }
}

}  // namespace

void Load::Add(const Load& other) {
  samples.insert(samples.end(), other.samples.begin(), other.samples.end());
  for (const auto& [reason, count] : other.failures) failures[reason] += count;
  seconds += other.seconds;
}

void Load::Time(const std::function<Failure()>& call) {
  const auto start = std::chrono::steady_clock::now();
  const Failure failure = call();
  Count(*this, failure, Seconds(std::chrono::steady_clock::now() - start));
}

Load RunClosedLoop(int clients, int calls, const std::function<Failure(int client)>& call,
                   const std::function<bool()>& stopped,
                   const std::function<void(int client)>& before) {
  std::vector<Load> parts(static_cast<std::size_t>(clients));
  std::latch ready(clients + 1), go(1);
  std::vector<std::jthread> threads;
  for (int client = 0; client < clients; ++client) {
    const int share = calls / clients + (client < calls % clients ? 1 : 0);
    threads.emplace_back([&, client, share] {
      Load& mine = parts[static_cast<std::size_t>(client)];
      mine.samples.reserve(static_cast<std::size_t>(share));
      ready.count_down();
      go.wait();
      for (int i = 0; i < share && !stopped(); ++i) {
        if (before) before(client);
        mine.Time([&] { return call(client); });
      }
    });
  }
  ready.arrive_and_wait();
  const auto start = std::chrono::steady_clock::now();
  go.count_down();
  threads.clear();  // joins them
  Load all;
  for (const auto& part : parts) all.Add(part);
  all.seconds = Seconds(std::chrono::steady_clock::now() - start);
  return all;
}

SendClock MakeSendClock() {
  return {[] { return std::chrono::steady_clock::now(); },
          [](SteadyTime at) {
            // The kernel may put a wake-up off by 50 us to save power; not for us.
            thread_local const int slack = ::prctl(PR_SET_TIMERSLACK, 1);
            (void)slack;
            const auto since = at.time_since_epoch();
            const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
            const timespec until{.tv_sec = seconds.count(), .tv_nsec = (since - seconds).count()};
            while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
            }
          }};
}

Load RunOpenLoop(const SendClock& clock, double rate, std::size_t calls,
                 const std::function<void(std::size_t index, Done done)>& start,
                 const std::function<bool()>& stopped) {
  std::mutex mutex;
  std::condition_variable fewer;
  std::size_t in_flight = 0;  // under mutex, as is `load`
  Load load;
  load.samples.reserve(calls);
  const SteadyTime begin = clock.now();
  for (std::size_t i = 0; i < calls && !stopped(); ++i) {
    const auto offset = std::chrono::duration<double>(static_cast<double>(i) / rate);
    const SteadyTime due = begin + std::chrono::ceil<std::chrono::nanoseconds>(offset);
    if (clock.now() < due) clock.wait_until(due);
    {
      const std::lock_guard lock(mutex);
      if (in_flight >= kMaxInFlight) {
        Count(load, "not sent: " + std::to_string(kMaxInFlight) + " calls were under way", 0);
        continue;
      }
      ++in_flight;
    }
    start(i, [&, due](const Failure& failure) {
      const SteadyTime end = clock.now();
      const std::lock_guard lock(mutex);
      Count(load, failure, Seconds(end - due));
      // Under the mutex: once it is free and none is in flight, all this is gone.
      if (--in_flight == 0) fewer.notify_one();
    });
  }
  std::unique_lock lock(mutex);
  fewer.wait(lock, [&] { return in_flight == 0; });
  load.seconds = Seconds(clock.now() - begin);
  return load;
}

}  // namespace hatchery::bench
