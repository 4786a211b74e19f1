// A template's memory, taken back from a VM that was cloned from it.
//
// Each clone holds the memfd that it maps its RAM from, so a daemon that was restarted need not
// load a second copy. But a VMM is not trusted: what is in its descriptors is used only if it is
// sealed, has the right size, and every chunk is what the manifest says.
#pragma once

#include <sys/types.h>

#include "base/fd.h"
#include "base/offload.h"
#include "base/task.h"
#include "template/manifest.h"

namespace hatchery::tmpl {

// kNotFound if `holder` has no sealed memory of that size, kDataLoss if it is not the template's.
// Reads and hashes all of it, on workers: what loading it from disk does as well. Loop thread only.
Task<UniqueFd> TakeBack(WorkerPool& workers, pid_t holder, const Manifest& manifest);

}  // namespace hatchery::tmpl
