// The entry that libFuzzer calls; CMake says which target it leads to.
#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, size_t size) {
  lightcone::fuzz::LIGHTCONE_FUZZ_TARGET({data, size});
  return 0;
}
