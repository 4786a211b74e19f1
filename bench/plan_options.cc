#include "bench/plan_options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/duration.h"

namespace hatchery::bench {

namespace {

// Beyond these it is a slip of the finger: a benchmark would not end, or not fit on any host.
constexpr int kMaxSamples = 1'000'000;
constexpr std::uint32_t kMaxVms = 100'000;
constexpr int kMaxClients = 10'000;
constexpr double kMaxRate = 10'000'000;
constexpr std::chrono::hours kMaxOpenLoop{1};

std::unexpected<Error> Bad(std::string message) {
  return MakeError(Code::kInvalidArgument, std::move(message));
}

template <class Number>
Result<Number> ParseNumber(const std::string& text, Number least, Number most) {
  Number number{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || !(number >= least && number <= most)) {
    std::string wanted = "not a number from ";
    if constexpr (std::is_floating_point_v<Number>) {
      wanted = "not a rate, which is above 0 and at most " + std::to_string(std::llround(most));
    } else {
      wanted += std::to_string(least) + " to " + std::to_string(most);
    }
    return Bad("'" + text + "' is " + wanted);
  }
  return number;
}

template <class Number>
Result<std::vector<Number>> ParseList(const std::string& text, Number least, Number most) {
  std::vector<Number> numbers;
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    ASSIGN_OR_RETURN(const Number number,
                     ParseNumber<Number>(text.substr(at, end - at), least, most));
    numbers.push_back(number);
    at = end + 1;
  }
  return numbers;
}

Result<std::chrono::seconds> ParseSeconds(const std::string& text) {
  ASSIGN_OR_RETURN(const auto duration, ParseDuration(text));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
  if (seconds != duration || seconds.count() == 0 || seconds > kMaxOpenLoop) {
    return Bad("'" + text + "' is not whole seconds, from 1s to 1h");
  }
  return seconds;
}

template <class Number>
auto Count(Number least, Number most) {
  return [least, most](const std::string& text) { return ParseNumber<Number>(text, least, most); };
}

template <class Number>
auto List(Number least, Number most) {
  return [least, most](const std::string& text) { return ParseList<Number>(text, least, most); };
}

template <class Number>
std::string Joined(const std::vector<Number>& numbers) {
  std::string text;
  for (const Number number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
  return text;
}

}  // namespace

std::string OneWord(Bytes bytes) {
  std::string text = ToString(bytes);
  std::erase(text, ' ');
  return text;
}

Result<Bytes> ParseSize(const std::string& text) {
  ASSIGN_OR_RETURN(const Bytes bytes, ParseBytes(text));
  if (bytes.count() == 0) return Bad("'" + text + "' is no size to measure with");
  return bytes;
}

void AddOptions(CLI::App* verb, PlanOptions<ColdStartPlan>& options) {
  using Plan = ColdStartPlan;
  const Plan plan;
  options.Add(verb, "--samples", &Plan::samples, "Acquires, and as many clones", "N",
              std::to_string(plan.samples), Count(1, kMaxSamples));
  options.Add(verb, "--cold-boots", &Plan::cold_boots, "Cold boots, spread among them", "N",
              std::to_string(plan.cold_boots), Count(1, kMaxSamples));
  options.Add(verb, "--warm-ups", &Plan::warm_ups, "Rounds before, which are not counted", "N",
              std::to_string(plan.warm_ups), Count(0, kMaxSamples));
  options.Add(verb, "--burst", &Plan::burst, "Acquires at once, at the end", "N",
              std::to_string(plan.burst), Count<std::uint32_t>(1, kMaxVms));
}

void AddOptions(CLI::App* verb, PlanOptions<BurstPlan>& options) {
  using Plan = BurstPlan;
  const Plan plan;
  options.Add(verb, "--size", &Plan::size, "Acquires at once, on a pool of as many", "N",
              std::to_string(plan.size), Count<std::uint32_t>(1, kMaxVms));
  options.Add(verb, "--rounds", &Plan::rounds, "Bursts, and refills after them", "N",
              std::to_string(plan.rounds), Count(1, kMaxSamples));
  options.Add(verb, "--singles", &Plan::singles, "Acquires one by one, to compare with", "N",
              std::to_string(plan.singles), Count(1, kMaxSamples));
}

void AddOptions(CLI::App* verb, PlanOptions<DensityPlan>& options) {
  using Plan = DensityPlan;
  const Plan plan;
  options.Add(verb, "--limit", &Plan::limit, "Private memory of all VMs together to stop at",
              "SIZE", OneWord(plan.limit), ParseSize);
  options.Add(verb, "--max-vms", &Plan::max_vms, "VMs to stop at", "N",
              std::to_string(plan.max_vms), Count<std::uint32_t>(1, kMaxVms));
  options.Add(verb, "--step", &Plan::step, "VMs between two looks", "N", std::to_string(plan.step),
              Count<std::uint32_t>(1, kMaxVms));
  options.Add(verb, "--cold-boots", &Plan::cold_boots, "Cold-booted VMs to compare with", "N",
              std::to_string(plan.cold_boots), Count(1, kMaxSamples));
}

void AddOptions(CLI::App* verb, PlanOptions<RpcPlan>& options) {
  using Plan = RpcPlan;
  const Plan plan;
  options.Add(verb, "--calls", &Plan::calls, "Calls of each kind, at each point", "N",
              std::to_string(plan.calls), Count(1, kMaxSamples));
  options.Add(verb, "--concurrency", &Plan::concurrency, "Clients at once (closed loop)", "N,N,...",
              Joined(plan.concurrency), List(1, kMaxClients));
  options.Add(verb, "--pools", &Plan::pools, "Pooled VMs", "N,N,...", Joined(plan.pools),
              List<std::uint32_t>(1, kMaxVms));
  options.Add(verb, "--rates", &Plan::rates, "Calls per second (open loop)", "N,N,...",
              "half and 80% of the peak", List(1e-3, kMaxRate));
  options.Add(verb, "--open-loop", &Plan::open_loop, "How long at each rate", "DURATION",
              ToString(plan.open_loop), ParseSeconds);
}

void AddOptions(CLI::App* verb, PlanOptions<ResizePlan>& options) {
  using Plan = ResizePlan;
  const Plan plan;
  options.Add(verb, "--samples", &Plan::samples, "Acquires of each kind", "N",
              std::to_string(plan.samples), Count(1, kMaxSamples));
  options.Add(verb, "--warm-ups", &Plan::warm_ups, "Rounds before, which are not counted", "N",
              std::to_string(plan.warm_ups), Count(0, kMaxSamples));
  options.Add(verb, "--add-vcpus", &Plan::vcpus, "vCPUs to add", "N", std::to_string(plan.vcpus),
              Count<std::uint32_t>(0, 1024));
  options.Add(verb, "--add-memory", &Plan::memory, "Memory to add", "SIZE", OneWord(plan.memory),
              ParseBytes);
}

template <>
ColdStartPlan Smallest() {
  return {.samples = 2, .cold_boots = 1, .warm_ups = 1, .burst = 2};
}

template <>
BurstPlan Smallest() {
  return {.size = 2, .rounds = 1, .singles = 1};
}

template <>
DensityPlan Smallest() {
  return {.max_vms = 2, .step = 1, .cold_boots = 1};
}

template <>
RpcPlan Smallest() {
  return {.calls = 20,
          .concurrency = {1, 2},
          .pools = {2, 4},
          .rates = {50},
          .open_loop = std::chrono::seconds(1)};
}

template <>
ResizePlan Smallest() {
  return {.samples = 1, .warm_ups = 1};
}

}  // namespace hatchery::bench
