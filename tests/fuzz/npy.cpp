#include "engine/npy.h"

#include <algorithm>
#include <vector>

#include "tests/fuzz/targets.h"

namespace lightcone::fuzz {

void npy(Bytes input) {
  const auto read = [](Bytes bytes) { with_guards(bytes, [&](Context& ctx) { load_npy(ctx, memory_file(bytes)); }); };
  read(input);
  // Again with the right length of the header, which is lost with each character that is put in.
  const auto newline = std::find(input.begin(), input.end(), '\n');
  if (newline - input.begin() < 10 || newline == input.end()) return;
  std::vector<unsigned char> bytes(input.begin(), input.end());
  const auto length = newline + 1 - (input.begin() + 10);
  bytes[8] = static_cast<unsigned char>(length);
  bytes[9] = static_cast<unsigned char>(length >> 8);
  read(bytes);
}

}  // namespace lightcone::fuzz
