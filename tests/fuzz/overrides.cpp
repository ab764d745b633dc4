#include "experiments/overrides.h"

#include "tests/fuzz/targets.h"

void lightcone::fuzz::overrides(Bytes input) {
  allows_errors([&] { parse_override({input.begin(), input.end()}); });
}
