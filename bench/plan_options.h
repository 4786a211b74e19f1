// The options of each benchmark, one for each field of its plan, with its default in --help: counts
// as numbers, sizes as 256M, durations as 5s, lists as 1,2,4.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "bench/benchmark.h"

namespace hatchery::bench {

// A plan and the options that fill it. Outlives the parser.
template <class Plan>
class PlanOptions {
 public:
  // `parse` turns what was given into the field's value, or says what is wrong with it; `shown` is
  // the default as a user would write it.
  template <class Field, class Parse>
  void Add(CLI::App* verb, const std::string& flag, Field Plan::* field, const std::string& help,
           const std::string& type, const std::string& shown, Parse parse) {
    CLI::Option* option = verb->add_option_function<std::string>(
        flag,
        [this, flag, field, parse](const std::string& text) {
          auto value = parse(text);
          if (!value) throw CLI::ValidationError(flag, value.error().message);
          given_.*field = *std::move(value);
        },
        help);
    option->type_name(type)->default_str(shown)->group("What is measured");
    keep_.push_back([this, option, field](Plan& plan) {
      if (option->count() > 0) plan.*field = given_.*field;
    });
  }

  // What was given, the rest as in `otherwise`.
  Plan Over(Plan otherwise) const {
    for (const auto& keep : keep_) keep(otherwise);
    return otherwise;
  }

 private:
  Plan given_;
  std::vector<std::function<void(Plan&)>> keep_;
};

void AddOptions(CLI::App* verb, PlanOptions<ColdStartPlan>& options);
void AddOptions(CLI::App* verb, PlanOptions<BurstPlan>& options);
void AddOptions(CLI::App* verb, PlanOptions<DensityPlan>& options);
void AddOptions(CLI::App* verb, PlanOptions<RpcPlan>& options);
void AddOptions(CLI::App* verb, PlanOptions<ResizePlan>& options);

// The least that does every step once: for tests; its numbers mean nothing.
template <class Plan>
Plan Smallest();
template <>
ColdStartPlan Smallest();
template <>
BurstPlan Smallest();
template <>
DensityPlan Smallest();
template <>
RpcPlan Smallest();
template <>
ResizePlan Smallest();

// "256MiB": as ParseBytes() reads it, in one word.
std::string OneWord(Bytes bytes);

// A size that is not zero.
Result<Bytes> ParseSize(const std::string& text);

}  // namespace hatchery::bench
