#include <doctest/doctest.h>

#include "engine/error.h"
#include "kernels/tensor_reps.h"

using namespace lightcone;

TEST_CASE("tensor representations: width and canonical form") {
  auto check = [](const char* text, int64_t dim, const char* canonical) {
    const TensorReps reps(text);
    CHECK(reps.dim() == dim);
    CHECK(reps.text() == canonical);
  };
  check("8x0n+2x1n", 16, "8x0n+2x1n");
  check("1x1n", 4, "1x1n");
  check("2x2n", 32, "2x2n");
  check("1x2n + 3x0n+1x0n", 20, "4x0n+1x2n");
  check("0x0n+2x1p", 8, "2x1p");
  check("2x1p+1x1n+1x1n", 16, "2x1p+2x1n");
}

TEST_CASE("tensor representations: whatever else is refused by name") {
  for (const char* text : {"", "8", "8x", "x0n", "8x0", "8x0m", "8x0n+", "+8x0n", "-1x0n", "8x5n", "8x-1n",
                           "99999999999999999999x0n", "8x0nn", "8y0n"}) {
    const std::string message =
        fmt::format("tensor representation: '{}' is not of the form 8x0n+2x1n (multiplicity x order, n or p)", text);
    CHECK_THROWS_WITH_AS(TensorReps{text}, message.c_str(), Error);
  }
}
