// `hatchery vm watch`: what happens to VMs, a line for each change, also across restarts of the
// daemon.
#include <algorithm>
#include <condition_variable>

#include "cmd/hatchery/cli.h"
#include "cmd/hatchery/text_output.h"

namespace hatchery::cli {

namespace {

using SteadyClock = std::chrono::steady_clock;

// Between two tries to reach the daemon again, doubling from the first to the last. One that is
// restarted answers within a second or two; one that has not for a minute needs somebody to look.
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::milliseconds kLastPause{2000};
constexpr std::chrono::seconds kPatience{60};
// A stream that lasted so long was one; a shorter one may have been refused.
constexpr std::chrono::seconds kShortest{1};

// False if interrupted first.
bool Pause(Interrupt& interrupt, std::chrono::milliseconds time) {
  std::mutex mutex;
  std::condition_variable woken;
  bool interrupted = false;
  const Interrupt::Scope scope(interrupt, [&] {
    const std::lock_guard lock(mutex);
    interrupted = true;
    woken.notify_all();
  });
  std::unique_lock lock(mutex);
  return !woken.wait_for(lock, time, [&] { return interrupted; });
}

// The revision to begin with when none is given: what happens from now on is told, however the
// connection fares.
Result<std::uint64_t> Now(Client& client) {
  ASSIGN_OR_RETURN(const auto list, client.Call(client.cache(), &v1::Cache::Stub::ListVms,
                                                v1::ListVmsRequest(), {.timeout = kQueryTimeout}));
  return list.revision();
}

class Watcher {
 public:
  Watcher(const Context& context, Client& client, const std::string& vm_id, std::uint64_t after)
      : context_(context), client_(client) {
    request_.set_vm_id(vm_id);
    request_.set_after_revision(after);
  }

  int Run() {
    for (;;) {
      const auto begun = SteadyClock::now();
      const auto ended = Stream();
      if (done_) return kExitOk;
      if (!context_.io.out.good()) {
        return context_.Fail({Code::kUnknown, "could not write the output"});
      }
      if (ended) return context_.Fail({Code::kUnknown, "the daemon ended the stream"});
      if (ended.error().code != Code::kUnavailable) return context_.Fail(ended.error());
      if (SteadyClock::now() - begun >= kShortest || seen_) lost_.reset();
      if (!lost_) {
        lost_ = SteadyClock::now();
        pause_ = kFirstPause;
        context_.Complain("the daemon went away; watching on when it is back");
      }
      if (SteadyClock::now() - *lost_ >= kPatience) return context_.Fail(ended.error());
      if (!Pause(context_.interrupt, pause_))
        return context_.Fail({Code::kCancelled, "interrupted"});
      pause_ = std::min(2 * pause_, kLastPause);
    }
  }

 private:
  Result<void> Stream() {
    seen_ = false;
    return client_.StreamWhile(client_.cache(), &v1::Cache::Stub::Watch, request_,
                               [this](const v1::WatchResponse& event) { return Tell(event); });
  }

  // False when there is nothing more to tell.
  bool Tell(const v1::WatchResponse& event) {
    seen_ = true;
    request_.set_after_revision(event.revision());
    context_.io.out << (context_.json ? DumpJson(ToJson(event)) + "\n" : ToText(event))
                    << std::flush;
    done_ = !request_.vm_id().empty() && event.state() == v1::VM_STATE_UNSPECIFIED &&
            !event.health_changed();
    return !done_ && context_.io.out.good();
  }

  const Context& context_;
  Client& client_;
  v1::WatchRequest request_;  // with the last revision that was told
  bool seen_ = false;         // something came over this connection
  bool done_ = false;         // the one VM that is watched is gone
  std::optional<SteadyClock::time_point> lost_;
  std::chrono::milliseconds pause_ = kFirstPause;
};

int Watch(const Context& context, const std::string& vm_id, std::optional<std::uint64_t> after) {
  auto client = context.Connect();
  if (!client) return context.Fail(client.error());
  const auto now = Now(*client);
  if (!now) return context.Fail(now.error());
  return Watcher(context, *client, vm_id, after.value_or(*now)).Run();
}

}  // namespace

void AddWatchCommand(CLI::App& vm, Context& context) {
  auto id = std::make_shared<std::string>();
  auto after = std::make_shared<std::optional<std::uint64_t>>();
  CLI::App* verb =
      AddVerb(vm, context, "watch", "Print what happens to VMs, a line each, until interrupted",
              "hatchery vm watch --json --after 1041",
              [&context, id, after] { return Watch(context, *id, *after); });
  verb->add_option("ID", *id, "Only this VM, until it is gone; all if not given");
  verb->add_option("--after", *after,
                   "What happened after this revision, as an earlier watch printed it; from now "
                   "on if not given")
      ->type_name("REVISION")
      ->check(CLI::PositiveNumber);
  AddJsonFlag(verb, context);
}

}  // namespace hatchery::cli
