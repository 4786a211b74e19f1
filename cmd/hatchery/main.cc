// The program `hatchery`: the process around cli.h.
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <iostream>

#include "bench/command.h"
#include "cmd/hatchery/cli.h"

int main(int argc, char** argv) {
  using namespace hatchery::cli;
  // A reader that goes away is a failed write, not the end: a VM may have to be given back.
  ::signal(SIGPIPE, SIG_IGN);
  // gRPC reports connection trouble on stderr by itself; the errors printed here say it better.
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  Interrupt interrupt;
  const SignalWatcher watcher(interrupt);
  const char* endpoint = std::getenv("HATCHERY_ENDPOINT");
  const Io io{.out = std::cout,
              .err = std::cerr,
              .stdin_fd = STDIN_FILENO,
              .err_is_terminal = ::isatty(STDERR_FILENO) == 1};
  try {
    return RunCli({argv + 1, argv + argc}, endpoint == nullptr ? "" : endpoint, io, interrupt,
                  hatchery::SystemClock(), [](CLI::App& app, Context& context) {
                    hatchery::bench::AddBenchCommands(app, context);
                  });
  } catch (const std::exception& e) {
    std::cerr << "hatchery: a bug, please report it: " << e.what() << std::endl;
    return kExitFailed;
  }
}
