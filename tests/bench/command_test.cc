// The command line as users run it, with benchmarks that measure nothing.
#include "bench/command.h"

#include <gmock/gmock.h>
#include <signal.h>

#include <fstream>
#include <sstream>

#include "base/files.h"
#include "bench/report_json.h"
#include "tests/bench/sample_report.h"

namespace hatchery::bench {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using BenchSetup = Setup;  // testing::Test has a Setup of its own

class BenchCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    auto scratch = TempDir::Create(fs::temp_directory_path(), "hatchery-bench-");
    ASSERT_TRUE(scratch.has_value()) << ToString(scratch.error());
    scratch_.emplace(*std::move(scratch));
    // What passes for a guest image, and for a daemon.
    Write("image/vmlinuz", "k");
    Write("image/initrd.img", "i");
    Write("image/image.json", R"({"kernel": {"size": 1}, "initrd": {"size": 1}})");
    Write("hatcheryd", "");
    fs::permissions(Path("hatcheryd"), fs::perms::owner_all);

    const Report sample = SampleReport();
    benchmarks_.cold_start = [this, sample](const BenchSetup& setup, const ColdStartPlan& plan) {
      cold_start_ = plan;
      return Answer(setup, sample.sections[0]);
    };
    benchmarks_.burst = [this, sample](const BenchSetup& setup, const BurstPlan& plan) {
      burst_ = plan;
      return Answer(setup, sample.sections[1]);
    };
    benchmarks_.density = [this, sample](const BenchSetup& setup, const DensityPlan& plan) {
      density_ = plan;
      return Answer(setup, sample.sections[2]);
    };
    benchmarks_.rpc = [this, sample](const BenchSetup& setup, const RpcPlan& plan) {
      rpc_ = plan;
      auto answer = Answer(setup, sample.sections[3]);
      setup.environment.accelerator = "fake";
      setup.environment.vmm = setup.environment.template_digest = "";
      return answer;
    };
    benchmarks_.resize = [this, sample](const BenchSetup& setup, const ResizePlan& plan) {
      resize_ = plan;
      return Answer(setup, sample.sections[4]);
    };
  }

  Result<Section> Answer(const BenchSetup& setup, const Section& section) {
    setup.say("a step");
    setup.environment.accelerator = "tcg";
    setup.environment.vmm = "QEMU 7.2";
    setup.environment.template_digest = "sha256:a";
    ran_.push_back(section.benchmark);
    image_dir_ = setup.image_dir;
    memory_ = setup.memory;
    vcpus_ = setup.vcpus;
    qemu_ = setup.qemu;
    accelerator_ = setup.accelerator;
    if (section.benchmark == interrupted_) {
      EXPECT_TRUE(setup.interrupt.Raise(SIGINT)) << "somebody reacts";
      return Cancelled("interrupted");
    }
    if (section.benchmark == broken_) return Internal("it broke");
    return section;
  }

  // Just as given.
  int RunAsIs(std::vector<std::string> arguments) {
    out_.str("");
    err_.str("");
    ran_.clear();
    const cli::Io io{.out = out_, .err = err_};
    cli::Interrupt interrupt;
    return cli::RunCli(std::move(arguments), "", io, interrupt, clock_,
                       [this](CLI::App& app, cli::Context& context) {
                         AddBenchCommands(app, context, benchmarks_);
                       });
  }
  // `hatchery bench …`, with image and daemon.
  int Run(const std::string& benchmark, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"bench", benchmark, "--daemon", Path("hatcheryd")};
    if (benchmark != "rpc") arguments.insert(arguments.end(), {"--image", Path("image")});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunAsIs(arguments);
  }

  std::string Path(const std::string& name) const { return (scratch_->path() / name).string(); }
  void Write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(Path(name)).parent_path());
    std::ofstream(Path(name)) << text;
  }
  std::string Read(const std::string& name) const { return ReadFile(Path(name)).value_or(""); }
  Report Saved(const std::string& name) const {
    auto report = FromJsonText(Read(name));
    EXPECT_TRUE(report.has_value()) << ToString(report.error());
    return report.value_or(Report());
  }
  std::string out() const { return out_.str(); }
  std::string err() const { return err_.str(); }

  std::optional<TempDir> scratch_;
  Benchmarks benchmarks_;
  SystemClock clock_;
  std::ostringstream out_, err_;

  std::string broken_, interrupted_;
  std::vector<std::string> ran_;
  ColdStartPlan cold_start_;
  BurstPlan burst_;
  DensityPlan density_;
  RpcPlan rpc_;
  ResizePlan resize_;
  fs::path image_dir_;
  Bytes memory_;
  std::uint32_t vcpus_ = 0;
  std::string qemu_, accelerator_;
};

