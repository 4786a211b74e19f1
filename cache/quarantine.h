// Which templates are not to be cloned for now, because their clones keep failing. Pure policy: who
// clones asks before and tells after.
//
//   after `quarantine_after` failures in a row: none for 30 s, then one, to see whether it is well.
//   That one fails: none for twice as long, up to 10 minutes. It succeeds: as if nothing had been.
//
// By version: a new version of a template starts clean, and so does a new daemon. Loop thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/status.h"

namespace hatchery::cache {

class Quarantine {
 public:
  using Nanos = std::chrono::nanoseconds;

  // A clone that fails costs a VMM's start and seconds of one CPU. At one in 30 s that is not felt,
  // and a cause that passes by itself (memory was short, a disk was full) is over in about that
  // time. One that does not is somebody's to find, and trying every ten minutes costs nothing.
  static constexpr Nanos kFirst = std::chrono::seconds(30);
  static constexpr Nanos kLast = std::chrono::minutes(10);
  // Up to a tenth more or less, by version: templates that began to fail together, from one cause,
  // are not all tried at the same moment.
  static constexpr int kSpreadPercent = 10;
  // When to ask again while the one clone is being made that will tell.
  static constexpr std::chrono::milliseconds kWhileProbing = std::chrono::seconds(1);

  explicit Quarantine(std::uint32_t after) : after_(after) {}

  // One clone that may be made. If it is told neither how it went, it tells nothing of the
  // template.
  class Attempt {
   public:
    Attempt(Attempt&& other) noexcept;
    Attempt& operator=(Attempt&&) = delete;
    ~Attempt();
    void Succeeded();
    void Failed(const std::string& why, Nanos now);

   private:
    friend class Quarantine;
    Attempt(Quarantine& quarantine, std::string digest, bool probe)
        : quarantine_(&quarantine), digest_(std::move(digest)), probe_(probe) {}
    Quarantine* quarantine_;  // null once it was told
    std::string digest_;
    bool probe_;
  };

  // kUnavailable with the last clone's error, and when to ask again, if none may be made now. `now`
  // is of any clock that only goes forward; `name` is for the message.
  Result<Attempt> Begin(const std::string& digest, const std::string& name, Nanos now);

  struct State {
    std::uint32_t failures = 0;  // in a row
    std::uint32_t rounds = 0;    // of being quarantined; 0: it is not
    Nanos until{};               // with rounds > 0
    bool probing = false;        // likewise: the one clone is being made
    std::string last_error;
  };
  // Absent for a version that is not quarantined.
  std::optional<State> Of(const std::string& digest) const;

  // Somebody asks for it: the next clone may be tried at once.
  void Hurry(const std::string& digest);
  // The version is gone.
  void Forget(const std::string& digest) { states_.erase(digest); }

 private:
  void Failed(const std::string& digest, bool probe, const std::string& why, Nanos now);
  Nanos Backoff(const std::string& digest, std::uint32_t rounds) const;

  const std::uint32_t after_;
  std::map<std::string, State> states_;  // of versions whose last clone failed
};

}  // namespace hatchery::cache
