#include "template/builder.h"

#include "tests/template/boot_fixture.h"

namespace hatchery::tmpl {
namespace {

using agent::Method;
using hypervisor::Accelerator;
using hypervisor::fake::Fault;
using hypervisor::fake::Verb;

class BuilderTest : public BootFixture {
 protected:
  BuildRequest Request(TemplateDigest current = {}) {
    BuildRequest request;
    request.vm_id = VmId("vm-1");
    request.kernel = dir_.path() / "kernel";
    request.initrd = dir_.path() / "initrd";
    request.kernel_params = "quiet";
    request.shape = {.vcpus = 1, .max_vcpus = 4, .memory = Bytes::MiB(128)};
    request.current = current;
    return request;
  }
  Result<Builder::Built> Build(BuildRequest request) {
    return RunUntilDone(io_, builder_.Build(
                                 std::move(request),
                                 [this](std::string_view step) { OnStep(step); }, After(kLong)));
  }
  void OnStep(std::string_view step) {
    steps_.emplace_back(step);
    if (on_step_) on_step_(step);
  }
  TemplateDigest BuiltDigest(BuildRequest request) {
    auto built = Build(std::move(request));
    EXPECT_TRUE(built.has_value()) << ToString(built.error());
    EXPECT_FALSE(built->reused);
    return built->loaded->manifest().digest;
  }
  Result<void> CheckCompatible(const Manifest& manifest) {
    return RunUntilDone(io_, builder_.CheckCompatible(manifest, After(kLong)));
  }
  void ExpectNoTrace() {
    ExpectNothingLeft();
    EXPECT_TRUE(fs::is_empty(dir_.path() / "templates"));
  }

