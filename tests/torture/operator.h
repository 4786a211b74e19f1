// What an operator does with a factory, in one call each. Streams are read to their end.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "tests/torture/client.h"

namespace hatchery::torture {

class Operator {
 public:
  explicit Operator(const std::string& socket);

  // The default template and a pool of its shape, as far as they are missing.
  grpc::Status Init(std::uint32_t pool, std::chrono::milliseconds patience);
  // A new version of the default template, with so much memory.
  grpc::Status Rebuild(std::uint64_t memory_mib, std::chrono::milliseconds patience);
  grpc::Status SetPool(std::uint32_t target, bool wait, std::chrono::milliseconds patience);
  grpc::Status DeleteTemplate(std::chrono::milliseconds patience);
  grpc::Status Destroy(std::chrono::milliseconds patience);

  // Nothing when there is no answer.
  std::optional<api::StatusResponse> Status(std::chrono::milliseconds patience);
  std::optional<api::ListVmsResponse> ListVms(std::chrono::milliseconds patience);

 private:
  std::unique_ptr<api::Cache::Stub> cache_;
  std::unique_ptr<api::Factory::Stub> factory_;
};

}  // namespace hatchery::torture
