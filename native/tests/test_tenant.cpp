// Rates against plain counting, and a tenant's quotas.
#include <random>

#include "../kernel/rate.hpp"
#include "../kernel/tenant.hpp"
#include "check.hpp"

using namespace edgeos;

constexpr uint64_t kSecondNs = 1'000'000'000;

TEST(without_a_rate_everything_is_allowed) {
  Rate rate;
  CHECK(!rate.limited());
  for (int i = 0; i < 1000; i++) CHECK(rate.try_take(UINT64_MAX / 1'000'000'000, 5));
  CHECK_EQ(rate.allows_at_ns(), 0u);
}

TEST(a_second_is_in_hand_and_the_rest_comes_evenly) {
  Rate rate(10);
  uint64_t now_ns = 100 * kSecondNs;
  for (int i = 0; i < 10; i++) CHECK(rate.try_take(1, now_ns));
  CHECK(!rate.try_take(1, now_ns));
  CHECK_EQ(rate.allows_at_ns(), now_ns + 1);
  CHECK(rate.try_take(1, now_ns + 1));
  CHECK(!rate.try_take(1, now_ns + kSecondNs / 10));
  CHECK(rate.try_take(1, now_ns + kSecondNs / 10 + 1));
}

TEST(the_last_one_may_be_large_and_is_paid_for) {
  Rate rate(1000);
  CHECK(rate.try_take(999, kSecondNs));
  CHECK(rate.try_take(5000, kSecondNs));
  CHECK(!rate.allows(kSecondNs + 4 * kSecondNs));
  CHECK(rate.allows(kSecondNs + 5 * kSecondNs));
}

// Over any time no more passes than the rate allows, what was in hand and one last message; and no less when there is demand.
TEST(over_time_a_rate_is_kept_exactly) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 200; round++) {
    const uint64_t per_second = 1 + random() % 3'000'000'000;
    Rate rate(per_second);
    uint64_t now_ns = random() % kSecondNs, taken = 0;
    const uint64_t start_ns = now_ns;
    uint64_t largest = 0;
    for (int step = 0; step < 2000; step++) {
      now_ns += random() % 2'000'000;
      const uint64_t units = 1 + random() % (1 + per_second / 100);
      largest = std::max(largest, units);
      while (rate.try_take(units, now_ns)) taken += units;
    }
    const double seconds = static_cast<double>(now_ns - start_ns) / 1e9;
    const double allowed = static_cast<double>(per_second) * (1 + seconds);
    CHECK(static_cast<double>(taken) <= allowed + static_cast<double>(largest) + 1);
    CHECK(static_cast<double>(taken) >= allowed - static_cast<double>(largest) - 1);
  }
}

TEST(a_changed_rate_holds_from_then_on) {
  Rate rate(10);
  for (int i = 0; i < 10; i++) CHECK(rate.try_take(1, kSecondNs));
  rate.change(0);
  CHECK(rate.try_take(100, kSecondNs));
  rate.change(10);
  CHECK(!rate.allows(kSecondNs));
}

TEST(each_quota_has_a_reason_of_its_own) {
  Quotas quotas;
  quotas.messages = 2;
  Tenant tenant({"acme", quotas});
  Drop why{};
  CHECK(tenant.admits(kSecondNs, why));
  tenant.enter(60, kSecondNs);
  tenant.enter(60, kSecondNs);
  CHECK(!tenant.admits(kSecondNs, why) && why == Drop::tenant_messages);
  CHECK_EQ(tenant.counters.received_bytes, 120u);

  quotas = {};
  quotas.copied_bytes = 100;
  Tenant copies({"acme", quotas});
  copies.enter(150, kSecondNs);
  CHECK(!copies.admits(kSecondNs, why) && why == Drop::tenant_copies);
  CHECK(copies.admits_at_ns() > kSecondNs);

  quotas = {};
  quotas.clients = 1;
  quotas.fwps = 3;
  quotas.memory = 1000;
  quotas.new_clients = 1;
  Tenant clients({"acme", quotas});
  CHECK(!clients.admits_client(4, 0, kSecondNs, why) && why == Drop::tenant_fwps);
  CHECK(!clients.admits_client(1, 1001, kSecondNs, why) && why == Drop::tenant_memory);
  CHECK(clients.admits_client(3, 1000, kSecondNs, why));
  clients.enter_client(3, kSecondNs);
  CHECK(!clients.admits_client(0, 0, kSecondNs, why) && why == Drop::tenant_clients);
  clients.leave_client(3);
  CHECK_EQ(clients.counters.fwps, 0u);
  CHECK(!clients.admits_client(1, 0, kSecondNs, why) && why == Drop::new_clients);
  CHECK(clients.admits_client(1, 0, 3 * kSecondNs, why));
}
