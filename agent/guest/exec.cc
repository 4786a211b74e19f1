#include "agent/guest/exec.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "agent/guest/spawn.h"

namespace hatchery::agent::guest {

namespace {

constexpr std::size_t kDefaultOutputBytes = 1u << 20;
// Twice this and the envelope fit a ttrpc frame.
constexpr std::size_t kMaxOutputBytes = 3u << 19;
constexpr std::size_t kMaxIdBytes = 64;
constexpr std::size_t kReadBytes = 64 << 10;
// A pipe holds 64 KiB unless it was enlarged, at most to 1 MiB. Bounds the last look into one that
// a grandchild keeps filling.
constexpr std::size_t kMaxDrainBytes = 1 << 20;

}  // namespace

class Execs::Running {
 public:
  Running(EventLoop& loop, Child child, const v1::ExecRequest& request, std::size_t limit,
          std::shared_ptr<Call> call, std::function<void()> on_end)
      : loop_(loop),
        child_(std::move(child)),
        id_(request.exec_id()),
        input_(request.stdin_data()),
        limit_(limit),
        call_(std::move(call)),
        on_end_(std::move(on_end)) {}

  ~Running() {
    StopWatching();
    if (!reaped_) {
      Kill();
      ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(child_.pidfd.get()), nullptr,
               WEXITED);
    }
  }

  Result<void> Begin(std::uint64_t timeout_ms) {
    call_->OnCancel([this] { Kill(); });
    ASSIGN_OR_RETURN(exit_watch_,
                     loop_.Watch(child_.pidfd.get(), EPOLLIN, [this](std::uint32_t) { OnExit(); }));
    ASSIGN_OR_RETURN(out_.watch, loop_.Watch(child_.out.get(), EPOLLIN, [this](std::uint32_t) {
      OnOutput(out_, child_.out.get());
    }));
    ASSIGN_OR_RETURN(err_.watch, loop_.Watch(child_.err.get(), EPOLLIN, [this](std::uint32_t) {
      OnOutput(err_, child_.err.get());
    }));
    if (child_.in) {
      ASSIGN_OR_RETURN(in_watch_,
                       loop_.Watch(child_.in.get(), EPOLLOUT, [this](std::uint32_t) { Feed(); }));
    }
    constexpr std::uint64_t kLongestMs = 365ull * 24 * 3600 * 1000;
    Time end = call_->deadline();
    if (timeout_ms != 0) {
      end = std::min(end, std::chrono::steady_clock::now() +
                              std::chrono::milliseconds(std::min(timeout_ms, kLongestMs)));
    }
    if (end != Time::max()) {
      timer_ = loop_.RunAt(end, [this] {
        timed_out_ = true;
        Kill();
      });
    }
    return {};
  }

  const std::string& id() const { return id_; }

  // Its number cannot have passed to another group: the leader is not reaped yet.
  void Kill() {
    if (!reaped_) ::kill(-child_.pid, SIGKILL);
  }

 private:
  struct Output {
    std::string kept;
    bool truncated = false;
    EventLoop::WatchId watch = 0;
  };

  void Feed() {
    while (fed_ < input_.size()) {
      const ssize_t size = ::write(child_.in.get(), input_.data() + fed_, input_.size() - fed_);
      if (size < 0 && errno == EINTR) continue;
      if (size < 0 && errno == EAGAIN) return;
      if (size < 0) break;  // the command does not want the rest
      fed_ += static_cast<std::size_t>(size);
    }
    loop_.Unwatch(std::exchange(in_watch_, 0));
    child_.in.Reset();
  }

  // One read. False when there is no more to read now, or ever.
  bool ReadSome(Output& output, int fd) {
    std::array<char, kReadBytes> buffer;
    const ssize_t size = ::read(fd, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) return true;
    if (size < 0 && errno == EAGAIN) return false;
    if (size <= 0) {
      loop_.Unwatch(std::exchange(output.watch, 0));
      return false;
    }
    const auto got = static_cast<std::size_t>(size);
    const std::size_t keep = std::min(got, limit_ - output.kept.size());
    output.kept.append(buffer.data(), keep);
    output.truncated |= keep < got;
    return true;
  }

