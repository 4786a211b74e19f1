#include "cache/quarantine.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/duration.h"

namespace hatchery::cache {

using std::chrono::milliseconds;

Quarantine::Attempt::Attempt(Attempt&& other) noexcept
    : quarantine_(std::exchange(other.quarantine_, nullptr)),
      digest_(std::move(other.digest_)),
      probe_(other.probe_) {}

Quarantine::Attempt::~Attempt() {
  if (quarantine_ == nullptr || !probe_) return;
  const auto found = quarantine_->states_.find(digest_);
  if (found != quarantine_->states_.end()) found->second.probing = false;
}

void Quarantine::Attempt::Succeeded() { std::exchange(quarantine_, nullptr)->Forget(digest_); }

void Quarantine::Attempt::Failed(const std::string& why, Nanos now) {
  std::exchange(quarantine_, nullptr)->Failed(digest_, probe_, why, now);
}

Result<Quarantine::Attempt> Quarantine::Begin(const std::string& digest, const std::string& name,
                                              Nanos now) {
  const auto found = states_.find(digest);
  const bool quarantined = found != states_.end() && found->second.rounds > 0;
  if (!quarantined) return Attempt(*this, digest, false);
  State& state = found->second;
  if (now >= state.until && !state.probing) {
    state.probing = true;
    return Attempt(*this, digest, true);
  }
  const auto wait =
      state.probing ? kWhileProbing : std::chrono::ceil<milliseconds>(state.until - now);
  return Unavailable("no clones are made of template '" + name + "' for " + ToWholeSeconds(wait) +
                         ": its last " + std::to_string(state.failures) +
                         " failed, the last one with: " + state.last_error,
                     wait);
}

void Quarantine::Failed(const std::string& digest, bool probe, const std::string& why, Nanos now) {
  State& state = states_[digest];
  ++state.failures;
  state.last_error = why;
  const bool the_probe = probe && state.probing;
  if (the_probe) state.probing = false;
  // One that was begun before the quarantine says nothing new.
  const bool begins = state.rounds == 0 && state.failures >= after_;
  if (!begins && !the_probe) return;
  ++state.rounds;
  state.until = now + Backoff(digest, state.rounds);
}

Quarantine::Nanos Quarantine::Backoff(const std::string& digest, std::uint32_t rounds) const {
  constexpr std::uint32_t kMostDoublings = 10;
  const Nanos backoff = std::min(kFirst * (1 << std::min(rounds - 1, kMostDoublings)), kLast);
  const auto hash = std::hash<std::string>()(digest);
  const int percent = static_cast<int>(hash % (2 * kSpreadPercent + 1)) - kSpreadPercent;
  return backoff + backoff * percent / 100;
}

std::optional<Quarantine::State> Quarantine::Of(const std::string& digest) const {
  const auto found = states_.find(digest);
  if (found == states_.end() || found->second.rounds == 0) return std::nullopt;
  return found->second;
}

void Quarantine::Hurry(const std::string& digest) {
  const auto found = states_.find(digest);
  if (found != states_.end()) found->second.until = {};
}

}  // namespace hatchery::cache
