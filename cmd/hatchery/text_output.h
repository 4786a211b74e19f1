// What is printed for people: tables for listings, aligned fields for one thing.
#pragma once

#include <hatchery/v1/cache.pb.h>
#include <hatchery/v1/factory.pb.h>

#include <string>

#include "base/clock.h"

namespace hatchery::cli {

// Ages are counted from `now`.
std::string VmTable(const v1::ListVmsResponse& response, WallTime now);
std::string TemplateTable(const google::protobuf::RepeatedPtrField<v1::Template>& templates,
                          WallTime now);
std::string PoolTable(const google::protobuf::RepeatedPtrField<v1::Pool>& pools);

std::string ToText(const v1::AcquireResponse& response, WallTime now);
std::string ToText(const v1::RenewResponse& response, WallTime now);
std::string ToText(const v1::GetVmResponse& response, WallTime now);
// One line.
std::string ToText(const v1::WatchResponse& event);
std::string ToText(const v1::Template& tmpl, WallTime now);
std::string ToText(const v1::StatusResponse& response, WallTime now);
std::string ToText(const v1::InitResult& result);
std::string ToText(const v1::CreateTemplateResult& result);
std::string ToText(const v1::Pool& pool);

}  // namespace hatchery::cli
