#include "models/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "engine/error.h"

namespace lightcone {

void derive(const char* name, std::optional<int64_t>& given, int64_t value) {
  if (given && *given != value)
    fail("model", "{} is {}, but the data and the options make it {}; leave it null", name, *given, value);
  given = value;
}

void check_attention_backend(const std::string& name) {
  static const std::vector<std::string> all = {"xformers", "flex", "flash", "native", "varlen"};
  if (std::find(all.begin(), all.end(), name) == all.end())
    fail("model", "model.attention_backend has no option '{}'; all: {} (one attention serves all of them here)", name,
         fmt::join(all, ", "));
}

}  // namespace lightcone
