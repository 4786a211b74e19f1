// A VM's handle, as the metadata store gives it back.
#include "base/json.h"
#include "hypervisor/qemu/handle.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hatchery;
  using namespace hatchery::hypervisor::qemu;
  const std::string_view text = fuzz::Text(data, size);
  const auto handle = DecodeHandle(text);
  fuzz::RequireWords(handle);
  if (!handle) return 0;
  const Json json = ParseJson(text, "the handle").value();
  fuzz::Require(json["process"]["pid"] == handle->process.pid && handle->process.pid > 0,
                "the pid is the one that is written there");
  fuzz::Require(json["config"]["vcpus"] == handle->config.vcpus, "so are the vCPUs");
  fuzz::Require(handle->config.cid == 0 || json["config"]["cid"] == handle->config.cid,
                "and the context id");
  const std::string encoded = EncodeHandle(*handle);
  const auto again = DecodeHandle(encoded);
  fuzz::Require(again && again->process == handle->process && EncodeHandle(*again) == encoded,
                "a handle survives");
  return 0;
}
