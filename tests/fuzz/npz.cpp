#include "engine/npz.h"

#include "tests/fuzz/targets.h"

void lightcone::fuzz::npz(Bytes input) {
  with_guards(input, [&](Context& ctx) {
    const Npz file(memory_file(input));
    for (const auto& name : file.names()) allows_errors([&] { file.load(ctx, name); });
  });
}
