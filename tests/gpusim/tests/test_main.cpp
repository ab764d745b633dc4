// Runs the tests; then, with --variants=file[,file …], asks whether they ran every instruction variant that occurs in
// the PTX of these programs.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <sstream>
#include <string>

#include "gpusim/tests/instruction_case.h"
#include "gpusim/tests/kernel_case.h"

int main(int argc, char** argv) {
  doctest::Context context(argc, argv);
  const int failed = context.run();
  if (context.shouldExit() || failed) return failed;

  size_t untested = 0, all = 0;
  for (int k = 1; k < argc; ++k) {
    std::string argument = argv[k], file;
    if (!argument.starts_with("--variants=")) continue;
    std::istringstream files(argument.substr(argument.find('=') + 1));
    while (std::getline(files, file, ',')) {
      for (const std::string& v : gpusim::variants_in_file(file)) {
        ++all;
        if (gpusim::tested_variants().contains(v)) continue;
        ++untested;
        std::printf("untested: %s, in %s\n", v.c_str(), file.c_str());
      }
    }
  }
  if (all) std::printf("%zu instruction variants in the PTX of these programs, %zu untested\n", all, untested);
  return untested ? 1 : 0;
}
