// The checker against forged journals: each of its rules is broken once.
#include "tests/torture/checker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace hatchery::torture {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::int64_t kSecond = 1'000'000'000;

// Writes the journals of a world in which time passes a second a line.
class Story {
 public:
  Story& Call(const std::string& call, const std::string& sandbox, const Json& more = {}) {
    return Add({{"client", "c"}, {"call", call}, {"sandbox", sandbox}}, more);
  }
  Story& Reply(const std::string& call, const std::string& sandbox, int code,
               const Json& more = {}) {
    return Add({{"client", "c"}, {"reply", call}, {"sandbox", sandbox}, {"code", code}}, more);
  }
  Story& Did(const std::string& did, const Json& more = {}) { return Add({{"did", did}}, more); }
  Story& Wait(std::int64_t s) { return now_ += s * kSecond, *this; }

  // A whole acquire of VM number `vm`.
  Story& Acquire(const std::string& sandbox, int vm, const Json& terms = {{"term", "held"}}) {
    return Call("acquire", sandbox, terms).Reply("acquire", sandbox, 0, Identity(vm));
  }
  Story& Release(const std::string& sandbox) {
    return Call("release", sandbox).Reply("release", sandbox, 0);
  }
  Story& Exec(const std::string& sandbox, int vm, const std::string& mark = "") {
    Json who = Identity(vm);
    if (!mark.empty()) who["mark"] = mark;
    return Call("exec", sandbox).Reply("exec", sandbox, 0, who);
  }
  // The VMMs that are there.
  Story& Look(const std::vector<int>& vms) {
    return Did("looked", {{"begun", now_ + kSecond / 2}, {"vmms", Vmms(vms)}});
  }
  Story& ReadStore(const Json& vms, const Json& leases, const std::vector<int>& there) {
    return Did("read the store", {{"vms", vms}, {"leases", leases}, {"vmms", Vmms(there)}});
  }

  std::vector<std::string> Violations() const {
    Checker checker({.grace = seconds(1), .to_end = seconds(10)});
    for (const Json& line : lines_) checker.Read(line);
    checker.Finish();
    return checker.violations();
  }

 private:
  static std::string Vm(int vm) { return "vm-" + std::to_string(vm); }
  static Json Identity(int vm) {
    return {{"vm", Vm(vm)},
            {"pid", 1000 + vm},
            {"start", 5000 + vm},
            {"machine", "machine-" + std::to_string(vm)},
            {"boot", "boot-" + std::to_string(vm)}};
  }
  static Json Vmms(const std::vector<int>& vms) {
    Json all = Json::array();
    for (const int vm : vms) {
      all.push_back({{"pid", 1000 + vm}, {"start", 5000 + vm}, {"vm", Vm(vm)}});
    }
    return all;
  }
  Story& Add(Json line, const Json& more) {
    for (const auto& [key, value] : more.items()) line[key] = value;
    line["at"] = now_ += kSecond;
    lines_.push_back(std::move(line));
    return *this;
  }

  std::int64_t now_ = kSecond;
  std::vector<Json> lines_;
};

TEST(Checker, FindsNothingInAGoodLife) {
  Story story;
  story.Did("daemon ready").Acquire("a", 1).Acquire("b", 2).Exec("a", 1).Exec("a", 1, "a");
  story.Look({1, 2, 3}).Release("a").Wait(20).Look({2, 3});
  story.Did("daemon ends")
      .ReadStore({{"vm-2", "assigned"}, {"vm-3", "warm"}}, {{"vm-2", "lease-2"}}, {2, 3});
  story.Did("daemon ready").Release("b").Did("looked for what is left", {{"left", Json::array()}});
  EXPECT_THAT(story.Violations(), IsEmpty());
}

TEST(Checker, SeesAVmHandedOutTwice) {
  Story story;
  story.Acquire("a", 1).Release("a").Acquire("b", 1).Release("b");
  EXPECT_THAT(story.Violations(), testing::Contains(HasSubstr("VM vm-1 was handed out twice")));
}

TEST(Checker, SeesAnIdentityHandedOutTwice) {
  Story story;
  story.Acquire("a", 1).Release("a").Call("acquire", "b", {{"term", "held"}});
  story.Reply("acquire", "b", 0,
              {{"vm", "vm-2"}, {"pid", 1002}, {"start", 9}, {"machine", "machine-1"}});
  story.Release("b");
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("machine id machine-1 was handed out")));
}

TEST(Checker, SeesARepeatThatGetsAnotherVm) {
  Story story;
  story.Acquire("a", 1).Acquire("a", 2).Release("a");
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("asked again and got VM vm-2")));
}

