#include "base/slots.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "base/run.h"

namespace hatchery {
namespace {

constexpr auto kLong = std::chrono::seconds(20);

class SlotsTest : public testing::Test {
 protected:
  // Takes a slot and keeps it until `go` has a value.
  void Hold(int who, OneShot<int>& go, std::chrono::nanoseconds patience = kLong) {
    scope_.Spawn("holder",
                 [](SlotsTest& t, int id, OneShot<int>& until,
                    std::chrono::nanoseconds wait) -> asio::awaitable<void> {
                   auto slot = co_await t.slots_.Take(After(wait));
                   if (!slot) {
                     t.refused_.push_back(slot.error().code);
                     co_return;
                   }
                   t.order_.push_back(id);
                   t.most_ = std::max(t.most_, ++t.held_);
                   (void)co_await until.Wait(After(kLong));
                   --t.held_;
                 }(*this, who, go, patience));
    io_.restart();
    io_.poll();
  }
  void Join() {
    RunUntilDone(io_,
                 [](TaskScope& s) -> Task<void> {
                   co_await s.Join();
                   co_return Result<void>();
                 }(scope_))
        .value();
  }

  asio::io_context io_;
  Slots slots_{io_.get_executor(), 2};
  TaskScope scope_{io_.get_executor()};
  OneShot<int> go_{io_.get_executor()};
  std::vector<int> order_;
  std::vector<Code> refused_;
  int held_ = 0, most_ = 0;
};

TEST_F(SlotsTest, NoMoreThanItsCountAndInOrder) {
  for (int i = 0; i < 5; ++i) Hold(i, go_);
  EXPECT_EQ(order_, (std::vector{0, 1}));
  go_.Set(1);
  Join();
  EXPECT_EQ(order_, (std::vector{0, 1, 2, 3, 4}));
  EXPECT_EQ(most_, 2);
}

TEST_F(SlotsTest, WhoGivesUpLosesItsPlaceAndNoSlot) {
  Hold(0, go_);
  Hold(1, go_);
  Hold(2, go_, std::chrono::milliseconds(1));
  Hold(3, go_);
  while (refused_.empty()) io_.run_one();
  EXPECT_EQ(refused_[0], Code::kDeadlineExceeded);
  go_.Set(1);
  Join();
  EXPECT_EQ(order_, (std::vector{0, 1, 3}));
  // Both are free again.
  OneShot<int> later(io_.get_executor());
  Hold(4, later);
  Hold(5, later);
  EXPECT_EQ(held_, 2);
  later.Set(1);
  Join();
}

TEST_F(SlotsTest, ACancelledWaiterPassesItsTurnOn) {
  OneShot<int> first(io_.get_executor()), second(io_.get_executor());
  Hold(0, first);
  Hold(1, second);
  Hold(2, go_);
  scope_.Cancel();  // 0 and 1 wait for their OneShots, 2 for a slot
  Join();
  EXPECT_EQ(refused_, (std::vector{Code::kCancelled}));
  EXPECT_EQ(held_, 0);
  Hold(3, go_);
  Hold(4, go_);
  EXPECT_EQ(held_, 2);
  go_.Set(1);
  Join();
}

}  // namespace
}  // namespace hatchery
