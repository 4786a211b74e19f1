// What the service answers to clients of Kata's protocol that ask for its configuration: what the
// operator has supplied, word for word, or what is made from the template.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/offload.h"
#include "base/task.h"
#include "cache/catalog.h"
#include "cache/kata/vm_json.h"

namespace hatchery::cache::kata {

// Which VMs are handed over, and what is said of them.
struct Options {
  std::string template_name;  // empty: "default"
  // The shape of their pool; absent: the template's own.
  std::optional<std::uint32_t> vcpus;
  std::optional<Bytes> memory;
  // JSON; empty: made from the template.
  std::string vm_config, agent_config;
  std::string vmm;  // the VMM's program, for what is made
  // The guest that templates are made from by default, if there is one by now. Its paths are named
  // in what is made if their content is what the template was made from.
  std::function<std::optional<GuestFiles>()> default_guest;
};

// Loop thread only; hashing is done by `workers`.
class Configuration {
 public:
  // All outlive this.
  Configuration(Catalog& catalog, WorkerPool& workers, Options options);

  const Options& options() const { return options_; }

  struct Answer {
    std::string vm_config, agent_config;  // GrpcVMConfig's Data and AgentConfig
  };
  // kNotFound names the template that there is none of.
  Task<Answer> Get();
  // Every field of `answer` that is not true of the template's VMs, in a sentence.
  Task<std::vector<std::string>> Check(Answer answer);

 private:
  Task<Facts> GetFacts();

  Catalog& catalog_;
  WorkerPool& workers_;
  const Options options_;
  // What was found out last, and of which template version.
  TemplateDigest known_of_;
  Facts known_;
};

// The text of a file with JSON in it, for Options. Errors name `setting` and the file.
Result<std::string> ReadJson(const std::string& setting, const std::filesystem::path& path);

}  // namespace hatchery::cache::kata
