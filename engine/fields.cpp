#include "engine/fields.h"

#include <algorithm>
#include <numeric>

#include <fmt/ranges.h>

#include "engine/error.h"

namespace lightcone {

static size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t best = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = std::exchange(row[j], best);
    }
  }
  return row[b.size()];
}

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& candidates,
                                       size_t count) {
  std::vector<std::pair<size_t, std::string>> scored;
  for (const auto& c : candidates) {
    size_t distance = edit_distance(name, c);
    // A name that contains the other is what was meant more often than its distance says.
    if (c.find(name) != std::string::npos || name.find(c) != std::string_view::npos)
      distance = std::min<size_t>(distance, 2);
    scored.emplace_back(distance, c);
  }
  std::stable_sort(scored.begin(), scored.end(), [](auto& a, auto& b) { return a.first < b.first; });
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(count, scored.size()); ++i) out.push_back(scored[i].second);
  return out;
}

namespace fields_detail {

void fail_type(const std::string& path, const char* expected, const Json& got) {
  fail("config", "{} must be {}, got {}", path, expected, got.dump());
}

void fail_unknown(const std::string& path, const std::string& key, const std::vector<std::string>& names) {
  fail("config", "unknown key {}{}{}; nearest: {}", path, path.empty() ? "" : ".", key,
       fmt::format("{}", fmt::join(nearest_names(key, names), ", ")));
}

void fail_length(const std::string& path, size_t expected, size_t got) {
  fail("config", "{} must have {} entries, got {}", path, expected, got);
}

}  // namespace fields_detail
}  // namespace lightcone
