#pragma once
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace lightcone {

/// `text` for a terminal: control characters, which names from a file may hold, become \n, \t or \x1b.
std::string printable(std::string_view text);

/// The largest |v| of the finite numbers; 0 if there are none.
double largest_of(const std::vector<double>& numbers);

/// The larger of two errors; NaN if either is, so that a NaN stays to the end of a loop.
double worse(double a, double b);

/// Compares quantities by name and prints a line for each: largest error, tolerance, verdict. A gradient that agrees
/// gets its line only with `all`.
class Comparison {
 public:
  explicit Comparison(bool all, std::FILE* out = stdout) : all_(all), out_(out) {}

  /// Returns the largest |ours - theirs| over `scale`, or over the largest |theirs| where scale is 0. A number that is
  /// not finite, on either side or on both, makes that NaN, and so does another count: no tolerance allows those.
  double compare(const std::string& name, const std::vector<double>& ours, const std::vector<double>& theirs,
                 double tolerance, double scale = 0);
  /// A line without a verdict.
  void note(const std::string& name, const std::string& text);
  /// What could not be compared, but should have been.
  void miss(const std::string& name, const std::string& text) { line(name, text, "", false); }
  int misses() const { return misses_; }
  int quantities() const { return quantities_; }

 private:
  void line(const std::string& name, const std::string& error, const std::string& tolerance, bool good);
  bool all_;
  std::FILE* out_;
  int misses_ = 0, quantities_ = 0;
};

}  // namespace lightcone
