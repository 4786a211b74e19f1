// hatchery-agent: answers the host from inside a guest.
//
//   hatchery-agent                    process 1: sets up the machine, then serves
//   hatchery-agent --service          an ordinary service of another init
//     --port DEVICE                   this device instead of the port named org.hatchery.agent.0
//     --listen-fd N                   only what connects to this listening socket (tests)
//   hatchery-agent --version
#include "agent/guest/program.h"

int main(int argc, char** argv) {
  using hatchery::agent::guest::Offer;
  return hatchery::agent::guest::RunProgram(argc, argv, Offer::kAll);
}
