// hatchery.toml, and after a line "%%" the arguments of a command line, one a line.
#include "cmd/hatcheryd/config.h"

#include <vector>

#include "cmd/hatcheryd/settings.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  constexpr std::string_view kArguments = "\n%%\n";
  std::string_view text = fuzz::Text(data, size), rest;
  if (const auto at = text.find(kArguments); at != std::string_view::npos) {
    rest = text.substr(at + kArguments.size());
    text = text.substr(0, at);
  }
  const auto config = daemon::ParseToml(text, "hatchery.toml");
  fuzz::RequireWords(config);
  if (config) {
    fuzz::Require(daemon::FindContradictions(*config).empty(), "what is accepted holds together");
    // As a flag, each value says what it says in the file.
    for (const auto& setting : daemon::AllSettings()) {
      daemon::Config other;
      fuzz::RequireWords(setting.set(other, setting.get(*config)));
    }
  }

  std::vector<std::string> arguments;
  while (!rest.empty()) {
    const auto end = rest.find('\n');
    const std::string argument(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    // No files of the host's.
    if (argument.find("--config") == std::string::npos) arguments.push_back(argument);
  }
  if (!arguments.empty()) fuzz::RequireWords(daemon::ParseCommandLine(arguments));
  return 0;
}
