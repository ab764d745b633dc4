#include "engine/safetensors.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "tests/fuzz/targets.h"

namespace lightcone::fuzz {

void safetensors(Bytes input) {
  const auto read = [](Bytes bytes) {
    with_guards(bytes, [&](Context& ctx) {
      const Safetensors file(memory_file(bytes));
      for (const auto& name : file.names()) allows_errors([&] { file.load(ctx, name); });
    });
  };
  read(input);
  // Again with the right length of the header, which is lost with each character that is put in.
  constexpr std::string_view close = "}}";
  const auto end = std::search(input.begin(), input.end(), close.begin(), close.end());
  if (end - input.begin() < 8 || end == input.end()) return;
  std::vector<unsigned char> bytes(input.begin(), input.end());
  const uint64_t length = static_cast<uint64_t>(end + 2 - (input.begin() + 8));
  std::memcpy(bytes.data(), &length, 8);
  read(bytes);
}

}  // namespace lightcone::fuzz
