// A certificate authority for tests, made by the openssl command; its files go with it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/files.h"
#include "base/process.h"
#include "base/run.h"

namespace hatchery {

class TestCa {
 public:
  TestCa() {
    std::vector<std::string> args = {"req", "-x509", "-subj", "/CN=test CA", "-days", "2"};
    Openssl(With(std::move(args), {"-keyout", Path("ca.key"), "-out", ca(), "-nodes", "-newkey",
                                   "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"}));
  }

  std::string ca() const { return Path("ca.pem"); }
  struct Pair {
    std::string certificate, key;  // paths
  };
  // For `subject` ("/CN=ci"), with the other names in `san` ("IP:127.0.0.1,DNS:localhost").
  Pair Issue(const std::string& subject, const std::string& san) {
    const std::string name = "issued-" + std::to_string(++count_);
    const Pair pair{Path(name + ".pem"), Path(name + ".key")};
    const std::string request = Path(name + ".csr"), names = Path(name + ".ext");
    EXPECT_TRUE(WriteFileAtomically(names, "subjectAltName=" + san + "\n").has_value());
    Openssl({"req", "-subj", subject, "-keyout", pair.key, "-out", request, "-nodes", "-newkey",
             "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"});
    Openssl({"x509", "-req", "-in", request, "-CA", ca(), "-CAkey", Path("ca.key"), "-set_serial",
             std::to_string(count_), "-days", "2", "-extfile", names, "-out", pair.certificate});
    return pair;
  }
  std::string Path(const std::string& name) const { return (dir_.path() / name).string(); }

 private:
  static std::vector<std::string> With(std::vector<std::string> all,
                                       const std::vector<std::string>& more) {
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  static void Openssl(std::vector<std::string> args) {
    asio::io_context io;
    PosixSpawner spawner(io.get_executor());
    args.insert(args.begin(), "openssl");
    const auto done = RunUntilDone(io, RunCommand(spawner, args, After(std::chrono::seconds(30))));
    ASSERT_TRUE(done.has_value()) << ToString(done.error());
    ASSERT_EQ(done->status.value, 0) << done->err;
  }

  TempDir dir_ = TempDir::Create("/tmp", "hatchery-ca-").value();
  int count_ = 0;
};

}  // namespace hatchery
