// A client of the service that writes down what it does before it does it, and what came of it. It
// knows the leases it holds, and whose end it was told. One thread.
#pragma once

#include <grpcpp/grpcpp.h>
#include <hatchery/v1/cache.grpc.pb.h>
#include <hatchery/v1/factory.grpc.pb.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "tests/torture/journal.h"

namespace hatchery::torture {

namespace api = hatchery::v1;

// How a lease that a client wants ends.
enum class Term { kHeld, kTtl, kCaller };
std::string_view Name(Term term);

// A lease that is wanted: enough to ask for it again.
struct Wish {
  std::string sandbox;
  std::string request_id;  // empty: none
  Term term = Term::kHeld;
  std::chrono::milliseconds ttl{0};
  std::optional<std::uint32_t> vcpus;
};

// One that was granted.
struct Holding {
  Wish wish;
  std::string vm;
};

class Client {
 public:
  // `socket` as gRPC writes it.
  Client(std::string name, std::string socket, Journal& journal);

  grpc::Status Acquire(const Wish& wish, std::chrono::milliseconds patience);
  // Asks the guest who it is, and marks it as this lease's.
  grpc::Status Exec(const std::string& sandbox, std::chrono::milliseconds patience);
  // Any command, by the shell.
  grpc::Status Run(const std::string& sandbox, const std::string& script,
                   std::chrono::milliseconds patience);
  grpc::Status Renew(const std::string& sandbox, std::chrono::milliseconds patience);
  grpc::Status Release(const std::string& sandbox, std::chrono::milliseconds patience);

  // Gives back what the service says that we hold and whose grant we never heard of: the replies
  // got lost.
  grpc::Status ReleaseUnheard(std::chrono::milliseconds patience);

  // By sandbox. `asked`: no reply has said yet whether it was granted.
  const std::map<std::string, Holding>& held() const { return held_; }
  const std::map<std::string, Wish>& asked() const { return asked_; }
  void GiveUp(const std::string& sandbox) { asked_.erase(sandbox); }
  // What an earlier process of this name left, from its journal.
  void Recall(const std::vector<Json>& lines);

  api::Cache::Stub& cache() { return *cache_; }
  api::Factory::Stub& factory() { return *factory_; }

 private:
  Json Line(const char* kind, const char* call, const std::string& sandbox) const;
  void Note(Json line, const grpc::Status& status);
  // Says whether the service said that this lease is no more.
  static bool IsEnd(const grpc::Status& status);

  void Reconnect();

  const std::string name_;
  const std::string socket_;
  Journal& journal_;
  std::unique_ptr<api::Cache::Stub> cache_;
  std::unique_ptr<api::Factory::Stub> factory_;
  std::map<std::string, Holding> held_;
  std::map<std::string, Wish> asked_;
};

// The daemon is away often, and never for long.
std::shared_ptr<grpc::Channel> Connect(const std::string& socket);

// With a deadline, and no waiting for a daemon that is not there.
std::unique_ptr<grpc::ClientContext> Within(std::chrono::milliseconds patience);

}  // namespace hatchery::torture
