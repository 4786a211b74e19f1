// `hatchery pool …`: how many warm VMs are kept.
#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/requests.h"
#include "cmd/hatchery/text_output.h"

namespace hatchery::cli {

namespace {

int Set(const Context& context, const PoolOptions& options) {
  const auto request = ToRequest(options);
  if (!request) return context.Fail(request.error());
  auto client = context.Connect();
  if (!client) return context.Fail(client.error());

  std::optional<v1::Pool> pool;
  Result<void> called;
  {
    ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
    called = client->Stream(client->factory(), &v1::Factory::Stub::SetPool, *request,
                            [&](const v1::SetPoolResponse& response) {
                              if (response.has_progress()) progress.Show(response.progress());
                              if (response.has_pool()) pool = response.pool();
                            });
  }
  if (!called) return context.Fail(called.error());
  if (!pool) return context.Fail({Code::kInternal, "the daemon ended without a result"});
  return context.Print(ToJson(*pool), ToText(*pool));
}

int List(const Context& context) {
  const auto response =
      context.Ask(&Client::factory, &v1::Factory::Stub::ListPools, v1::ListPoolsRequest());
  if (!response) return context.Fail(response.error());
  return context.Print(ToJsonList("pools", response->pools()), PoolTable(response->pools()));
}

}  // namespace

void AddPoolCommands(CLI::App& app, Context& context) {
  CLI::App* pool = app.add_subcommand("pool", "Warm VMs kept ready, by template and shape");
  pool->require_subcommand(0, 1);
  pool->footer("Example: hatchery pool set --size 8");

  auto options = std::make_shared<PoolOptions>();
  CLI::App* verb = AddVerb(*pool, context, "set", "Create, resize or (size 0) remove a pool",
                           "hatchery pool set default --size 8 --vcpus 2 --memory 512M",
                           [&context, options] { return Set(context, *options); });
  verb->add_option("TEMPLATE", options->template_name, "'default' if not given");
  verb->add_option("--size", options->target, "Warm VMs to keep")->type_name("N")->required();
  verb->add_option("--vcpus", options->shape.vcpus, "Of its VMs; as in the template if not given")
      ->type_name("N");
  verb->add_option("--memory", options->shape.memory,
                   "Of its VMs, as in 512M; as in the template if not given")
      ->type_name("SIZE");
  verb->add_flag("--wait,!--no-wait", options->wait,
                 "Return when the pool has its size (the default), or at once");
  AddJsonFlag(verb, context);

  verb = AddVerb(*pool, context, "list", "All pools", "hatchery pool list --json",
                 [&context] { return List(context); });
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
