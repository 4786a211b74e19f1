// `hatchery run`: acquire, exec, release. Whatever happens after the acquire, the VM goes back; if
// this process is killed, the service sees that it has ended.
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "base/ids.h"
#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/exec.h"
#include "cmd/hatchery/requests.h"

namespace hatchery::cli {

namespace {

constexpr std::chrono::seconds kReleaseTimeout{30};
// Over TCP the service cannot see this process end: the lease is renewed for as long as it lives.
constexpr std::chrono::seconds kTtl{60};
constexpr std::chrono::seconds kRenewEvery{15};

struct RunOptions {
  AcquireOptions acquire;
  ExecOptions exec;
};

// Neither an interrupt nor the user's time limit may keep a VM from being given back.
CallOptions ReleaseOptions() { return {.timeout = kReleaseTimeout, .interruptible = false}; }

// False, having said so, if the VM may still be there.
bool Release(const Context& context, Client& client, const std::string& vm_id) {
  v1::ReleaseRequest request;
  request.set_vm_id(vm_id);
  const auto released =
      client.Call(client.cache(), &v1::Cache::Stub::Release, request, ReleaseOptions());
  if (released || released.error().code == Code::kNotFound) return true;
  context.Complain("could not release " + vm_id +
                   ", which may still run: " + released.error().message +
                   "; release it with `hatchery vm release " + vm_id + "`");
  return false;
}

// After an acquire without a reply: the VM may have been leased all the same. The request's id,
// which is this run's alone, finds it.
void ReleaseByRequest(const Context& context, Client& client, const std::string& request_id) {
  const auto listed = client.Call(client.cache(), &v1::Cache::Stub::ListVms, v1::ListVmsRequest(),
                                  ReleaseOptions());
  if (!listed) return;  // the daemon is gone; what it leased, it frees when the lease runs out
  for (const v1::Vm& vm : listed->vms()) {
    if (vm.request_id() == request_id) Release(context, client, vm.vm_id());
  }
}

// Renews a lease from a thread of its own, over a connection of its own, until it is destroyed.
class Renewals {
 public:
  Renewals(const Context& context, Target target, std::string vm_id)
      : client_(std::move(target), std::nullopt, context.interrupt),
        thread_([this, vm_id = std::move(vm_id)](const std::stop_token& stop) {
          v1::RenewRequest request;
          request.set_vm_id(vm_id);
          std::unique_lock lock(mutex_);
          while (
              !stopped_.wait_for(lock, stop, kRenewEvery, [&] { return stop.stop_requested(); })) {
            // One that fails is tried again before the lease has run out.
            (void)client_.Call(client_.cache(), &v1::Cache::Stub::Renew, request,
                               {.timeout = kRenewEvery, .interruptible = false});
          }
        }) {}

 private:
  Client client_;
  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::jthread thread_;  // last: it uses the others
};

bool ReplyMayBeLost(Code code) {
  return code == Code::kCancelled || code == Code::kDeadlineExceeded || code == Code::kUnavailable;
}

int Run(const Context& context, const RunOptions& options) {
  auto acquire = ToRequest(options.acquire);
  if (!acquire) return context.Fail(acquire.error(), kExitUsage);
  // Chosen here and new each time: no other call ever shares this VM.
  acquire->set_request_id(NewId("run"));
  auto exec = PrepareExec(context, options.exec);
  if (!exec) return context.Fail(exec.error(), kExitHatcheryFailed);
  auto client = context.Connect();
  if (!client) return context.Fail(client.error(), kExitHatcheryFailed);
  const auto target = context.Where();
  if (!target) return context.Fail(target.error(), kExitHatcheryFailed);
  const bool here = !target->socket.empty();
  if (here) {
    acquire->set_bind_to_caller(true);
  } else {
    acquire->mutable_ttl()->set_seconds(kTtl.count());
  }
  // A connection of its own, because the user's time limit does not apply to giving back.
  Client release_client(*target, std::nullopt, context.interrupt);

  // From here on an interrupt cancels what is under way but does not end the program.
  std::optional<Interrupt::Scope> hold(std::in_place, context.interrupt, [] {});
  const auto acquired = client->Call(client->cache(), &v1::Cache::Stub::Acquire, *acquire);
  if (!acquired) {
    if (ReplyMayBeLost(acquired.error().code)) {
      ReleaseByRequest(context, release_client, acquire->request_id());
    }
    return context.Fail(acquired.error(), kExitHatcheryFailed);
  }
  exec->set_vm_id(acquired->vm().vm_id());
  std::optional<Renewals> renewals;
  if (!here) renewals.emplace(context, *target, acquired->vm().vm_id());
  const auto result = Exec(*client, *exec);
  renewals.reset();
  const bool released = Release(context, release_client, acquired->vm().vm_id());
  // The output may be read slowly, or not at all; the VM does not wait for it.
  hold.reset();

  if (!result) return context.Fail(result.error(), kExitHatcheryFailed);
  const int code = Finish(context, *exec, *result);
  return released ? code : kExitHatcheryFailed;
}

}  // namespace

void AddRunCommand(CLI::App& app, Context& context) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* verb = AddVerb(app, context, "run", "Acquire a VM, run a command in it, release it",
                           "hatchery run --vcpus 2 --memory 512M -- sh -c 'nproc; free -m'",
                           [&context, options] {
                             options->exec.command = context.command;
                             return Run(context, *options);
                           });
  verb->add_option("--template", options->acquire.template_name, "'default' if not given")
      ->type_name("NAME");
  verb->add_option("--vcpus", options->acquire.shape.vcpus,
                   "In total; as in the template if not given")
      ->type_name("N");
  verb->add_option("--memory", options->acquire.shape.memory,
                   "In total, as in 512M or 2G; as in the template if not given")
      ->type_name("SIZE");
  AddExecOptions(verb, options->exec);
}

}  // namespace hatchery::cli