  WorkerPool workers_{2};
  std::unique_ptr<Store> store_ = Store::Open(dir_.path() / "templates", workers_).value();
  Builder builder_{driver_, booter_, *store_, workers_};
  std::vector<std::string> steps_;
  std::function<void(std::string_view)> on_step_;
};

TEST_F(BuilderTest, PublishesWhatItBooted) {
  auto built = Build(Request());
  ASSERT_TRUE(built.has_value()) << ToString(built.error());
  EXPECT_EQ(steps_, (std::vector<std::string>{"booting", "agent answers", "saving", "publishing"}));
  EXPECT_TRUE(agents_.guest(AgentOf("vm-1")).prepared_for_save);
  ExpectNothingLeft();
  const Manifest m = store_->Get(built->loaded->manifest().digest).value();
  EXPECT_EQ(m.shape, (Shape{1, 4, Bytes::MiB(128), Bytes::GiB(8)}));
  EXPECT_EQ(m.accelerator, Accelerator::kTcg);
  EXPECT_EQ(m.inputs.at("driver"), "fake");
  EXPECT_EQ(m.inputs.at("kernel_params"), "quiet");
  EXPECT_EQ(m.inputs.at("kernel").size(), 64u);
  EXPECT_NE(m.inputs.at("kernel"), m.inputs.at("initrd"));
  EXPECT_EQ(m.fingerprint.at("vmm.version"), "fake 1");
  EXPECT_FALSE(m.agent_version.empty());
  EXPECT_GT(m.state_size, Bytes());
  EXPECT_GT(built->boot_time.count(), 0);
  EXPECT_GT(built->save_time.count(), 0);
}

TEST_F(BuilderTest, ReusesWhatWasBuiltFromTheSame) {
  const TemplateDigest first = BuiltDigest(Request());
  steps_.clear();
  auto second = Build(Request(first));
  ASSERT_TRUE(second.has_value()) << ToString(second.error());
  EXPECT_TRUE(second->reused);
  EXPECT_EQ(second->loaded->manifest().digest, first);
  EXPECT_TRUE(steps_.empty());
  EXPECT_EQ(host_.calls(Verb::kStart), 1u);
}

TEST_F(BuilderTest, BuildsAnewWhenAnythingChangedOrForced) {
  const TemplateDigest first = BuiltDigest(Request());
  auto request = Request(first);
  request.force = true;
  EXPECT_NE(BuiltDigest(request), first);
  request = Request(first);
  request.kernel_params = "debug";
  EXPECT_NE(BuiltDigest(request), first);
  request = Request(first);
  request.shape.max_vcpus = 5;
  EXPECT_NE(BuiltDigest(request), first);
  request = Request(first);
  request.accelerator = Accelerator::kKvm;
  EXPECT_NE(BuiltDigest(request), first);
  host_.fingerprint["vmm.version"] = "fake 2";
  EXPECT_NE(BuiltDigest(Request(first)), first);
  host_.fingerprint["vmm.version"] = "fake 1";
  Write("kernel", "A kernel");  // of the same size
  EXPECT_NE(BuiltDigest(Request(first)), first);
}

TEST_F(BuilderTest, BuildsAnewWhenTheCurrentOneIsGoneOrDamaged) {
  const TemplateDigest first = BuiltDigest(Request());
  fs::resize_file(dir_.path() / "templates" / first.str() / "state", 1);
  const TemplateDigest second = BuiltDigest(Request(first));
  fs::remove_all(dir_.path() / "templates" / second.str());
  BuiltDigest(Request(second));
}

TEST_F(BuilderTest, AFailureAtAnyVerbLeavesNothing) {
  const Fault failing{.error = {Code::kInternal, "the fault"}};
  const Fault dying{.kind = Fault::Kind::kVmmDies};
  for (Verb verb : {Verb::kStart, Verb::kPause, Verb::kSave}) {
    host_.Inject(verb, failing);
    EXPECT_NE(Build(Request()).error().message.find("the fault"), std::string::npos);
    ExpectNoTrace();
    if (verb == Verb::kStart) continue;
    host_.Inject(verb, dying);
    EXPECT_FALSE(Build(Request()).has_value());
    ExpectNoTrace();
  }
  host_.Inject(Verb::kDescribe, failing);
  EXPECT_FALSE(Build(Request()).has_value());
  ExpectNoTrace();
  for (Method method : {Method::kVersion, Method::kPrepareSave}) {
    agents_.FailNext(method, {Code::kInternal, "the fault"});
    EXPECT_NE(Build(Request()).error().message.find("the fault"), std::string::npos);
    ExpectNoTrace();
  }
  EXPECT_TRUE(Build(Request()).has_value()) << "one failure does not stop the next";
}

TEST_F(BuilderTest, AForeignAgentNeedsNoMoreThanToBeHealthy) {
  agents_.SetForeign(true);
  auto built = Build(Request());
  ASSERT_TRUE(built.has_value()) << ToString(built.error());
  EXPECT_EQ(built->loaded->manifest().agent_version, "kata-agent 3.0.0");
  EXPECT_EQ(agents_.CountCalls(Method::kPrepareSave), 1u);
  EXPECT_FALSE(agents_.guest(AgentOf("vm-1")).prepared_for_save);
  EXPECT_EQ(agents_.CountCalls(Method::kDetails), 0u);
  ExpectNothingLeft();
}

TEST_F(BuilderTest, RefusesRequestsThatNameNoGuest) {
  auto request = Request();
  request.kernel.clear();
  EXPECT_EQ(Build(request).error().field, "kernel");
  request = Request();
  request.initrd.clear();
  EXPECT_EQ(Build(request).error().field, "initrd");
  request = Request();
  request.image = request.initrd;
  EXPECT_EQ(Build(request).error().field, "initrd");
  request = Request();
  request.shape.memory = Bytes::MiB(100);
  EXPECT_EQ(Build(request).error().field, "memory");
  request = Request();
  request.vm_id = VmId("../x");
  EXPECT_EQ(Build(request).error().field, "vm_id");
  request = Request();
  request.kernel = "/no/such/kernel";
  EXPECT_NE(Build(request).error().message.find("/no/such/kernel"), std::string::npos);
  EXPECT_TRUE(steps_.empty());
  ExpectNoTrace();
}

TEST_F(BuilderTest, AFileThatChangesMeanwhileAbortsIt) {
  on_step_ = [this](std::string_view step) {
    if (step == "agent answers") Write("initrd", "AN initrd");
  };
  EXPECT_EQ(Build(Request()).error().code, Code::kAborted);
  ExpectNoTrace();
}

TEST_F(BuilderTest, CancellingTheSaveLeavesNothing) {
  host_.Inject(Verb::kSave, {.kind = Fault::Kind::kHang});
  auto built = CancelWhen(builder_.Build(Request(), {}, After(kLong)),
                          [&] { return host_.calls(Verb::kSave) > 0; });
  EXPECT_EQ(built.error().code, Code::kCancelled);
  ExpectNoTrace();
}

TEST_F(BuilderTest, CancellingThePreparationLeavesNothing) {
  agents_.HangNext(Method::kPrepareSave);
  auto built = CancelWhen(builder_.Build(Request(), {}, After(kLong)),
                          [&] { return agents_.CountCalls(Method::kPrepareSave) > 0; });
  EXPECT_EQ(built.error().code, Code::kCancelled);
  ExpectNoTrace();
}

TEST_F(BuilderTest, CancellingThePublicationLeavesNothing) {
  bool publishing = false;
  auto built =
      CancelWhen(builder_.Build(
                     Request(), [&](std::string_view step) { publishing = step == "publishing"; },
                     After(kLong)),
                 [&] { return publishing; });
  EXPECT_EQ(built.error().code, Code::kCancelled);
  ExpectNoTrace();
}

TEST_F(BuilderTest, ACompatibleHostIsOneWithTheSameFingerprint) {
  auto built = Build(Request());
  ASSERT_TRUE(built.has_value());
  Manifest m = built->loaded->manifest();
  EXPECT_TRUE(CheckCompatible(m).has_value());

  host_.fingerprint["vmm.version"] = "fake 2";
  auto refused = CheckCompatible(m);
  EXPECT_EQ(refused.error().code, Code::kFailedPrecondition);
  EXPECT_NE(refused.error().message.find("vmm.version is 'fake 1' in the template and 'fake 2'"),
            std::string::npos)
      << refused.error().message;
  host_.fingerprint["vmm.version"] = "fake 1";
  m.inputs["driver"] = "qemu";
  EXPECT_EQ(CheckCompatible(m).error().code, Code::kFailedPrecondition);
}

TEST_F(BuilderTest, AnImageIsPartOfWhatClonesNeed) {
  Write("image", "a disk");
  auto request = Request();
  request.initrd.clear();
  request.image = dir_.path() / "image";
  auto built = Build(request);
  ASSERT_TRUE(built.has_value()) << ToString(built.error());
  const Manifest m = built->loaded->manifest();
  EXPECT_EQ(m.inputs.at("image_path"), request.image);
  EXPECT_TRUE(CheckCompatible(m).has_value());
  Write("image", "A disk");
  EXPECT_EQ(CheckCompatible(m).error().code, Code::kFailedPrecondition);
  fs::remove(request.image);
  EXPECT_EQ(CheckCompatible(m).error().code, Code::kFailedPrecondition);
}

}  // namespace
}  // namespace hatchery::tmpl