TEST_F(BenchCommandTest, PrintsTheTable) {
  EXPECT_EQ(Run("cold-start"), 0);
  EXPECT_THAT(ran_, ElementsAre("cold-start"));
  EXPECT_THAT(out(), HasSubstr("== cold-start"));
  EXPECT_THAT(out(), HasSubstr("acquire from the pool"));
  EXPECT_EQ(err(), "cold-start: a step\n");
}

TEST_F(BenchCommandTest, QuietIsQuiet) {
  EXPECT_EQ(Run("cold-start", {"--quiet"}), 0);
  EXPECT_THAT(err(), IsEmpty());
  EXPECT_THAT(out(), HasSubstr("== cold-start"));
}

TEST_F(BenchCommandTest, WithoutOptionsPlansAreTheirDefaults) {
  EXPECT_EQ(Run("all"), 0);
  EXPECT_EQ(cold_start_.samples, ColdStartPlan().samples);
  EXPECT_EQ(burst_.size, BurstPlan().size);
  EXPECT_EQ(density_.limit, DensityPlan().limit);
  EXPECT_EQ(rpc_.concurrency, RpcPlan().concurrency);
  EXPECT_THAT(rpc_.rates, IsEmpty());
  EXPECT_EQ(resize_.memory, ResizePlan().memory);
  EXPECT_EQ(memory_, Bytes::MiB(256));
  EXPECT_EQ(vcpus_, 1u);
}

TEST_F(BenchCommandTest, OptionsReachThePlan) {
  EXPECT_EQ(Run("cold-start", {"--samples", "7", "--cold-boots", "3", "--warm-ups", "0", "--burst",
                               "9", "--vcpus", "2", "--memory", "512M", "--qemu", "/opt/qemu",
                               "--accelerator", "tcg"}),
            0);
  EXPECT_EQ(cold_start_.samples, 7);
  EXPECT_EQ(cold_start_.cold_boots, 3);
  EXPECT_EQ(cold_start_.warm_ups, 0);
  EXPECT_EQ(cold_start_.burst, 9u);
  EXPECT_EQ(vcpus_, 2u);
  EXPECT_EQ(memory_, Bytes::MiB(512));
  EXPECT_EQ(qemu_, "/opt/qemu");
  EXPECT_EQ(accelerator_, "tcg");
  EXPECT_EQ(image_dir_, Path("image"));

  EXPECT_EQ(Run("burst", {"--size", "5", "--rounds", "2", "--singles", "4"}), 0);
  EXPECT_EQ(burst_.size, 5u);
  EXPECT_EQ(burst_.rounds, 2);
  EXPECT_EQ(burst_.singles, 4);

  EXPECT_EQ(Run("density", {"--limit", "1G", "--max-vms", "8", "--step", "4", "--cold-boots", "2"}),
            0);
  EXPECT_EQ(density_.limit, Bytes::GiB(1));
  EXPECT_EQ(density_.max_vms, 8u);
  EXPECT_EQ(density_.step, 4u);
  EXPECT_EQ(density_.cold_boots, 2);

  EXPECT_EQ(Run("rpc", {"--calls", "10", "--concurrency", "1,64", "--pools", "3", "--rates",
                        "100,0.5", "--open-loop", "2s"}),
            0);
  EXPECT_EQ(rpc_.calls, 10);
  EXPECT_THAT(rpc_.concurrency, ElementsAre(1, 64));
  EXPECT_THAT(rpc_.pools, ElementsAre(3u));
  EXPECT_THAT(rpc_.rates, ElementsAre(100, 0.5));
  EXPECT_EQ(rpc_.open_loop, std::chrono::seconds(2));

  EXPECT_EQ(Run("resize",
                {"--samples", "2", "--warm-ups", "1", "--add-vcpus", "3", "--add-memory", "1G"}),
            0);
  EXPECT_EQ(resize_.samples, 2);
  EXPECT_EQ(resize_.warm_ups, 1);
  EXPECT_EQ(resize_.vcpus, 3u);
  EXPECT_EQ(resize_.memory, Bytes::GiB(1));
}

