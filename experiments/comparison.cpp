#include "experiments/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace lightcone {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

std::string printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", c);
    else if (c == 0xc2 && next >= 0x80 && next < 0xa0)  // U+0080 to U+009F in UTF-8, among them another escape
      out += fmt::format("\\x{:02x}", next), ++i;
    else
      out += text[i];
  }
  return out;
}

double largest_of(const std::vector<double>& numbers) {
  double largest = 0;
  for (double v : numbers)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  return largest;
}

double worse(double a, double b) { return std::isnan(a) || std::isnan(b) ? nan : std::max(a, b); }

double Comparison::compare(const std::string& name, const std::vector<double>& ours, const std::vector<double>& theirs,
                           double tolerance, double scale) {
  if (ours.size() != theirs.size()) {
    miss(name, fmt::format("{} numbers, the file has {}", ours.size(), theirs.size()));
    return nan;
  }
  if (scale == 0) scale = largest_of(theirs);
  if (scale == 0) scale = 1;
  double error = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const bool finite = std::isfinite(ours[i]) && std::isfinite(theirs[i]);
    error = worse(error, finite ? std::abs(ours[i] - theirs[i]) / scale : nan);
  }
  line(name, fmt::format("{:.1e}", error), fmt::format("{:.1e}", tolerance), error <= tolerance);
  return error;
}

void Comparison::note(const std::string& name, const std::string& text) {
  fmt::print(out_, "  {:<62} {}\n", printable(name), printable(text));
}

void Comparison::line(const std::string& name, const std::string& error, const std::string& tolerance, bool good) {
  ++quantities_;
  misses_ += !good;
  if (all_ || !good || !name.starts_with("grad/"))
    fmt::print(out_, "  {:<62} {:>9} {:>9}  {}\n", printable(name), printable(error), tolerance, good ? "ok" : "MISS");
}

}  // namespace lightcone
