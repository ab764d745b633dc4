#include "experiments/toml.h"

#include <stdexcept>

#include "experiments/config.h"
#include "tests/fuzz/targets.h"

namespace lightcone::fuzz {

void toml(Bytes input) {
  Json table;
  if (!allows_errors([&] { table = read_toml(memory_file(input)); })) return;
  allows_errors([&] { read_config(table); });
  // A run saves its configuration and is started again from that.
  const std::string text = toml_text(table);
  const Json again = read_toml(memory_file({reinterpret_cast<const unsigned char*>(text.data()), text.size()}));
  if (again.dump() != values_first(table).dump()) throw std::logic_error("the table changed on its way through TOML");
}

}  // namespace lightcone::fuzz
