#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace lightcone {

/// Figures as SVG text, drawn by gnuplot. The SVG is one <svg> element that can stand in a file or inside an HTML page;
/// its ids differ from those of every other figure.

enum class Style {
  Line,
  Marked,  // a line through points
  Dashed,  // thin and grey: a reference to compare with
  Faint,   // thin and pale: a raw curve behind its smoothed one
  Points,
  Steps,  // a histogram: x holds the bin edges, one more than y holds heights
  Band,   // the area between y and y_high
};

struct Series {
  std::string label;  // empty: not in the legend
  std::vector<double> x, y;
  Style style = Style::Line;
  int color = 0;                    // place in a palette of seven that colour-blind readers can tell apart
  std::vector<double> y_high{};     // Band
  std::vector<std::string> text{};  // Points: written beside each
};

/// The range is that of the data where it is not given. Labels may use gnuplot's markup: ε_{S}, 10^{3}. All other text
/// of a figure is taken as it is.
struct Axis {
  std::string label;
  bool log = false;
  std::optional<double> low{}, high{};
};

struct Figure {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
};

/// The figure, or "" where gnuplot is missing or fails: one warning is logged and the run goes on. Curves break where a
/// value is not finite (or not positive on a log axis); long curves are thinned to what the page can show. A figure
/// without data says so. Throws Error if the vectors of a series do not fit together or a given range is empty.
std::string svg(const Figure& figure);

/// At most four points of each of `columns` equal parts of the x range: first, lowest, highest and last, in order. What
/// a screen of that many columns shows stays the same. A Band keeps one point, as wide as the widest. `log_x` divides
/// log x.
Series thin(const Series& series, size_t columns, bool log_x = false);

/// Mean over the `window` values around each place, without lag. The window shrinks towards the start, where a loss
/// falls fast, and loses its right half at the end. What is not finite is left out; NaN where nothing is left.
std::vector<double> smooth(std::span<const double> y, size_t window);

/// Normalised histogram (its area is 1) of `bins` equal bins; what lies outside [low, high] or is NaN is not counted.
Series histogram(std::string label, std::span<const double> values, double low, double high, int bins);

}  // namespace lightcone
