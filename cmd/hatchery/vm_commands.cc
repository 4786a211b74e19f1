// `hatchery vm …`: VMs acquired, looked at, used and given back one step at a time.
#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/exec.h"
#include "cmd/hatchery/requests.h"
#include "cmd/hatchery/text_output.h"

namespace hatchery::cli {

namespace {

int Acquire(const Context& context, const AcquireOptions& options) {
  const auto request = ToRequest(options);
  if (!request) return context.Fail(request.error());
  auto client = context.Connect();
  if (!client) return context.Fail(client.error());
  const auto response = client->Call(client->cache(), &v1::Cache::Stub::Acquire, *request);
  if (!response) return context.Fail(response.error());
  return context.Print(ToJson(*response), ToText(*response, context.clock.Now()));
}

int List(const Context& context, const VmFilter& filter) {
  const auto request = ToRequest(filter);
  if (!request) return context.Fail(request.error());
  const auto response = context.Ask(&Client::cache, &v1::Cache::Stub::ListVms, *request);
  if (!response) return context.Fail(response.error());
  return context.Print(ToJsonList("vms", response->vms()), VmTable(*response, context.clock.Now()));
}

int Show(const Context& context, const std::string& vm_id) {
  v1::GetVmRequest request;
  request.set_vm_id(vm_id);
  const auto response = context.Ask(&Client::cache, &v1::Cache::Stub::GetVm, request);
  if (!response) return context.Fail(response.error());
  return context.Print(ToJson(*response), ToText(*response, context.clock.Now()));
}

int RunExec(const Context& context, const std::string& vm_id, const ExecOptions& options) {
  auto request = PrepareExec(context, options);
  if (!request) return context.Fail(request.error(), kExitHatcheryFailed);
  request->set_vm_id(vm_id);
  auto client = context.Connect();
  if (!client) return context.Fail(client.error(), kExitHatcheryFailed);
  const auto response = Exec(*client, *request);
  if (!response) return context.Fail(response.error(), kExitHatcheryFailed);
  return Finish(context, *request, *response);
}

int Renew(const Context& context, const RenewOptions& options) {
  const auto request = ToRequest(options);
  if (!request) return context.Fail(request.error());
  const auto response = context.Ask(&Client::cache, &v1::Cache::Stub::Renew, *request);
  if (!response) return context.Fail(response.error());
  return context.Print(ToJson(response->vm()), ToText(*response, context.clock.Now()));
}

// Goes on after one that fails, so that a list of ids is released as far as it can be.
int ReleaseAll(const Context& context, const std::vector<std::string>& vm_ids) {
  auto client = context.Connect();
  if (!client) return context.Fail(client.error());
  int code = kExitOk;
  Json released = Json::array();
  std::string text;
  for (const std::string& vm_id : vm_ids) {
    v1::ReleaseRequest request;
    request.set_vm_id(vm_id);
    const auto response = client->Call(client->cache(), &v1::Cache::Stub::Release, request);
    if (response) {
      released.push_back(vm_id);
      text += "released " + vm_id + "\n";
    } else {
      code = context.Fail({response.error().code, vm_id + ": " + response.error().message});
    }
  }
  const int printed = context.Print(Json{{"released", released}}, text);
  return code == kExitOk ? printed : code;
}

}  // namespace

void AddVmCommands(CLI::App& app, Context& context) {
  CLI::App* vm = app.add_subcommand("vm", "Acquire VMs, use them, give them back");
  vm->require_subcommand(0, 1);
  vm->footer("Example: hatchery vm acquire --memory 512M --json");

  auto acquire = std::make_shared<AcquireOptions>();
  CLI::App* verb = AddVerb(*vm, context, "acquire", "Take a VM, resized and made unique",
                           "hatchery vm acquire --vcpus 2 --memory 512M --sandbox-id web-7 --json",
                           [&context, acquire] { return Acquire(context, *acquire); });
  verb->add_option("--template", acquire->template_name, "'default' if not given")
      ->type_name("NAME");
  verb->add_option("--vcpus", acquire->shape.vcpus, "In total; as in the template if not given")
      ->type_name("N");
  verb->add_option("--memory", acquire->shape.memory,
                   "In total, as in 512M or 2G; as in the template if not given")
      ->type_name("SIZE");
  verb->add_option("--sandbox-id", acquire->sandbox_id, "For your own book-keeping")
      ->type_name("ID");
  verb->add_option("--request-id", acquire->request_id,
                   "The same id gives the same VM, so that a retry is safe")
      ->type_name("ID");
  verb->add_option("--hostname", acquire->hostname, "The VM's id if not given")->type_name("NAME");
  verb->add_flag(
      "--no-wait-resize", acquire->resize_in_background,
      "Return before the guest has brought up added vCPUs and memory; `vm show` says what "
      "is pending");
  verb->add_option(
          "--ttl", acquire->ttl,
          "End the lease unless it is renewed within this time, as in 30s or 5m; held until "
          "released if not given")
      ->type_name("TIME");
  AddJsonFlag(verb, context);

  auto renewed = std::make_shared<RenewOptions>();
  verb = AddVerb(*vm, context, "renew", "Begin a lease's time to live anew",
                 "hatchery vm renew vm-0123456789abcdef --ttl 5m",
                 [&context, renewed] { return Renew(context, *renewed); });
  verb->add_option("ID", renewed->vm_id, "The VM")->required();
  verb->add_option("--ttl", renewed->ttl, "From now on; as long as before if not given")
      ->type_name("TIME");
  AddJsonFlag(verb, context);

  auto filter = std::make_shared<VmFilter>();
  verb = AddVerb(*vm, context, "list", "All VMs, pooled and leased",
                 "hatchery vm list --state assigned",
                 [&context, filter] { return List(context, *filter); });
  verb->add_option("--template", filter->template_name, "Only VMs of this template")
      ->type_name("NAME");
  verb->add_option("--state", filter->state,
                   "Only VMs in this state: spawning, loaded, warming, warm, assigned, released, "
                   "failed, booting")
      ->type_name("STATE");
  AddJsonFlag(verb, context);

  AddWatchCommand(*vm, context);

  auto shown = std::make_shared<std::string>();
  verb = AddVerb(*vm, context, "show", "One VM: its handle, its cost, the end of its console",
                 "hatchery vm show vm-0123456789abcdef",
                 [&context, shown] { return Show(context, *shown); });
  verb->add_option("ID", *shown, "The VM")->required();
  AddJsonFlag(verb, context);

  auto exec_id = std::make_shared<std::string>();
  auto exec = std::make_shared<ExecOptions>();
  verb = AddVerb(*vm, context, "exec", "Run a command in a leased VM; its exit code becomes ours",
                 "hatchery vm exec vm-0123456789abcdef --env LANG=C -- uname -a",
                 [&context, exec_id, exec] {
                   exec->command = context.command;
                   return RunExec(context, *exec_id, *exec);
                 });
  verb->add_option("ID", *exec_id, "The VM")->required();
  AddExecOptions(verb, *exec);

  auto released = std::make_shared<std::vector<std::string>>();
  verb = AddVerb(*vm, context, "release", "Give VMs back; they are destroyed, never reused",
                 "hatchery vm release vm-0123456789abcdef",
                 [&context, released] { return ReleaseAll(context, *released); });
  verb->add_option("ID", *released, "The VMs")->required();
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
