#include "agent/client/unreachable.h"

namespace hatchery::agent {

namespace {

template <class T>
Task<T> Fail(std::string reason) {
  co_return Unavailable(std::move(reason));
}

class UnreachableClient final : public Client {
 public:
  explicit UnreachableClient(std::string reason) : reason_(std::move(reason)) {}

  Task<void> Check(Deadline) override { return Fail<void>(reason_); }
  Task<Versions> Version(Deadline) override { return Fail<Versions>(reason_); }
  Task<PersonalizeReport> Personalize(const Identity&, Deadline) override {
    return Fail<PersonalizeReport>(reason_);
  }
  Task<OnlineReport> AwaitOnline(std::uint32_t, Bytes, std::uint32_t, Deadline) override {
    return Fail<OnlineReport>(reason_);
  }
  Task<ExecResult> Exec(const ExecRequest&, Deadline) override { return Fail<ExecResult>(reason_); }
  Task<GuestDetails> Details(Deadline) override { return Fail<GuestDetails>(reason_); }
  Task<void> PrepareSave(Deadline) override { return Fail<void>(reason_); }
  Task<void> PowerOff(Deadline) override { return Fail<void>(reason_); }
  Task<void> OnlineCpuMem(std::uint32_t, bool, bool, Deadline) override {
    return Fail<void>(reason_);
  }
  Task<void> ReseedRandomDev(std::string, Deadline) override { return Fail<void>(reason_); }
  Task<void> SetGuestDateTime(WallTime, Deadline) override { return Fail<void>(reason_); }
  bool usable() const override { return false; }

 private:
  const std::string reason_;
};

}  // namespace

std::unique_ptr<Client> MakeUnreachableClient(std::string reason) {
  return std::make_unique<UnreachableClient>(std::move(reason));
}

}  // namespace hatchery::agent
