#include "agent/guest/onliner.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <system_error>
#include <utility>
#include <vector>

namespace hatchery::agent::guest {

namespace {

constexpr std::chrono::milliseconds kRetryInterval{20};
constexpr std::string_view kCpus = "/sys/devices/system/cpu";
constexpr std::string_view kMemory = "/sys/devices/system/memory";

// The folders "<parent>/<prefix><number>".
std::vector<std::string> Numbered(const GuestSystem& system, std::string_view parent,
                                  std::string_view prefix) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator it(system.Path(parent), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    if (name.starts_with(prefix) && name.size() > prefix.size() &&
        std::all_of(name.begin() + static_cast<std::ptrdiff_t>(prefix.size()), name.end(),
                    [](unsigned char c) { return std::isdigit(c) != 0; })) {
      found.push_back(std::string(parent) + "/" + name);
    }
  }
  return found;
}

void OnlineCpus(GuestSystem& system, std::string& problem) {
  for (const std::string& cpu : Numbered(system, kCpus, "cpu")) {
    const auto state = system.Read(cpu + "/online");  // absent where a CPU is always online
    if (!state || *state != "0") continue;
    const auto written = system.WriteKernelFile(cpu + "/online", "1");
    if (!written) problem = written.error().message;
  }
}

void OnlineMemory(GuestSystem& system, const std::vector<std::string>& blocks,
                  std::string& problem) {
  for (const std::string& block : blocks) {
    const auto state = system.Read(block + "/state");
    if (!state || *state != "offline") continue;
    const auto written = system.WriteKernelFile(block + "/state", "online_movable");
    if (!written) problem = written.error().message;
  }
}

Online Look(GuestSystem& system, bool bring_online) {
  Online online;
  const std::vector<std::string> blocks = Numbered(system, kMemory, "memory");
  if (bring_online) {
    // Memory first: it takes a few milliseconds, a CPU a hundred.
    OnlineMemory(system, blocks, online.problem);
    OnlineCpus(system, online.problem);
  }
  const Bytes block_size = MemoryBlockSize(system);
  for (const std::string& block : blocks) {
    if (system.Read(block + "/state").value_or("") == "online") online.memory += block_size;
  }
  online.vcpus = CountCpuList(system.Read(std::string(kCpus) + "/online").value_or(""));
  return online;
}

}  // namespace

std::uint32_t CountCpuList(std::string_view list) {
  std::uint32_t count = 0;
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at < end) {
    std::uint32_t first = 0;
    auto parsed = std::from_chars(at, end, first);
    if (parsed.ec != std::errc()) return 0;
    std::uint32_t last = first;
    if (parsed.ptr < end && *parsed.ptr == '-') {
      parsed = std::from_chars(parsed.ptr + 1, end, last);
      if (parsed.ec != std::errc() || last < first) return 0;
    }
    count += last - first + 1;
    if (parsed.ptr < end && *parsed.ptr != ',') return 0;
    at = parsed.ptr + 1;
  }
  return count;
}

Bytes MemoryBlockSize(const GuestSystem& system) {
  const std::string text =
      system.Read(std::string(kMemory) + "/block_size_bytes").value_or("0");  // hexadecimal
  std::uint64_t size = 0;
  std::from_chars(text.data(), text.data() + text.size(), size, 16);
  return Bytes(size);
}

Onliner::Onliner(EventLoop& loop, Worker& worker, GuestSystem& system, bool has_uevents)
    : loop_(loop), worker_(worker), system_(system), has_uevents_(has_uevents) {
  // Once, here: the first call should find the counts.
  online_ = Look(system_, true);
}

Onliner::~Onliner() {
  loop_.CancelTimer(retry_);
  for (auto& [_, waiter] : waiters_) loop_.CancelTimer(waiter.timer);
}

void Onliner::OnUevent(const Uevent& event) {
  const bool lost = event.action.empty();
  if (!lost && event.subsystem != "cpu" && event.subsystem != "memory") return;
  // Only what is new is brought online: what was taken offline later, was so on purpose.
  Request(lost || event.action == "add" ? Scan::kBringOnline : Scan::kCount);
}

void Onliner::Request(Scan scan) {
  if (scanning_) {
    again_ = true;
    next_ = std::max(next_, scan);
    return;
  }
  scanning_ = true;
  worker_.Submit([this, scan] {
    Online online = Look(system_, scan == Scan::kBringOnline);
    loop_.Post([this, online = std::move(online)] { OnScanned(online); });
  });
}

void Onliner::OnScanned(Online online) {
  scanning_ = false;
  online_ = std::move(online);
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (!IsEnough(it->second)) {
      ++it;
      continue;
    }
    loop_.CancelTimer(it->second.timer);
    const Done done = std::move(it->second.done);
    it = waiters_.erase(it);
    done(online_);
  }
  if (std::exchange(again_, false)) return Request(std::exchange(next_, Scan::kCount));
  // A write can fail for a moment (EBUSY); only that, or a kernel that tells nothing, needs a
  // clock.
  if (!waiters_.empty() && (!has_uevents_ || !online_.problem.empty())) {
    loop_.CancelTimer(retry_);
    retry_ = loop_.RunAt(std::chrono::steady_clock::now() + kRetryInterval,
                         [this] { Request(Scan::kBringOnline); });
  }
}

bool Onliner::IsEnough(const Waiter& waiter) const {
  return online_.vcpus >= waiter.vcpus && online_.memory >= waiter.memory;
}

Error Onliner::Shortfall(const Waiter& waiter) const {
  using std::chrono::milliseconds;
  const auto waited = std::chrono::round<milliseconds>(waiter.timeout).count();
  const std::string after =
      waited % 1000 == 0 ? std::to_string(waited / 1000) + " s" : std::to_string(waited) + " ms";
  std::string text;
  if (online_.vcpus < waiter.vcpus) {
    text = "vcpus: " + std::to_string(online_.vcpus) + " of " + std::to_string(waiter.vcpus);
  } else {
    text = "memory: " + ToString(online_.memory) + " of " + ToString(waiter.memory);
  }
  text += " online after " + after;
  if (!online_.problem.empty()) text += " (" + online_.problem + ")";
  return Error{Code::kDeadlineExceeded, std::move(text)};
}

Onliner::WaitId Onliner::WaitFor(std::uint32_t vcpus, Bytes memory,
                                 std::chrono::nanoseconds timeout, Done done) {
  Waiter waiter{vcpus, memory, timeout, {}, std::move(done)};
  if (IsEnough(waiter)) {
    waiter.done(online_);
    return 0;
  }
  const WaitId id = ++last_id_;
  waiter.timer = loop_.RunAt(std::chrono::steady_clock::now() + timeout, [this, id] {
    auto node = waiters_.extract(id);
    node.mapped().done(std::unexpected(Shortfall(node.mapped())));
  });
  waiters_.emplace(id, std::move(waiter));
  Request(Scan::kBringOnline);
  return id;
}

void Onliner::CancelWait(WaitId id) {
  if (const auto node = waiters_.extract(id)) loop_.CancelTimer(node.mapped().timer);
}

}  // namespace hatchery::agent::guest
