// An agent that is not Hatchery's, for tests: ours in everything but that it offers grpc.Health and
// grpc.AgentService alone, as Kata Containers' does.
#include "agent/guest/program.h"

int main(int argc, char** argv) {
  using hatchery::agent::guest::Offer;
  return hatchery::agent::guest::RunProgram(argc, argv, Offer::kKataOnly);
}