TEST(Checker, SeesAGuestThatIsAnother) {
  Story story;
  story.Acquire("a", 1).Exec("a", 2).Release("a");
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("answers as another")));
}

TEST(Checker, SeesAnothersMark) {
  Story story;
  story.Acquire("a", 1).Exec("a", 1, "z").Release("a");
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("carries the mark of z")));
}

TEST(Checker, SeesADeathThatNobodyCaused) {
  Story story;
  story.Acquire("a", 1).Look({}).Release("a");
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("is dead, and nobody hurt it")));
}

TEST(Checker, AcceptsADeathThatItCausedItself) {
  Story story;
  story.Acquire("a", 1).Did("kill vmm", {{"hurts", "vm-1"}}).Look({});
  story.Call("exec", "a").Reply("exec", "a", 5);
  EXPECT_THAT(story.Violations(), IsEmpty());
}

TEST(Checker, SeesALeaseThatIsForgotten) {
  Story story;
  story.Acquire("a", 1).Look({1}).Call("exec", "a").Reply("exec", "a", 5, {{"message", "what?"}});
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("is said to be gone: what?")));
}

TEST(Checker, SeesALeaseThatEndsBeforeItsTime) {
  const Json ttl = {{"term", "ttl"}, {"ttl_ms", 30'000}};
  Story early, late;
  early.Acquire("a", 1, ttl).Wait(20).Call("exec", "a").Reply("exec", "a", 5);
  EXPECT_THAT(early.Violations(), ElementsAre(HasSubstr("is said to be gone")));
  late.Acquire("a", 1, ttl).Wait(40).Call("exec", "a").Reply("exec", "a", 5);
  EXPECT_THAT(late.Violations(), IsEmpty());
}

TEST(Checker, CountsARenewalIn) {
  const Json ttl = {{"term", "ttl"}, {"ttl_ms", 30'000}};
  Story story;
  story.Acquire("a", 1, ttl).Wait(20).Call("renew", "a").Reply("renew", "a", 0).Wait(20).Look({});
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("is dead, and nobody hurt it")));
}

TEST(Checker, SeesALeaseThatDoesNotEnd) {
  Story story;
  story.Did("daemon ready").Acquire("a", 1, {{"term", "ttl"}, {"ttl_ms", 1000}});
  story.Wait(5).Look({1}).Wait(20).Look({1});
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("lives on after its lease's end")));
}

TEST(Checker, SeesABoundLeaseThatOutlivesItsHolder) {
  Story story;
  story.Did("daemon ready").Acquire("a", 1, {{"term", "caller"}}).Wait(60).Look({1});
  EXPECT_THAT(story.Violations(), testing::Contains(HasSubstr("could not be given back")));
  story.Did("client ends", {{"client", "c"}}).Wait(20).Look({1});
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("lives on after its lease's end")));
}

TEST(Checker, SeesAReleasedVmThatLivesOn) {
  Story story;
  story.Did("daemon ready").Acquire("a", 1).Release("a").Look({1}).Wait(20).Look({1});
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("lives on after its lease's end")));
}

TEST(Checker, GivesARestartedDaemonTime) {
  Story story;
  story.Did("daemon ready").Acquire("a", 1).Release("a").Did("daemon ends").Wait(60).Look({1});
  story.Did("daemon ready").Look({1}).Wait(20).Look({});
  EXPECT_THAT(story.Violations(), IsEmpty());
}

TEST(Checker, SeesAnAnswerFromBeyond) {
  Story story;
  story.Acquire("a", 1).Release("a").Exec("a", 1);
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("answers after its end")));
}

TEST(Checker, SeesAStoreThatForgot) {
  Story lease, vmm;
  lease.Acquire("a", 1).ReadStore({{"vm-1", "warm"}}, Json::object(), {1}).Release("a");
  EXPECT_THAT(lease.Violations(), ElementsAre(HasSubstr("the store has no lease of VM vm-1")));
  vmm.ReadStore(Json::object(), Json::object(), {7});
  EXPECT_THAT(vmm.Violations(), ElementsAre(HasSubstr("the VMM of vm-7 is not on record")));
}

TEST(Checker, SeesWhatIsLeft) {
  Story story;
  story.Did("looked for what is left", {{"left", {"a mount", "a socket"}}});
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("a mount"), HasSubstr("a socket")));
}

TEST(Checker, SeesWhatWasNeverGivenBack) {
  Story story;
  story.Acquire("a", 1);
  EXPECT_THAT(story.Violations(), ElementsAre(HasSubstr("could not be given back")));
}

}  // namespace
}  // namespace hatchery::torture