TEST_F(BenchCommandTest, QuickIsSmallExceptWhereToldOtherwise) {
  EXPECT_EQ(Run("cold-start", {"--quick", "--samples", "5"}), 0);
  EXPECT_EQ(cold_start_.samples, 5);
  EXPECT_EQ(cold_start_.cold_boots, 1);
  EXPECT_EQ(Run("all", {"--quick"}), 0);
  EXPECT_EQ(cold_start_.samples, 2);
  EXPECT_EQ(burst_.size, 2u);
  EXPECT_EQ(density_.max_vms, 2u);
  EXPECT_EQ(rpc_.calls, 20);
  EXPECT_EQ(resize_.samples, 1);
}

TEST_F(BenchCommandTest, HelpShowsEveryDefault) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> defaults = {
      {"cold-start", {"--samples N=100", "--cold-boots N=20", "--warm-ups N=2", "--burst N=20"}},
      {"burst", {"--size N=50", "--rounds N=3", "--singles N=20"}},
      {"density", {"--limit SIZE=2GiB", "--max-vms N=100", "--step N=10", "--cold-boots N=3"}},
      {"rpc",
       {"--calls N=2000", "=1,2,4,8,16,32", "=10,1000,10000", "=half and 80% of the peak",
        "--open-loop DURATION=5s"}},
      {"resize",
       {"--samples N=20", "--warm-ups N=2", "--add-vcpus N=1", "--add-memory SIZE=256MiB"}},
      {"all", {"--memory SIZE=256MiB", "--qemu FILE=qemu-system-x86_64"}}};
  for (const auto& [benchmark, texts] : defaults) {
    EXPECT_EQ(RunAsIs({"bench", benchmark, "--help"}), 0);
    EXPECT_THAT(out(), HasSubstr("Example: hatchery bench " + benchmark));
    for (const auto& text : texts) EXPECT_THAT(out(), HasSubstr(text)) << benchmark;
  }
}

TEST_F(BenchCommandTest, WhatMakesNoSenseIsRefused) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> wrong = {
      {"cold-start", {"--samples", "0"}},
      {"cold-start", {"--samples", "1e3"}},
      {"cold-start", {"--samples", "-1"}},
      {"cold-start", {"--memory", "much"}},
      {"cold-start", {"--memory", "0"}},
      {"cold-start", {"--accelerator", "xen"}},
      {"burst", {"--size", "99999999999999"}},
      {"density", {"--limit", "0"}},
      {"rpc", {"--concurrency", "1,,2"}},
      {"rpc", {"--concurrency", ""}},
      {"rpc", {"--rates", "0"}},
      {"rpc", {"--rates", "nan"}},
      {"rpc", {"--open-loop", "10ms"}},
      {"rpc", {"--open-loop", "2h"}},
      {"rpc", {"--pools", "0"}},
      {"resize", {"--add-memory", "x"}}};
  for (const auto& [benchmark, options] : wrong) {
    EXPECT_EQ(Run(benchmark, options), cli::kExitUsage) << options[0] << " " << options[1];
    EXPECT_THAT(err(), HasSubstr(options[0]));
    EXPECT_THAT(ran_, IsEmpty());
  }
}

