#include "tests/torture/client.h"

#include <sstream>
#include <utility>

#include "tests/torture/world.h"

namespace hatchery::torture {

namespace {

// Who are you, and who was here before? It works in any guest with a shell.
constexpr const char* kWhoAreYou =
    "cat /etc/machine-id /proc/sys/kernel/random/boot_id; "
    "cat /run/holder 2>/dev/null; echo \"$HOLDER\" > /run/holder";

template <class Duration>
void SetTtl(Duration& duration, std::chrono::milliseconds ttl) {
  duration.set_seconds(ttl.count() / 1000);
  duration.set_nanos(static_cast<std::int32_t>(ttl.count() % 1000) * 1'000'000);
}

}  // namespace

std::string_view Name(Term term) {
  switch (term) {
    case Term::kHeld: return "held";
    case Term::kTtl: return "ttl";
    case Term::kCaller: return "caller";
  }
  return "unknown";
}

std::shared_ptr<grpc::Channel> Connect(const std::string& socket) {
  grpc::ChannelArguments arguments;
  // Each has a connection of its own, as programs of their own would.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // This one is the time that an attempt may take, too.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  return grpc::CreateCustomChannel(socket, grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<grpc::ClientContext> Within(std::chrono::milliseconds patience) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + patience);
  return context;
}

Client::Client(std::string name, std::string socket, Journal& journal)
    : name_(std::move(name)), socket_(std::move(socket)), journal_(journal) {
  Reconnect();
}

void Client::Reconnect() {
  const auto channel = Connect(socket_);
  cache_ = api::Cache::NewStub(channel);
  factory_ = api::Factory::NewStub(channel);
}

Json Client::Line(const char* kind, const char* call, const std::string& sandbox) const {
  return {{"client", name_}, {kind, call}, {"sandbox", sandbox}};
}

void Client::Note(Json line, const grpc::Status& status) {
  line["code"] = static_cast<int>(status.error_code());
  if (!status.ok()) line["message"] = status.error_message();
  journal_.Write(std::move(line));
  // A channel may wait for seconds on an attempt that met a dying daemon, while the next one
  // serves.
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) Reconnect();
}

bool Client::IsEnd(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::NOT_FOUND ||
         status.error_code() == grpc::StatusCode::FAILED_PRECONDITION;
}

grpc::Status Client::Acquire(const Wish& wish, std::chrono::milliseconds patience) {
  api::AcquireRequest request;
  request.set_sandbox_id(wish.sandbox);
  request.set_request_id(wish.request_id);
  if (wish.term == Term::kTtl) SetTtl(*request.mutable_ttl(), wish.ttl);
  if (wish.term == Term::kCaller) request.set_bind_to_caller(true);
  if (wish.vcpus) request.set_vcpus(*wish.vcpus);

  Json line = Line("call", "acquire", wish.sandbox);
  line["request"] = wish.request_id;
  line["term"] = Name(wish.term);
  line["ttl_ms"] = wish.ttl.count();
  if (wish.vcpus) line["vcpus"] = *wish.vcpus;
  journal_.Write(std::move(line));
  asked_[wish.sandbox] = wish;

  api::AcquireResponse response;
  const auto status = cache_->Acquire(Within(patience).get(), request, &response);
  line = Line("reply", "acquire", wish.sandbox);
  if (status.ok()) {
    const api::Vm& vm = response.vm();
    line["vm"] = vm.vm_id();
    line["pid"] = vm.pid();
    const auto alive = LookAt(static_cast<pid_t>(vm.pid()));
    line["start"] = alive ? alive->start : 0;
    line["machine"] = vm.machine_id();
    line["boot"] = vm.boot_id();
    line["source"] = api::AcquireResponse::Source_Name(response.source());
    held_[wish.sandbox] = {wish, vm.vm_id()};
    asked_.erase(wish.sandbox);
  } else if (IsEnd(status)) {
    // It was granted and has ended, or never will be.
    asked_.erase(wish.sandbox);
  }
  Note(std::move(line), status);
  return status;
}

