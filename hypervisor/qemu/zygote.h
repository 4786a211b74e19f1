// Starts VMMs as copies of one that is loaded already.
//
// Of the 30 ms of CPU time that QEMU takes until its machine stands, 10 go into the dynamic loader;
// and the pages that it relocates, 5 MiB of some 16 that an idle clone keeps to itself, are the
// same in every VMM. A zygote is the program loaded and relocated, but stopped before main(); VMMs
// are forked from it, and share those pages with it. docs/adr/0007 weighs what that costs.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/process.h"

namespace hatchery::hypervisor::qemu {

// The library that makes zygotes, as it is installed: beside this program. Empty: it is not there.
std::filesystem::path FindZygoteLibrary();

// Starts `program` from a zygote, with whatever arguments, and everything else, or what a zygote
// cannot do, through `plain`. A zygote is made when it is first needed; anew for another
// environment, when the program was replaced on disk, when its zygote has died, and after
// kProcessesPerZygote, so that its address layout does not serve for ever. It ends with this object
// or this process. A program that is no dynamically linked ELF file is always started plainly. VMMs
// are children of this process either way (which becomes a subreaper).
//
// Spawn() blocks for about a millisecond, as posix_spawn(3) does, and for 2 s at most. Loop thread
// only.
class ZygoteSpawner final : public ProcessSpawner {
 public:
  static constexpr int kProcessesPerZygote = 256;

  // `plain` outlives this. `program` is as in argv[0] of the requests to come.
  ZygoteSpawner(Executor executor, ProcessSpawner& plain, std::filesystem::path library,
                std::string program);
  ~ZygoteSpawner() override;

  Result<std::unique_ptr<Process>> Spawn(const SpawnRequest& request) override;

 private:
  struct Zygote;
  // kUnavailable when there is none to be had.
  Result<Zygote*> Ready(const SpawnRequest& request);
  Result<std::unique_ptr<Process>> Fork(Zygote& zygote, const SpawnRequest& request);

  Executor executor_;
  ProcessSpawner& plain_;
  const std::filesystem::path library_;
  const std::string program_;
  std::unique_ptr<Zygote> zygote_;
  std::string unfit_;  // the program's file, if no zygote can be made of it
};

}  // namespace hatchery::hypervisor::qemu
