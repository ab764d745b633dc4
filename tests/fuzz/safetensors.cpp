#include "engine/safetensors.h"

#include "tests/fuzz/targets.h"

void lightcone::fuzz::safetensors(Bytes input) {
  with_guards(input, [&](Context& ctx) {
    const Safetensors file(memory_file(input));
    for (const auto& name : file.names()) allows_errors([&] { file.load(ctx, name); });
  });
}