grpc::Status Client::Exec(const std::string& sandbox, std::chrono::milliseconds patience) {
  api::ExecRequest request;
  request.set_vm_id(held_.at(sandbox).vm);
  for (const char* argument : {"/bin/sh", "-c", kWhoAreYou}) request.add_argv(argument);
  (*request.mutable_env())["HOLDER"] = sandbox;
  journal_.Write(Line("call", "exec", sandbox));
  api::ExecResponse response;
  const auto status = cache_->Exec(Within(patience).get(), request, &response);
  Json line = Line("reply", "exec", sandbox);
  if (status.ok()) {
    std::istringstream lines(response.out());
    for (const char* part : {"machine", "boot", "mark"}) {
      std::string text;
      if (std::getline(lines, text)) line[part] = text;
    }
  }
  Note(std::move(line), status);
  if (IsEnd(status)) held_.erase(sandbox);
  return status;
}

grpc::Status Client::Run(const std::string& sandbox, const std::string& script,
                         std::chrono::milliseconds patience) {
  api::ExecRequest request;
  request.set_vm_id(held_.at(sandbox).vm);
  for (const std::string& argument : {std::string("/bin/sh"), std::string("-c"), script}) {
    request.add_argv(argument);
  }
  api::ExecResponse response;
  return cache_->Exec(Within(patience).get(), request, &response);
}

grpc::Status Client::Renew(const std::string& sandbox, std::chrono::milliseconds patience) {
  api::RenewRequest request;
  request.set_vm_id(held_.at(sandbox).vm);
  journal_.Write(Line("call", "renew", sandbox));
  api::RenewResponse response;
  const auto status = cache_->Renew(Within(patience).get(), request, &response);
  Note(Line("reply", "renew", sandbox), status);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) held_.erase(sandbox);
  return status;
}

grpc::Status Client::Release(const std::string& sandbox, std::chrono::milliseconds patience) {
  api::ReleaseRequest request;
  request.set_vm_id(held_.at(sandbox).vm);
  journal_.Write(Line("call", "release", sandbox));
  api::ReleaseResponse response;
  const auto status = cache_->Release(Within(patience).get(), request, &response);
  Note(Line("reply", "release", sandbox), status);
  if (status.ok() || IsEnd(status)) held_.erase(sandbox);
  return status;
}

grpc::Status Client::ReleaseUnheard(std::chrono::milliseconds patience) {
  api::ListVmsResponse list;
  auto status = cache_->ListVms(Within(patience).get(), api::ListVmsRequest(), &list);
  if (!status.ok()) return status;
  for (const auto& vm : list.vms()) {
    if (vm.state() != api::VM_STATE_ASSIGNED) continue;
    const std::string& sandbox = vm.sandbox_id();
    if (!sandbox.starts_with(name_ + "-") || held_.contains(sandbox)) continue;
    Json line = Line("did", "found unheard", sandbox);
    line["vm"] = vm.vm_id();
    journal_.Write(std::move(line));
    asked_.erase(sandbox);
    held_[sandbox] = {Wish{.sandbox = sandbox}, vm.vm_id()};
    if (const auto released = Release(sandbox, patience); !released.ok()) status = released;
  }
  return status;
}

void Client::Recall(const std::vector<Json>& lines) {
  for (const Json& line : lines) {
    if (line.value("client", "") != name_) continue;
    const std::string sandbox = line.value("sandbox", "");
    const int code = line.value("code", -1);
    if (line.value("call", "") == "acquire") {
      Wish wish{.sandbox = sandbox, .request_id = line.value("request", "")};
      const std::string term = line.value("term", "");
      if (term == Name(Term::kTtl)) wish.term = Term::kTtl;
      if (term == Name(Term::kCaller)) wish.term = Term::kCaller;
      wish.ttl = std::chrono::milliseconds(line.value("ttl_ms", 0));
      if (line.contains("vcpus")) wish.vcpus = line["vcpus"].get<std::uint32_t>();
      asked_[sandbox] = wish;
    }
    const std::string reply = line.value("reply", "");
    const bool ended = code == grpc::StatusCode::NOT_FOUND ||
                       (code == grpc::StatusCode::FAILED_PRECONDITION && reply != "renew");
    if (reply == "acquire" && code == 0) {
      held_[sandbox] = {asked_[sandbox], line.value("vm", "")};
      asked_.erase(sandbox);
    } else if (ended || (reply == "release" && code == 0)) {
      held_.erase(sandbox);
      asked_.erase(sandbox);
    }
  }
}

}  // namespace hatchery::torture
