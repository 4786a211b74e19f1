// hatcheryd: the daemon, one per state directory.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "base/log.h"
#include "cmd/hatcheryd/config.h"
#include "cmd/hatcheryd/daemon.h"

namespace {

// 2 for wrong usage, 1 for everything else, as the shell's own commands do.
int Fail(const hatchery::Error& error) {
  std::fprintf(stderr, "hatcheryd: %s\n", error.message.c_str());
  return error.code == hatchery::Code::kInvalidArgument ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace hatchery;
  try {
    auto invocation = daemon::ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc));
    if (!invocation) return Fail(invocation.error());
    if (const auto* print = std::get_if<daemon::PrintAndExit>(&*invocation)) {
      std::fputs(print->text.c_str(), stdout);
      return 0;
    }
    const auto& config = std::get<daemon::Config>(*invocation);
    log::Configure(config.log.level, config.log.format);
    if (auto result = daemon::RunDaemon(config); !result) return Fail(result.error());
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "hatcheryd: unexpected failure: %s\n", e.what());
    return 1;
  }
}
