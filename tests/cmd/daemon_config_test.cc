#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "cmd/hatcheryd/config.h"
#include "cmd/hatcheryd/settings.h"

namespace hatchery::daemon {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string ErrorOf(std::string_view toml) {
  auto config = ParseToml(toml, "hatchery.toml");
  return config ? "no error" : config.error().message;
}

Result<Config> FromFlags(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(Invocation invocation, ParseCommandLine(arguments));
  return std::get<Config>(invocation);
}

std::map<std::string, std::string> Values(const Config& config) {
  std::map<std::string, std::string> values;
  for (const Setting& setting : AllSettings()) values[setting.Path()] = setting.get(config);
  return values;
}

TEST(DaemonConfig, TheFileInTheRepositoryIsThePrintedDefault) {
  auto file = ReadFile(HATCHERY_SOURCE_DIR "/hatchery.toml");
  ASSERT_TRUE(file.has_value()) << ToString(file.error());
  EXPECT_EQ(*file, DefaultToml()) << "run: hatcheryd --print-config > hatchery.toml";
}

TEST(DaemonConfig, ThePrintedDefaultReadsAsTheDefaults) {
  auto config = ParseToml(DefaultToml(), "hatchery.toml");
  ASSERT_TRUE(config.has_value()) << ToString(config.error());
  EXPECT_EQ(Values(*config), Values(Config()));
}

TEST(DaemonConfig, AnEmptyFileIsTheDefaults) {
  auto config = ParseToml("", "hatchery.toml");
  ASSERT_TRUE(config.has_value()) << ToString(config.error());
  EXPECT_EQ(Values(*config), Values(Config()));
}

TEST(DaemonConfig, ReadsEveryKindOfValue) {
  auto config = ParseToml(
      "state_dir = \"/srv/h\"\nsocket_mode = \"0600\"\n[qemu]\nsandbox = false\nvsock = \"never\"\n"
      "[template]\nvcpus = 2\nmemory = \"512MiB\"\nboot_timeout = \"2m\"\n[stop]\nwarm = "
      "\"keep\"\n",
      "hatchery.toml");
  ASSERT_TRUE(config.has_value()) << ToString(config.error());
  EXPECT_EQ(config->state_dir, "/srv/h");
  EXPECT_EQ(config->socket_mode, 0600u);
  EXPECT_FALSE(config->qemu.sandbox);
  EXPECT_EQ(config->qemu.vsock, UseVsock::kNever);
  EXPECT_EQ(config->tmpl.vcpus, 2u);
  EXPECT_EQ(config->tmpl.memory, Bytes::MiB(512));
  EXPECT_EQ(config->tmpl.boot_timeout, seconds(120));
  EXPECT_EQ(config->stop.warm, OnStop::kKeep);
}

TEST(DaemonConfig, ListsOfWhoMayCallAreReadAtOnce) {
  auto config = ParseToml("[access]\nadminister = \"uid:5, group:no-such-group\"\n", "h.toml");
  ASSERT_TRUE(config.has_value()) << "names are looked up when the daemon starts";
  EXPECT_EQ(config->access.administer, "uid:5, group:no-such-group");
  EXPECT_THAT(ErrorOf("[access]\nread = \"*\"\nacquire = \"alice\"\n"),
              AllOf(StartsWith("hatchery.toml:3: access.acquire: 'alice' "),
                    HasSubstr("write uid:NUMBER")));
}

TEST(DaemonConfig, TcpIsServedWithMutualTlsOnly) {
  const std::string files = "certificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n";
  for (const char* listen : {"0.0.0.0:7443", "[::]:7443", "localhost:0", "host.example.org:1"}) {
    EXPECT_EQ(ErrorOf("[tls]\nlisten = \"" + std::string(listen) + "\"\n" + files), "no error");
  }
  for (const char* listen : {"7443", ":7443", "host", "host:", "host:65536", "host:-1", "::1:7443",
                             "tcp://host:1", "host:1x"}) {
    EXPECT_THAT(ErrorOf("[tls]\nlisten = \"" + std::string(listen) + "\"\n" + files),
                HasSubstr("is not HOST:PORT"))
        << listen;
  }
  EXPECT_THAT(ErrorOf("[tls]\nlisten = \"h:1\"\ncertificate = \"/c\"\nkey = \"/k\"\n"),
              HasSubstr("only with mutual TLS"));
  EXPECT_THAT(ErrorOf("[tls]\nkey = \"/k\"\n"), HasSubstr("without tls.listen"));
}

TEST(DaemonConfig, AnUnknownKeyIsNamedWithItsLineAndTheOneThatWasMeant) {
  EXPECT_EQ(ErrorOf("[template]\n\nvcpu = 2\n"),
            "hatchery.toml:3: there is no setting 'template.vcpu'; did you mean 'vcpus'?");
  EXPECT_EQ(ErrorOf("[tempalte]\nvcpus = 2\n"),
            "hatchery.toml:1: there is no section [tempalte]; did you mean 'template'?");
  EXPECT_EQ(ErrorOf("clone_timeout = \"1s\"\n"),
            "hatchery.toml:1: there is no setting 'clone_timeout'; it belongs in [pool]");
  EXPECT_THAT(ErrorOf("[pool]\nxyzzyxyzzy = 1\n"),
              AllOf(StartsWith("hatchery.toml:2: "), HasSubstr("--print-config")));
}

TEST(DaemonConfig, AWrongTypeOrRangeIsNamedWithItsLine) {
  EXPECT_EQ(ErrorOf("[template]\nvcpus = \"2\"\n"),
            "hatchery.toml:2: template.vcpus must be a whole number, as in vcpus = 1");
  EXPECT_EQ(ErrorOf("[template]\nmemory = 256\n"),
            "hatchery.toml:2: template.memory must be a string, as in memory = \"256MiB\"");
  EXPECT_EQ(ErrorOf("[template]\nvcpus = 0\n"),
            "hatchery.toml:2: template.vcpus: '0' is not a whole number from 1 to 240");
  EXPECT_THAT(ErrorOf("[template]\nmemory = \"200MiB\"\n"), HasSubstr("not a multiple of 128 MiB"));
  EXPECT_THAT(ErrorOf("[template]\nboot_timeout = \"60\"\n"), HasSubstr("its unit is missing"));
  EXPECT_EQ(ErrorOf("[log]\nlevel = \"loud\"\n"),
            "hatchery.toml:2: log.level: 'loud' is none of debug, info, warning, error");
  EXPECT_THAT(ErrorOf("log = 3\n"), HasSubstr("write [log]"));
  EXPECT_THAT(ErrorOf("socket_mode = \"9\"\n"), HasSubstr("not a mode"));
  EXPECT_THAT(ErrorOf("endpoint = \"localhost:50051\"\n"), HasSubstr("no unix socket"));
}

TEST(DaemonConfig, BrokenTomlIsNamedWithItsLine) {
  EXPECT_THAT(ErrorOf("state_dir = \"/a\"\nendpoint = \n"), StartsWith("hatchery.toml:2: "));
  EXPECT_THAT(ErrorOf("[log\nlevel = 1\n"), StartsWith("hatchery.toml:1: "));
  EXPECT_THAT(ErrorOf("[pool]\nsize = 1\nsize = 2\n"), StartsWith("hatchery.toml:"));
  EXPECT_THAT(ErrorOf("[pool]\nsize = 99999999999999999999999\n"), StartsWith("hatchery.toml"));
}

TEST(DaemonConfig, SettingsThatContradictEachOtherAreNamed) {
  EXPECT_EQ(ErrorOf("[template]\nvcpus = 9\n"),
            "hatchery.toml:2: template.vcpus: 9 is more than template.max_vcpus, 8");
  EXPECT_THAT(ErrorOf("[template]\nmax_memory = \"128MiB\"\n"),
              StartsWith("template.memory: 256 MiB is more than template.max_memory"));
  EXPECT_THAT(ErrorOf("[guest]\ninitrd = \"/i\"\n"), HasSubstr("without guest.kernel"));
  EXPECT_THAT(ErrorOf("[guest]\nkernel = \"/k\"\n"), HasSubstr("needs either"));
  EXPECT_THAT(ErrorOf("[guest]\nkernel = \"/k\"\ninitrd = \"/i\"\nimage = \"/d\"\n"),
              HasSubstr("not both"));
  EXPECT_THAT(ErrorOf("state_dir = \"/" + std::string(120, 'x') + "\"\n"), HasSubstr("107 bytes"));
}

TEST(DaemonConfig, EverySettingHasAFlag) {
  for (const Setting& setting : AllSettings()) {
    const std::string value = setting.get(Config());
    auto config = FromFlags({setting.Flag() + "=" + value});
    if (value.empty()) continue;  // CLI11 takes "--flag=" for a flag without its value
    ASSERT_TRUE(config.has_value()) << setting.Flag() << " " << ToString(config.error());
    EXPECT_EQ(Values(*config), Values(Config())) << setting.Flag();
  }
}

TEST(DaemonConfig, AFlagWinsOverTheFileAndTheFileOverTheDefault) {
  auto folder = TempDir::Create(fs::temp_directory_path(), "config-test-");
  ASSERT_TRUE(folder.has_value());
  const std::string file = folder->path() / "hatchery.toml";
  ASSERT_TRUE(WriteFileAtomically(file, "[pool]\nsize = 7\n[template]\nvcpus = 3\n").has_value());

  auto config = FromFlags({"--config", file, "--pool-size", "9"});
  ASSERT_TRUE(config.has_value()) << ToString(config.error());
  EXPECT_EQ(config->pool.size, 9u);
  EXPECT_EQ(config->tmpl.vcpus, 3u);
  EXPECT_EQ(config->tmpl.max_vcpus, 8u);
}

TEST(DaemonConfig, AFlagCanHealWhatTheFileAloneWouldContradict) {
  auto folder = TempDir::Create(fs::temp_directory_path(), "config-test-");
  ASSERT_TRUE(folder.has_value());
  const std::string file = folder->path() / "hatchery.toml";
  ASSERT_TRUE(WriteFileAtomically(file, "[template]\nvcpus = 12\n").has_value());
  EXPECT_FALSE(FromFlags({"--config", file}).has_value());
  EXPECT_TRUE(FromFlags({"--config", file, "--template-max-vcpus", "16"}).has_value());
}

TEST(DaemonConfig, WrongFlagsAreNamed) {
  EXPECT_THAT(FromFlags({"--pool-size", "many"}).error().message,
              StartsWith("--pool-size: 'many' is not a whole number"));
  EXPECT_THAT(FromFlags({"--no-such-flag"}).error().message,
              AllOf(HasSubstr("--no-such-flag"), HasSubstr("--help")));
  const Error missing = FromFlags({"--config", "/no/such.toml"}).error();
  EXPECT_EQ(missing.code, Code::kNotFound);
  EXPECT_THAT(missing.message, HasSubstr("/no/such.toml"));
}

TEST(DaemonConfig, RelativePathsAreTakenFromTheWorkingDirectory) {
  auto config = FromFlags({"--state-dir", "state"});
  ASSERT_TRUE(config.has_value()) << ToString(config.error());
  EXPECT_EQ(config->state_dir, fs::current_path() / "state");
  EXPECT_EQ(SocketPath(*config), fs::current_path() / "state/hatchery.sock");
  EXPECT_EQ(ImageDir(*config), fs::current_path() / "state/image");
}

TEST(DaemonConfig, TheEndpointMayBeWrittenInThreeWays) {
  for (const char* text : {"unix:///run/h.sock", "unix:/run/h.sock", "/run/h.sock"}) {
    auto config = FromFlags({"--endpoint", text});
    ASSERT_TRUE(config.has_value()) << ToString(config.error());
    EXPECT_EQ(SocketPath(*config), "/run/h.sock");
  }
}

TEST(DaemonConfig, PrintsTheDefaultHelpAndVersion) {
  auto print = [](const std::string& flag) {
    return std::get<PrintAndExit>(*ParseCommandLine({flag})).text;
  };
  EXPECT_EQ(print("--print-config"), DefaultToml());
  EXPECT_THAT(print("--help"), AllOf(HasSubstr("--template-max-vcpus"), HasSubstr("Example:")));
  EXPECT_THAT(print("--version"), StartsWith("hatcheryd "));
}

}  // namespace
}  // namespace hatchery::daemon
