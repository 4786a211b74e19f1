// `hatchery template …`, and the options that describe a template.
#include "cmd/hatchery/template_commands.h"

#include "cmd/hatchery/text_output.h"

namespace hatchery::cli {

namespace {

int Create(const Context& context, const SpecOptions& options, bool force) {
  v1::CreateTemplateRequest request;
  auto spec = ToRequest(options);
  if (!spec) return context.Fail(spec.error());
  *request.mutable_template_spec() = *std::move(spec);
  request.set_force(force);
  auto client = context.Connect();
  if (!client) return context.Fail(client.error());

  std::optional<v1::CreateTemplateResult> result;
  Result<void> called;
  {
    ProgressPrinter progress(context.io.err, context.io.err_is_terminal);
    called = client->Stream(client->factory(), &v1::Factory::Stub::CreateTemplate, request,
                            [&](const v1::CreateTemplateResponse& response) {
                              if (response.has_progress()) progress.Show(response.progress());
                              if (response.has_result()) result = response.result();
                            });
  }
  if (!called) return context.Fail(called.error());
  if (!result) return context.Fail({Code::kInternal, "the daemon ended without a result"});
  return context.Print(ToJson(*result), ToText(*result));
}

int List(const Context& context) {
  const auto response =
      context.Ask(&Client::factory, &v1::Factory::Stub::ListTemplates, v1::ListTemplatesRequest());
  if (!response) return context.Fail(response.error());
  return context.Print(ToJsonList("templates", response->templates()),
                       TemplateTable(response->templates(), context.clock.Now()));
}

int Show(const Context& context, const std::string& name) {
  v1::GetTemplateRequest request;
  request.set_name(name);
  const auto response = context.Ask(&Client::factory, &v1::Factory::Stub::GetTemplate, request);
  if (!response) return context.Fail(response.error());
  return context.Print(ToJson(response->template_info()),
                       ToText(response->template_info(), context.clock.Now()));
}

int Verify(const Context& context, const std::string& name) {
  v1::VerifyTemplateRequest request;
  request.set_name(name);
  if (auto done = StreamProgress(context, &v1::Factory::Stub::VerifyTemplate, request); !done) {
    return context.Fail(done.error());
  }
  return context.Print(Json{{"name", name}, {"ok", true}},
                       "template " + name + " is whole: every byte is as it was saved\n");
}

int Delete(const Context& context, const std::string& name, bool drain) {
  v1::DeleteTemplateRequest request;
  request.set_name(name);
  request.set_drain(drain);
  if (auto done = StreamProgress(context, &v1::Factory::Stub::DeleteTemplate, request); !done) {
    return context.Fail(done.error());
  }
  return context.Print(Json{{"deleted", name}}, "deleted template " + name + "\n");
}

}  // namespace

void AddSpecOptions(CLI::App* verb, SpecOptions& options) {
  verb->add_option("--kernel", options.kernel,
                   "The guest's kernel; with neither it nor the next two, the default guest")
      ->type_name("FILE");
  verb->add_option("--initrd", options.initrd, "An initramfs that holds the agent")
      ->type_name("FILE");
  verb->add_option("--image", options.image,
                   "A root disk that holds the agent, instead of an initrd")
      ->type_name("FILE");
  verb->add_option("--kernel-params", options.kernel_params, "Added to the usual ones")
      ->type_name("TEXT");
  verb->add_option("--vcpus", options.vcpus, "What its VMs start with")->type_name("N");
  verb->add_option("--max-vcpus", options.max_vcpus, "What they can grow to")->type_name("N");
  verb->add_option("--memory", options.memory, "What its VMs start with, as in 256M")
      ->type_name("SIZE");
  verb->add_option("--max-memory", options.max_memory, "What they can grow to, as in 4G")
      ->type_name("SIZE");
  verb->add_option("--accel", options.accelerator, "auto, kvm or tcg")
      ->type_name("NAME")
      ->check(CLI::IsMember({"auto", "kvm", "tcg"}));
  verb->add_option("--boot-timeout", options.boot_timeout, "Start to agent answering, as in 60s")
      ->type_name("DURATION");
}

void AddTemplateCommands(CLI::App& app, Context& context) {
  CLI::App* tmpl = app.add_subcommand("template", "Booted guests that VMs are cloned from");
  tmpl->require_subcommand(0, 1);
  tmpl->footer("Example: hatchery template create default --memory 256M");

  auto spec = std::make_shared<SpecOptions>();
  auto force = std::make_shared<bool>(false);
  CLI::App* verb = AddVerb(*tmpl, context, "create", "Boot a guest once and keep it as a template",
                           "hatchery template create big --vcpus 2 --memory 512M --max-memory 8G",
                           [&context, spec, force] { return Create(context, *spec, *force); });
  // Empty would be 'default' to the daemon: here it is a script's unset variable.
  verb->add_option("NAME", spec->name, "A name that exists gets a new version")
      ->required()
      ->check([](const std::string& name) { return name.empty() ? "must not be empty" : ""; });
  AddSpecOptions(verb, *spec);
  verb->add_flag("--force", *force, "Also if nothing it is made from has changed");
  AddJsonFlag(verb, context);

  verb = AddVerb(*tmpl, context, "list", "All templates", "hatchery template list --json",
                 [&context] { return List(context); });
  AddJsonFlag(verb, context);

  auto shown = std::make_shared<std::string>();
  verb = AddVerb(*tmpl, context, "show", "One template: sizes, and all that its state depends on",
                 "hatchery template show default",
                 [&context, shown] { return Show(context, *shown); });
  verb->add_option("NAME", *shown, "Its name, its digest or 12 digits of that")->required();
  AddJsonFlag(verb, context);

  auto verified = std::make_shared<std::string>();
  verb = AddVerb(*tmpl, context, "verify", "Read every byte and check it",
                 "hatchery template verify default",
                 [&context, verified] { return Verify(context, *verified); });
  verb->add_option("NAME", *verified, "Its name or its digest")->required();
  AddJsonFlag(verb, context);

  auto deleted = std::make_shared<std::string>();
  auto drain = std::make_shared<bool>(false);
  verb = AddVerb(*tmpl, context, "delete", "Remove a template; refused while VMs live from it",
                 "hatchery template delete big --drain",
                 [&context, deleted, drain] { return Delete(context, *deleted, *drain); });
  verb->add_option("NAME", *deleted, "Its name or its digest")->required();
  verb->add_flag("--drain", *drain, "End its VMs first, leased ones too");
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
