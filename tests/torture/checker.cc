#include "tests/torture/checker.h"

#include <algorithm>
#include <limits>

namespace hatchery::torture {

namespace {

constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();
// A call that was never answered can have had its effect so much later at most.
constexpr std::int64_t kUnanswered = 60'000'000'000;
constexpr int kOk = 0, kNotFound = 5, kFailedPrecondition = 9;

std::string Text(const Json& line, const char* key) { return line.value(key, std::string()); }
std::int64_t Number(const Json& line, const char* key) { return line.value(key, std::int64_t{0}); }

// The processes in a line's "vmms".
std::set<std::pair<std::int64_t, std::uint64_t>> Processes(const Json& line) {
  std::set<std::pair<std::int64_t, std::uint64_t>> all;
  for (const Json& vmm : line.value("vmms", Json::array())) {
    all.emplace(Number(vmm, "pid"), vmm.value("start", std::uint64_t{0}));
  }
  return all;
}

// Does this answer say that there is no such lease?
bool SaysGone(const std::string& call, int code) {
  return code == kNotFound || (code == kFailedPrecondition && call != "renew");
}

}  // namespace

void Checker::Violation(std::int64_t at, const std::string& text) {
  // Once: a VM that is gone is found missing by every look.
  if (told_.insert(text).second) violations_.push_back("at " + std::to_string(at) + ": " + text);
}

std::set<std::string> Checker::vms() const {
  std::set<std::string> all;
  for (const auto& [sandbox, lease] : leases_) {
    if (lease.granted) all.insert(lease.vm);
  }
  return all;
}

bool Checker::IsSure(const Lease& lease, Time at) const {
  return lease.granted && lease.release_asked == 0 && lease.ended == 0 && at < lease.sure_until;
}

void Checker::Read(const Json& line) {
  if (const std::string did = Text(line, "did"); !did.empty()) return OnDid(line, did);
  const std::string sandbox = Text(line, "sandbox");
  Lease& lease = leases_[sandbox];
  lease.sandbox = sandbox;
  lease.client = Text(line, "client");
  if (const std::string call = Text(line, "call"); !call.empty()) OnCall(line, lease, call);
  if (const std::string reply = Text(line, "reply"); !reply.empty()) OnReply(line, lease, reply);
}

void Checker::OnCall(const Json& line, Lease& lease, const std::string& call) {
  const Time at = Number(line, "at");
  lease.calls[call] = at;
  if (call == "release") lease.release_asked = at;
  if (call == "acquire") {
    lease.request = Text(line, "request");
    lease.term = Text(line, "term");
    lease.ttl = Number(line, "ttl_ms") * 1'000'000;
  }
  if (lease.term == "ttl" && (call == "acquire" || call == "renew")) {
    lease.possible_until =
        std::max(lease.possible_until, at + kUnanswered + lease.ttl + limits_.grace.count());
  }
}

void Checker::OnReply(const Json& line, Lease& lease, const std::string& call) {
  const Time at = Number(line, "at");
  const int code = static_cast<int>(Number(line, "code"));
  ++counts_[call + (code == kOk ? " ok" : " failed")];
  const auto pending = lease.calls.find(call);
  const Time asked = pending == lease.calls.end() ? at : pending->second;
  if (pending != lease.calls.end()) lease.calls.erase(pending);
  const bool extends = call == "acquire" || call == "renew";
  if (extends && lease.term == "ttl") {
    // Answered: what it did, it did by now.
    lease.possible_until = at + lease.ttl + limits_.grace.count();
  }
  if (code == kOk) {
    if (call == "acquire") OnGranted(line, lease, asked);
    if (call == "exec") OnAnswer(line, lease, asked);
    if (call == "renew") lease.sure_until = std::max(lease.sure_until, asked + lease.ttl);
    if (call == "release") lease.ended = at;
  } else if (SaysGone(call, code)) {
    OnGone(line, lease);
  }
}

void Checker::Own(const std::string& kind, const std::string& what, const Lease& lease, Time at) {
  if (what.empty()) return;
  const auto [owner, is_new] = owners_.emplace(std::pair(kind, what), lease.sandbox);
  if (!is_new && owner->second != lease.sandbox) {
    Violation(at, kind + " " + what + " was handed out twice: to " + owner->second + " and to " +
                      lease.sandbox);
  }
}

void Checker::OnGranted(const Json& line, Lease& lease, Time asked) {
  const Time at = Number(line, "at");
  const std::string vm = Text(line, "vm");
  if (lease.granted && lease.vm != vm) {
    Violation(at, lease.sandbox + " asked again and got VM " + vm + " after " + lease.vm);
  }
  lease.granted = true;
  lease.granted_at = at;
  lease.vm = vm;
  lease.machine = Text(line, "machine");
  lease.boot = Text(line, "boot");
  lease.process = {Number(line, "pid"), line.value("start", std::uint64_t{0})};
  lease.sure_until = lease.term == "ttl" ? std::max(lease.sure_until, asked + lease.ttl) : kForever;
  if (lease.term != "ttl") lease.possible_until = kForever;
  Own("VM", vm, lease, at);
  Own("machine id", lease.machine, lease, at);
  Own("boot id", lease.boot, lease, at);
  if (lease.process.second == 0) {
    if (!IsHurt(vm) && IsSure(lease, at)) {
      Violation(at, "VM " + vm + " of " + lease.sandbox + " was dead when it was handed out");
    }
    return;
  }
  Own("process",
      std::to_string(lease.process.first) + " of " + std::to_string(lease.process.second), lease,
      at);
}

void Checker::OnAnswer(const Json& line, const Lease& lease, Time asked) {
  const Time at = Number(line, "at");
  const std::string who = "VM " + lease.vm + " of " + lease.sandbox;
  if (lease.ended != 0 && asked > lease.ended) {
    Violation(at, who + " answers after its end");
  }
  if (lease.machine != Text(line, "machine") || lease.boot != Text(line, "boot")) {
    Violation(at, who + " answers as another: machine id '" + Text(line, "machine") +
                      "', boot id '" + Text(line, "boot") + "'");
  }
  const std::string mark = Text(line, "mark");
  if (!mark.empty() && mark != lease.sandbox) {
    Violation(at, who + " carries the mark of " + mark);
  }
}

void Checker::OnGone(const Json& line, Lease& lease) {
  const Time at = Number(line, "at");
  if (IsSure(lease, at) && !IsHurt(lease.vm)) {
    Violation(at, "VM " + lease.vm + " of " + lease.sandbox +
                      " is said to be gone: " + Text(line, "message"));
  }
  if (IsSure(lease, at) && IsHurt(lease.vm)) ++counts_["deaths reported"];
  if (lease.granted && lease.ended == 0) lease.ended = at;
}

void Checker::OnDid(const Json& line, const std::string& did) {
  const Time at = Number(line, "at");
  ++counts_[did];
  if (const std::string vm = Text(line, "hurts"); !vm.empty()) hurt_.insert(vm);
  if (did == "start daemon") recovering_ = true;
  if (did == "daemon ready") {
    ready_since_ = at;
    recovering_ = false;
  }
  if (did == "daemon ends" || did == "daemon ended") ready_since_ = 0;
  if (did == "client ends") {
    for (auto& [sandbox, lease] : leases_) {
      if (lease.term != "caller" || lease.client != Text(line, "client")) continue;
      lease.sure_until = std::min(lease.sure_until, at);
      lease.possible_until = std::min(lease.possible_until, at + limits_.grace.count());
    }
  }
  if (did == "looked") OnLooked(line);
  if (did == "read the store") OnStoreRead(line);
  for (const Json& found : line.value("left", Json::array())) {
    Violation(at, "left over: " + found.get<std::string>());
  }
}

void Checker::OnLooked(const Json& line) {
  const Time at = Number(line, "at"), begun = Number(line, "begun");
  const auto processes = Processes(line);
  for (const auto& [sandbox, lease] : leases_) {
    if (!lease.granted || lease.process.second == 0) continue;
    const bool lives = processes.contains(lease.process);
    const std::string who = "VM " + lease.vm + " of " + sandbox;
    if (!lives && IsSure(lease, at) && lease.granted_at < begun && !IsHurt(lease.vm)) {
      Violation(at, who + " is dead, and nobody hurt it");
    }
    Time end = lease.ended != 0 ? lease.ended : kForever;
    if (lease.possible_until < end) end = lease.possible_until;
    const bool overdue = end != kForever && ready_since_ != 0 &&
                         begun > std::max(end, ready_since_) + limits_.to_end.count();
    if (lives && overdue) Violation(at, who + " lives on after its lease's end");
  }
}

void Checker::OnStoreRead(const Json& line) {
  const Time at = Number(line, "at");
  const Json vms = line.value("vms", Json::object());
  const Json leases = line.value("leases", Json::object());
  for (const auto& [sandbox, lease] : leases_) {
    if (!IsSure(lease, at) || IsHurt(lease.vm)) continue;
    const bool on_record = vms.value(lease.vm, "") == "assigned" && leases.contains(lease.vm);
    if (!on_record) Violation(at, "the store has no lease of VM " + lease.vm + " of " + sandbox);
  }
  // A recovery gives up on a record first and ends the process then: the next one knows it as its
  // own.
  if (recovering_) return;
  for (const Json& vmm : line.value("vmms", Json::array())) {
    if (const std::string vm = Text(vmm, "vm"); !vms.contains(vm)) {
      Violation(at, "the VMM of " + vm + " is not on record");
    }
  }
}

void Checker::Finish() {
  for (const auto& [sandbox, lease] : leases_) {
    if (lease.granted && lease.ended == 0 && lease.possible_until == kForever) {
      Violation(0, "VM " + lease.vm + " of " + sandbox + " could not be given back");
    }
  }
}

}  // namespace hatchery::torture
