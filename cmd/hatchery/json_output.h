// What --json prints. Field names are the API's, units last in the name; numbers are JSON numbers,
// times are RFC 3339 or null, states and sources are lower-case words.
#pragma once

#include <hatchery/v1/cache.pb.h>
#include <hatchery/v1/factory.pb.h>

#include "base/json.h"

namespace hatchery::cli {

// "held", "ttl", "caller"; empty when there is no lease.
std::string Name(v1::LeaseTerm term);
Json ToJson(const v1::Vm& vm);
Json ToJson(const v1::VmStats& stats);
Json ToJson(const v1::Template& tmpl);
Json ToJson(const v1::Pool& pool);

// The handle itself, with how it was got beside its fields.
Json ToJson(const v1::AcquireResponse& response);
// The VM, with "stats" and "console_tail".
Json ToJson(const v1::GetVmResponse& response);
// With "state" null for a VM that is gone.
Json ToJson(const v1::WatchResponse& event);
Json ToJson(const v1::MemoryAccount& memory);
Json ToJson(const v1::Tenant& tenant);
// "memory" is null where it is not accounted.
Json ToJson(const v1::StatusResponse& response);
Json ToJson(const v1::InitResult& result);
// The template, with how it was made beside its fields.
Json ToJson(const v1::CreateTemplateResult& result);

// {"vms": […]} and so on.
template <class Messages>
Json ToJsonList(const char* name, const Messages& messages) {
  Json list = Json::array();
  for (const auto& message : messages) list.push_back(ToJson(message));
  return Json{{name, std::move(list)}};
}

// "warm", "assigned"; "unspecified" for a state that this program does not know.
std::string Name(v1::VmState state);
// kInvalidArgument lists the states.
Result<v1::VmState> ParseVmState(std::string_view text);
std::string Name(v1::AcquireResponse::Source source);

}  // namespace hatchery::cli