TEST_F(BenchCommandTest, WritesTheWholeReport) {
  EXPECT_EQ(Run("all", {"--json", Path("r.json"), "--report", Path("r.html")}), 0);
  EXPECT_THAT(ran_, ElementsAre("cold-start", "burst", "density", "rpc", "resize"));
  EXPECT_THAT(out(), HasSubstr("6 of 8 targets met")) << "the table all the same";
  const Report report = Saved("r.json");
  ASSERT_EQ(report.sections.size(), 5u);
  EXPECT_EQ(report.sections[0].series[0].samples, SampleReport().sections[0].series[0].samples);
  EXPECT_THAT(report.command, StartsWith("hatchery bench all --daemon "));
  EXPECT_THAT(report.environment.kernel, StartsWith("Linux"));
  EXPECT_THAT(Read("r.html"), StartsWith("<!DOCTYPE html>"));
}

TEST_F(BenchCommandTest, TheCommandCanBeTypedAgain) {
  Write("a b/image.json", "");
  EXPECT_EQ(Run("rpc", {"--json", Path("it's $1.json")}), 0);
  EXPECT_THAT(Saved("it's $1.json").command, EndsWith("it'\\''s $1.json'"));
}

TEST_F(BenchCommandTest, ABenchmarkWithoutVmsDoesNotHideWhatTheOthersRanOn) {
  EXPECT_EQ(Run("all", {"--json", Path("r.json")}), 0);
  EXPECT_EQ(Saved("r.json").environment.accelerator, "tcg");
  EXPECT_EQ(Saved("r.json").environment.vmm, "QEMU 7.2");
  EXPECT_EQ(Run("rpc", {"--json", Path("r.json")}), 0);
  EXPECT_EQ(Saved("r.json").environment.accelerator, "fake");
}

TEST_F(BenchCommandTest, OneThatFailsIsToldAndTheOthersRun) {
  broken_ = "burst";
  EXPECT_EQ(Run("all", {"--json", Path("r.json")}), cli::kExitFailed);
  EXPECT_THAT(ran_, ElementsAre("cold-start", "burst", "density", "rpc", "resize"));
  EXPECT_THAT(err(), HasSubstr("hatchery: bench all: burst: it broke\n"));
  EXPECT_THAT(Saved("r.json").sections[1].notes, ElementsAre("could not be measured: it broke"));

  fs::remove(Path("r.json"));
  EXPECT_EQ(Run("burst", {"--json", Path("r.json")}), cli::kExitFailed);
  EXPECT_THAT(out(), IsEmpty());
  EXPECT_FALSE(fs::exists(Path("r.json"))) << "nothing was measured";
}

TEST_F(BenchCommandTest, AnInterruptEndsItAll) {
  interrupted_ = "burst";
  EXPECT_EQ(Run("all", {"--json", Path("r.json"), "--report", Path("r.html")}), 130);
  EXPECT_THAT(ran_, ElementsAre("cold-start", "burst"));
  EXPECT_THAT(err(), EndsWith("hatchery: bench all: interrupted\n"));
  EXPECT_THAT(out(), IsEmpty());
  EXPECT_FALSE(fs::exists(Path("r.json")));
  EXPECT_FALSE(fs::exists(Path("r.html")));
}

TEST_F(BenchCommandTest, CheckFailsWhereATargetIsMissed) {
  EXPECT_EQ(Run("burst"), 0);
  EXPECT_EQ(Run("burst", {"--check"}), cli::kExitFailed);
  EXPECT_THAT(err(), HasSubstr("1 of 2 targets missed"));
  EXPECT_EQ(Run("density", {"--check"}), 0);
}

