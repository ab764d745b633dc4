#include "engine/npy.h"

#include "tests/fuzz/targets.h"

void lightcone::fuzz::npy(Bytes input) {
  with_guards(input, [&](Context& ctx) { load_npy(ctx, memory_file(input)); });
}
