// A unit test in a few lines: TEST(name) { CHECK(holds); CHECK_NEAR(a, b, tolerance); }
#pragma once

#include <cmath>
#include <cstdio>
#include <vector>

namespace pokegan_test {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline void fail(const char* file, int line, const char* what) {
  ++failures();
  std::printf("%s:%d: failed: %s\n", file, line, what);
}

}  // namespace pokegan_test

#define TEST(name)                                                              \
  static void test_##name();                                                    \
  static const pokegan_test::Registration register_##name(#name, &test_##name); \
  static void test_##name()
#define CHECK(holds) \
  if (!(holds)) pokegan_test::fail(__FILE__, __LINE__, #holds)
#define CHECK_NEAR(a, b, tolerance) CHECK(std::fabs((a) - (b)) <= (tolerance))
