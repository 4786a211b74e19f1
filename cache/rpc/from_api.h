// What comes from outside becomes the cache's types here, or is refused: every string has a length
// and a character set, every number a range, before anything is done with it. kInvalidArgument
// names the field as the request has it.
//
// What depends on what there is (a template's sizes, whether a VM exists) is checked where that is
// known; gRPC itself refuses messages above 4 MiB and strings that are not UTF-8.
#pragma once

#include "agent/client/client.h"
#include "cache/catalog.h"
#include "cache/leases.h"
#include "cache/rpc/convert.h"
#include "hatchery/v1/cache.pb.h"
#include "hatchery/v1/factory.pb.h"

namespace hatchery::cache::rpc {

// All but the caller. Names and the sandbox's id are checked by Leases::Acquire(), which says what
// they may be.
Result<AcquireParams> FromApi(const api::AcquireRequest& request);

// At most 4096 arguments and as many variables, of 128 KiB each (the kernel's limit) and 1 MiB
// together; names of variables without '='; cwd absolute or empty; stdin of 2 MiB.
Result<agent::ExecRequest> FromApi(const api::ExecRequest& request);

// Paths are absolute and at most 4095 bytes long, kernel_params at most 1536 printable characters.
Result<TemplateSpec> FromApi(const api::TemplateSpec& spec);

Result<Cache::InitParams> FromApi(const api::InitRequest& request);

// An empty filter is none.
Result<void> Validate(const api::ListVmsRequest& filter);

// A template's name, its digest, or the beginning of one.
Result<void> ValidateTemplateReference(const std::string& name);

}  // namespace hatchery::cache::rpc
