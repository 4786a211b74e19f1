#include "cache/kata/config.h"

#include "base/files.h"
#include "base/json.h"
#include "base/sha256.h"
#include "cache/shape.h"

namespace hatchery::cache::kata {

namespace {

// `path` if its content has the hash that `input` has; empty otherwise.
std::string IfSame(const std::string& path, const Facts& facts, const std::string& input) {
  const auto wanted = facts.inputs.find(input);
  if (path.empty() || wanted == facts.inputs.end()) return {};
  const auto hash = Sha256OfFile(path);
  return hash && *hash == wanted->second ? path : std::string();
}

}  // namespace

Result<std::string> ReadJson(const std::string& setting, const std::filesystem::path& path) {
  auto text = ReadFile(path, Bytes::MiB(1));
  if (!text) return Annotate(text.error(), setting);
  if (auto json = ParseJson(*text, setting + ": " + path.string()); !json) {
    return std::unexpected(json.error());
  }
  return text;
}

Configuration::Configuration(Catalog& catalog, WorkerPool& workers, Options options)
    : catalog_(catalog), workers_(workers), options_(std::move(options)) {}

Task<Facts> Configuration::GetFacts() {
  ASSIGN_OR_CO_RETURN(const auto name, TemplateNameOrDefault(options_.template_name));
  ASSIGN_OR_CO_RETURN(const auto manifest, catalog_.CurrentManifest(name));
  if (manifest->digest == known_of_) co_return known_;
  const auto& shape = manifest->shape;
  Facts facts;
  facts.vcpus = options_.vcpus.value_or(shape.vcpus);
  facts.memory = options_.memory.value_or(shape.memory);
  CO_RETURN_IF_ERROR(CheckShape(shape, facts.vcpus, facts.memory));
  facts.max_vcpus = shape.max_vcpus;
  facts.vmm = options_.vmm;
  for (const char* input : {"kernel", "initrd", "image"}) {
    const auto found = manifest->inputs.find(input);
    if (found != manifest->inputs.end()) facts.inputs[input] = found->second;
  }
  if (const auto params = manifest->inputs.find("kernel_params");
      params != manifest->inputs.end()) {
    facts.kernel_params = params->second;
  }
  if (const auto devices = manifest->fingerprint.find("devices");
      devices != manifest->fingerprint.end()) {
    facts.vsock = devices->second.find("vhost-vsock") != std::string::npos;
  }
  if (const auto guest = options_.default_guest ? options_.default_guest() : std::nullopt) {
    ASSIGN_OR_CO_RETURN(facts, co_await workers_.Run([facts, guest]() -> Result<Facts> {
      Facts with = facts;
      with.kernel = IfSame(guest->kernel, facts, "kernel");
      with.initrd = IfSame(guest->initrd, facts, "initrd");
      with.image = IfSame(guest->image, facts, "image");
      return with;
    }));
  }
  known_of_ = manifest->digest;
  known_ = facts;
  co_return facts;
}

Task<Configuration::Answer> Configuration::Get() {
  Answer answer{options_.vm_config, options_.agent_config};
  if (!answer.vm_config.empty() && !answer.agent_config.empty()) co_return answer;
  ASSIGN_OR_CO_RETURN(const Facts facts, co_await GetFacts());
  if (answer.vm_config.empty()) answer.vm_config = MakeVmConfig(facts);
  if (answer.agent_config.empty()) answer.agent_config = MakeAgentConfig(facts);
  co_return answer;
}

Task<std::vector<std::string>> Configuration::Check(Answer answer) {
  ASSIGN_OR_CO_RETURN(const Facts facts, co_await GetFacts());
  co_return co_await workers_.Run([answer, facts]() -> Result<std::vector<std::string>> {
    return Contradictions(answer.vm_config, answer.agent_config, facts, Sha256OfFile);
  });
}

}  // namespace hatchery::cache::kata