  // One read per event: a command that floods must not keep the loop from others.
  void OnOutput(Output& output, int fd) { ReadSome(output, fd); }

  void OnExit() {
    siginfo_t info{};
    const int waited = ::waitid(static_cast<idtype_t>(P_PIDFD),
                                static_cast<id_t>(child_.pidfd.get()), &info, WEXITED | WNOHANG);
    if (waited == 0 && info.si_pid == 0) return;
    reaped_ = true;
    Drain(out_, child_.out.get());
    Drain(err_, child_.err.get());
    StopWatching();
    v1::ExecResponse response;
    if (info.si_code == CLD_EXITED) {
      response.set_exit_code(info.si_status);
    } else {
      response.set_signal(info.si_status);
    }
    response.set_timed_out(timed_out_ && response.has_signal());
    response.set_out(std::move(out_.kept));
    response.set_err(std::move(err_.kept));
    response.set_out_truncated(out_.truncated);
    response.set_err_truncated(err_.truncated);
    call_->Finish(response.SerializeAsString());
    const auto on_end = std::move(on_end_);  // destroys this
    on_end();
  }

  void Drain(Output& output, int fd) {
    for (std::size_t read = 0; output.watch != 0 && read < kMaxDrainBytes; read += kReadBytes) {
      if (!ReadSome(output, fd)) return;
    }
  }

  void StopWatching() {
    for (const EventLoop::WatchId id : {exit_watch_, out_.watch, err_.watch, in_watch_}) {
      loop_.Unwatch(id);
    }
    if (timer_) loop_.CancelTimer(*timer_);
    timer_.reset();
  }

  EventLoop& loop_;
  Child child_;
  const std::string id_;
  const std::string input_;
  std::size_t fed_ = 0;
  const std::size_t limit_;
  const std::shared_ptr<Call> call_;
  std::function<void()> on_end_;
  Output out_, err_;
  EventLoop::WatchId exit_watch_ = 0, in_watch_ = 0;
  std::optional<EventLoop::TimerId> timer_;
  bool timed_out_ = false;
  bool reaped_ = false;
};

Execs::Execs(EventLoop& loop) : loop_(loop) {}
Execs::~Execs() = default;

void Execs::Start(const v1::ExecRequest& request, std::shared_ptr<Call> call) {
  if (request.output_limit() > kMaxOutputBytes) {
    return call->Finish(InvalidArgument("output_limit", "at most 1.5 MiB"));
  }
  if (request.exec_id().size() > kMaxIdBytes) {
    return call->Finish(InvalidArgument("exec_id", "at most 64 bytes"));
  }
  if (Find(request.exec_id()) != nullptr) {
    return call->Finish(MakeError(Code::kAlreadyExists, "a command of this exec_id is running"));
  }
  if (running_.size() >= kMaxRunning) {
    return call->Finish(
        ResourceExhausted(std::to_string(kMaxRunning) + " commands are running already"));
  }
  auto child = SpawnCommand(request);
  if (!child) return call->Finish(std::unexpected(child.error()));
  const std::size_t limit = request.output_limit() == 0
                                ? kDefaultOutputBytes
                                : static_cast<std::size_t>(request.output_limit());
  const auto it = running_.emplace(running_.end());
  *it = std::make_unique<Running>(loop_, *std::move(child), request, limit, call,
                                  [this, it] { running_.erase(it); });
  if (auto begun = (*it)->Begin(request.timeout_ms()); !begun) {
    running_.erase(it);
    call->Finish(std::unexpected(begun.error()));
  }
}

Execs::Running* Execs::Find(const std::string& exec_id) const {
  if (exec_id.empty()) return nullptr;
  const auto found = std::ranges::find_if(
      running_, [&exec_id](const auto& running) { return running->id() == exec_id; });
  return found == running_.end() ? nullptr : found->get();
}

void Execs::Kill(const std::string& exec_id) {
  if (Running* const running = Find(exec_id)) running->Kill();
}

}  // namespace hatchery::agent::guest