TEST_F(BenchCommandTest, AMissingImageIsToldBeforeAnythingStarts) {
  fs::remove(Path("image/initrd.img"));
  EXPECT_EQ(Run("all"), cli::kExitFailed);
  EXPECT_THAT(err(), HasSubstr("build it with `hatchery image build -o " + Path("image") + "`"));
  EXPECT_THAT(ran_, IsEmpty());
  EXPECT_EQ(Run("rpc"), 0) << "it boots no guest";
}

TEST_F(BenchCommandTest, AMissingDaemonIsToldBeforeAnythingStarts) {
  fs::remove(Path("hatcheryd"));
  EXPECT_EQ(Run("rpc"), cli::kExitUsage);
  EXPECT_THAT(err(), HasSubstr("no hatcheryd at " + Path("hatcheryd")));
}

TEST_F(BenchCommandTest, FilesThatCannotBeWrittenAreToldBeforeAnythingStarts) {
  for (const char* option : {"--json", "--report"}) {
    EXPECT_EQ(Run("rpc", {option, Path("nowhere/r")}), cli::kExitUsage);
    EXPECT_THAT(err(), HasSubstr("cannot write in " + Path("nowhere")));
    EXPECT_EQ(Run("rpc", {option, Path("image")}), cli::kExitUsage);
    EXPECT_THAT(ran_, IsEmpty());
  }
}

TEST_F(BenchCommandTest, ShowsWhatWasSaved) {
  Write("r.json", ToJsonText(SampleReport()));
  EXPECT_EQ(RunAsIs({"bench", "show", Path("r.json"), "--report", Path("r.html")}), 0);
  EXPECT_THAT(out(), HasSubstr("6 of 8 targets met"));
  EXPECT_THAT(Read("r.html"), HasSubstr("6 of 8 targets met"));
  EXPECT_EQ(RunAsIs({"bench", "show", Path("r.json"), "--check"}), cli::kExitFailed);
}

TEST_F(BenchCommandTest, WhatIsNoReportIsRefusedByName) {
  EXPECT_EQ(RunAsIs({"bench", "show", Path("none.json")}), cli::kExitFailed);
  EXPECT_THAT(err(), HasSubstr("none.json"));
  Write("r.json", "{}");
  EXPECT_EQ(RunAsIs({"bench", "show", Path("r.json")}), cli::kExitFailed);
  EXPECT_THAT(err(), HasSubstr(Path("r.json") + ": this is no report"));
  EXPECT_EQ(RunAsIs({"bench", "--compare", Path("r.json"), Path("none.json")}), cli::kExitFailed);
  EXPECT_THAT(out(), IsEmpty());
}

TEST_F(BenchCommandTest, Compares) {
  Report b = SampleReport();
  for (double& sample : b.sections[0].series[2].samples) sample *= 2;
  Write("a.json", ToJsonText(SampleReport()));
  Write("b.json", ToJsonText(b));
  EXPECT_EQ(RunAsIs({"bench", "--compare", Path("a.json"), Path("b.json")}), 0);
  EXPECT_THAT(out(), StartsWith("A: " + Path("a.json") + "\nB: " + Path("b.json")));
  EXPECT_THAT(out(), HasSubstr("slower"));
  EXPECT_THAT(out(), Not(HasSubstr("faster")));
}

TEST_F(BenchCommandTest, CompareStandsAlone) {
  Write("a.json", ToJsonText(SampleReport()));
  EXPECT_EQ(RunAsIs({"bench", "--compare", Path("a.json")}), cli::kExitUsage);
  EXPECT_EQ(Run("rpc", {"--compare", Path("a.json"), Path("a.json")}), cli::kExitUsage);
  EXPECT_THAT(ran_, IsEmpty());
  EXPECT_EQ(RunAsIs({"bench"}), cli::kExitUsage) << "says what there is";
  EXPECT_THAT(err(), HasSubstr("cold-start"));
}

}  // namespace
}  // namespace hatchery::bench
