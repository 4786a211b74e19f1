// Runs commands for the host: Exec of proto/hatchery/agent/v1/guest.proto.
//
// A command ends when its first process does. What it left in the pipes by then is part of the
// answer; a grandchild that holds them open is neither waited for nor killed. A time-out, a Kill
// and a caller that goes away kill the command's whole process group. Loop thread only.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>

#include "agent/guest/call.h"
#include "agent/guest/event_loop.h"
#include "hatchery/agent/v1/guest.pb.h"

namespace hatchery::agent::guest {

class Execs {
 public:
  static constexpr std::size_t kMaxRunning = 64;

  explicit Execs(EventLoop& loop);
  // Kills what still runs.
  ~Execs();

  // Answers with an ExecResponse. kResourceExhausted when kMaxRunning commands run.
  // kAlreadyExists when one of the request's exec_id does.
  void Start(const v1::ExecRequest& request, std::shared_ptr<Call> call);

  // Ends the command of that id, which Start() answers as ended by SIGKILL; nothing if none runs.
  void Kill(const std::string& exec_id);

 private:
  class Running;
  Running* Find(const std::string& exec_id) const;
  EventLoop& loop_;
  std::list<std::unique_ptr<Running>> running_;
};

}  // namespace hatchery::agent::guest
