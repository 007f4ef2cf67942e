// Questions and answers about clients, against bounds and deadlines.
#include "../kernel/decisions.hpp"

#include "check.hpp"

using namespace edgeos;

namespace {

Question about(uint64_t client) {
  Question q{};
  q.client.a = Address{client, client};
  return q;
}

DecisionSettings settings() {
  DecisionSettings s;
  s.deadline_ns = 100;
  s.keep_ns = 1000;
  s.clients_max = 4;
  s.waiting_max = 2;
  return s;
}

Rule to_chain(int32_t number) {
  Rule rule;
  rule.action = number;
  return rule;
}

}  // namespace

TEST(a_client_is_asked_about_once) {
  Decisions decisions;
  decisions.set(settings());
  Drop why{};
  for (int i = 0; i < 3; i++) CHECK(decisions.find(about(1), 10, why) == nullptr && why == Drop::undecided);
  const std::vector<Question> questions = decisions.take_questions(0);
  CHECK_EQ(questions.size(), 1u);
  CHECK(decisions.take_questions(0).empty());
  const auto client = decisions.answer(questions[0].id, to_chain(7), nullptr, 20);
  CHECK(client && *client == about(1).client);
  const Decision* decision = decisions.find(about(1), 30, why);
  CHECK(decision != nullptr && decision->rule.rule.action == 7);
  CHECK_EQ(decisions.counters().asked, 1u);
  CHECK_EQ(decisions.counters().answered, 1u);
}

TEST(of_one_ipv6_network_a_quarter_may_wait) {
  Decisions decisions;
  DecisionSettings s = settings();
  s.clients_max = s.waiting_max = 8;
  decisions.set(s);
  const auto from = [](uint64_t network, uint64_t host) {
    Question q{};
    q.client.a = Address{network, host};
    return q;
  };
  Drop why{};
  for (uint64_t host = 1; host <= 5; host++) {
    CHECK(decisions.find(from(0xfd, host), 10, why) == nullptr);
    CHECK(why == (host <= 2 ? Drop::undecided : Drop::unasked));
  }
  CHECK(decisions.find(from(0xfe, 1), 10, why) == nullptr && why == Drop::undecided);
  decisions.answer(decisions.take_questions(0)[0].id, to_chain(7), nullptr, 20);
  CHECK(decisions.find(from(0xfd, 5), 30, why) == nullptr && why == Drop::undecided);
  CHECK_EQ(decisions.expire(200).size(), 3u);
  CHECK_EQ(decisions.counters().turned_away, 3u);
}

TEST(without_an_answer_in_time_the_default_holds_and_a_late_one_is_counted) {
  Decisions decisions;
  DecisionSettings s = settings();
  s.otherwise = to_chain(3);
  decisions.set(s);
  Drop why{};
  decisions.find(about(1), 10, why);
  CHECK_EQ(decisions.next_expiry_ns(), 110u);
  CHECK(decisions.expire(109).empty());
  CHECK_EQ(decisions.expire(110).size(), 1u);
  CHECK_EQ(decisions.find(about(1), 120, why)->rule.rule.action, 3);
  CHECK(!decisions.answer(decisions.take_questions(0)[0].id, to_chain(7), nullptr, 130));
  CHECK_EQ(decisions.counters().late, 1u);
  CHECK_EQ(decisions.counters().defaulted, 1u);
}

TEST(another_callback_is_asked_anew) {
  Decisions decisions;
  decisions.set(settings());
  Drop why{};
  decisions.find(about(1), 10, why);
  decisions.answer(decisions.take_questions(0)[0].id, to_chain(7), nullptr, 20);
  decisions.set(settings());
  CHECK(decisions.find(about(1), 30, why) == nullptr && why == Drop::undecided);
  CHECK_EQ(decisions.counters().asked, 2u);
}

TEST(a_flood_is_bounded_also_when_nobody_takes_the_questions) {
  Decisions decisions;
  decisions.set(settings());
  Drop why{};
  for (uint64_t client = 1; client <= 1000; client++) {
    decisions.find(about(client), client * 1000, why);
    decisions.expire(client * 1000 + 200);
  }
  CHECK(decisions.take_questions(0).size() <= 2);
  CHECK(decisions.counters().turned_away >= 990);
  CHECK(decisions.counters().kept <= 4);
}

TEST(who_waits_is_bounded_and_unused_decisions_give_way) {
  Decisions decisions;
  decisions.set(settings());
  Drop why{};
  for (uint64_t client = 1; client <= 3; client++) decisions.find(about(client), 10, why);
  CHECK(why == Drop::unasked);
  uint64_t now_ns = 10;
  for (uint64_t client = 10; client < 20; client++) {
    for (const Question& q : decisions.take_questions(0)) decisions.answer(q.id, to_chain(1), nullptr, now_ns);
    decisions.find(about(client), ++now_ns, why);
  }
  CHECK(why == Drop::undecided);
  CHECK(decisions.counters().kept + decisions.counters().waiting <= 4);
}

TEST(decisions_are_forgotten_unless_their_clients_have_fwps) {
  Decisions decisions;
  decisions.set(settings());
  Drop why{};
  for (uint64_t client = 1; client <= 2; client++) decisions.find(about(client), 10, why);
  for (const Question& q : decisions.take_questions(0)) decisions.answer(q.id, to_chain(1), nullptr, 20);
  decisions.find(about(1), 30, why)->rule.clients = 1;
  decisions.expire(5000);
  CHECK(decisions.find(about(1), 5000, why) != nullptr);
  CHECK(decisions.find(about(2), 5000, why) == nullptr);
  decisions.find(about(1), 5000, why)->rule.clients = 0;
  decisions.refresh();
  CHECK(decisions.find(about(1), 5000, why) == nullptr);
}

TEST(a_default_whose_chain_is_gone_is_to_drop) {
  Decisions decisions;
  CHECK(decisions.otherwise() == nullptr);
  DecisionSettings some = settings();
  some.otherwise = to_chain(3);
  decisions.set(some);
  CHECK_EQ(decisions.otherwise()->action, 3);
  Drop why{};
  decisions.find(about(1), 10, why);
  decisions.drop_otherwise();
  CHECK_EQ(decisions.expire(200).size(), 1u);
  CHECK_EQ(decisions.find(about(1), 200, why)->rule.rule.action, Rule::kDropAction);
}
