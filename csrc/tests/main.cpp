// Runs every test of the binary; the exit code says whether all passed.
#include "check.h"

int main() {
  for (const pokegan_test::Test& test : pokegan_test::tests()) {
    const int before = pokegan_test::failures();
    test.run();
    std::printf("%s %s\n", pokegan_test::failures() == before ? "ok    " : "FAILED", test.name);
  }
  std::printf("%zu tests, %d failed checks\n", pokegan_test::tests().size(),
              pokegan_test::failures());
  return pokegan_test::failures() == 0 ? 0 : 1;
}
