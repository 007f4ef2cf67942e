// A test program in one header: TEST(name) { CHECK(condition); CHECK_EQ(found, expected); }, one source file a program.
//
// A failed check is printed with its place and fails its test, which goes on. An exception fails the test too.
// main() prints "N passed, M failed" and returns 1 if any failed; its arguments name the tests to run, all without.
#pragma once

#include <algorithm>
#include <cstdio>
#include <exception>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace edgeos::check {

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case> cases;
inline bool current_failed = false;

inline bool add(const char* name, void (*run)()) {
  cases.push_back({name, run});
  return true;
}

inline void fail(const char* file, int line, const std::string& what) {
  std::printf("%s:%d: %s\n", file, line, what.c_str());
  current_failed = true;
}

template <typename Found, typename Expected>
void equal(const char* file, int line, const char* text, const Found& found, const Expected& expected) {
  if (found == expected) return;
  std::ostringstream what;
  what << text << ": found " << found << ", expected " << expected;
  fail(file, line, what.str());
}

inline bool run(const Case& test) {
  current_failed = false;
  try {
    test.run();
  } catch (const std::exception& error) {
    fail(test.name, 0, error.what());
  }
  if (current_failed) std::printf("FAILED %s\n", test.name);
  return !current_failed;
}

inline int run_all(const std::vector<std::string_view>& names) {
  int passed = 0, failed = 0;
  for (const Case& test : cases) {
    if (!names.empty() && std::find(names.begin(), names.end(), test.name) == names.end()) continue;
    (run(test) ? passed : failed)++;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0 || passed == 0;
}

}  // namespace edgeos::check

#define TEST(name)                                                            \
  static void name();                                                         \
  static const bool name##_added = edgeos::check::add(#name, name);           \
  static void name()
#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) edgeos::check::fail(__FILE__, __LINE__, #condition);    \
  } while (false)
#define CHECK_EQ(found, expected) edgeos::check::equal(__FILE__, __LINE__, #found, (found), (expected))

int main(int count, char** arguments) { return edgeos::check::run_all({arguments + 1, arguments + count}); }
