// `hatchery factory …`: the whole of it, made, looked at, taken down.
#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/template_commands.h"
#include "cmd/hatchery/text_output.h"

namespace hatchery::cli {

namespace {

int Init(const Context& context, const SpecOptions& options,
         std::optional<std::uint32_t> pool_target) {
  v1::InitRequest request;
  auto spec = ToRequest(options);
  if (!spec) return context.Fail(spec.error());
  *request.mutable_template_spec() = *std::move(spec);
  if (pool_target) request.set_pool_target(*pool_target);
  auto client = context.Connect();
  if (!client) return context.Fail(client.error());

  std::optional<v1::InitResult> result;
  Result<void> called;
  {
    ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
    called = client->Stream(client->factory(), &v1::Factory::Stub::Init, request,
                            [&](const v1::InitResponse& response) {
                              if (response.has_progress()) progress.Show(response.progress());
                              if (response.has_result()) result = response.result();
                            });
  }
  if (!called) return context.Fail(called.error());
  if (!result) return context.Fail({Code::kInternal, "the daemon ended without a result"});
  return context.Print(ToJson(*result), ToText(*result));
}

int Status(const Context& context) {
  const auto response =
      context.Ask(&Client::factory, &v1::Factory::Stub::Status, v1::StatusRequest());
  if (!response) return context.Fail(response.error());
  return context.Print(ToJson(*response), ToText(*response, context.clock.Now()));
}

int Destroy(const Context& context) {
  if (auto done = StreamProgress(context, &v1::Factory::Stub::Destroy, v1::DestroyRequest());
      !done) {
    return context.Fail(done.error());
  }
  return context.Print(Json{{"destroyed", true}}, "no VMs, pools or templates are left\n");
}

}  // namespace

void AddFactoryCommands(CLI::App& app, Context& context) {
  CLI::App* factory =
      app.add_subcommand("factory", "Template and pool together: make, look, remove");
  factory->require_subcommand(0, 1);
  factory->footer("Example: hatchery factory init --pool 4");

  auto spec = std::make_shared<SpecOptions>();
  auto pool = std::make_shared<std::optional<std::uint32_t>>();
  CLI::App* verb = AddVerb(*factory, context, "init",
                           "Build the template and fill its pool; does only what is missing",
                           "hatchery factory init --pool 8 --memory 256M",
                           [&context, spec, pool] { return Init(context, *spec, *pool); });
  verb->add_option("--template", spec->name, "'default' if not given")->type_name("NAME");
  verb->add_option("--pool", *pool, "Warm VMs to keep; as configured if not given")->type_name("N");
  AddSpecOptions(verb, *spec);
  AddJsonFlag(verb, context);

  verb = AddVerb(*factory, context, "status", "The daemon, its templates and its pools",
                 "hatchery factory status --json", [&context] { return Status(context); });
  AddJsonFlag(verb, context);

  verb = AddVerb(*factory, context, "destroy",
                 "End every VM, leased ones too, and delete every template",
                 "hatchery factory destroy", [&context] { return Destroy(context); });
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
