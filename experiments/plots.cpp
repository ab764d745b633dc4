#include "experiments/plots.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/error.h"
#include "experiments/gnuplot.h"

namespace lightcone {
namespace {

// Okabe and Ito's colours without the yellow, which is too pale for a line on white.
constexpr std::array palette{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333"};
constexpr size_t screen_columns = 400;

bool drawable(double value, bool log) { return std::abs(value) < 1e300 && (!log || value > 1e-300); }

// ---- ranges and tics ------------------------------------------------------------------------------------------------

struct Range {
  double low, high;
};

// What gnuplot would write as 3e-04 is written 3·10⁻⁴; `step` says how many digits tell neighbours apart.
std::string tic_label(double value, double step) {
  if (std::abs(value) < 1e-9 * step) return "0";
  const auto digits = [&](double v, double s) {
    return std::clamp(int(std::floor(std::log10(std::abs(v) / s) + 1e-9)) + 2, 1, 15);
  };
  const double size = std::abs(value);
  if (size >= 1e-3 && size < 1e4) return fmt::format("{:.{}g}", value, std::max(digits(value, step), 4));
  if (size >= 1e4 && size < 1e9) {
    const double unit = size < 1e6 ? 1e3 : 1e6;
    return fmt::format("{:.{}g}{}", value / unit, std::max(digits(value, step), 3), size < 1e6 ? "k" : "M");
  }
  const int power = int(std::floor(std::log10(size) + 1e-12));
  const double mantissa = value / std::pow(10.0, power);
  const std::string digits_of = fmt::format("{:.{}g}", mantissa, digits(value, step));
  return digits_of == "1" ? fmt::format("10^{{{}}}", power) : fmt::format("{}·10^{{{}}}", digits_of, power);
}

struct Tics {
  std::string text;
  int labelled = 0;
  void add(double value, const std::string& label, bool minor = false) {
    text += fmt::format("{}'{}' {:.9g}{}", text.empty() ? "" : ", ", label, value, minor ? " 1" : "");
    labelled += !label.empty();
  }
};

std::string linear_tics(Range range) {
  const double rough = (range.high - range.low) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (double nice : {5.0, 2.5, 2.0, 1.0})
    if (nice * power >= rough * 0.8) step = nice * power;
  Tics tics;
  const double first = std::ceil(range.low / step - 1e-6);
  for (int i = 0; i < 20 && (first + i) * step <= range.high + 1e-6 * step; ++i)
    tics.add((first + i) * step, tic_label((first + i) * step, step));
  return tics.text;
}

// Decades, and where there are few of them also 2 and 5, then every digit. Below a factor of about 1.5 linear tics
// serve.
std::string log_tics(Range range) {
  const int first = int(std::floor(std::log10(range.low))), last = int(std::ceil(std::log10(range.high)));
  const int every = std::max(1, (last - first) / 7);
  for (std::string_view named : {"1", "125", "123456789"}) {
    Tics tics;
    for (int power = first; power <= last; ++power)
      for (int digit = 1; digit <= 9; ++digit) {
        const double value = digit * std::pow(10.0, power);
        if (value < range.low * (1 - 1e-9) || value > range.high * (1 + 1e-9) || (digit > 1 && every > 1)) continue;
        if (named.find(char('0' + digit)) == std::string_view::npos || power % every)
          tics.add(value, "", true);
        else if (named == "1" && (power < -2 || power > 2))
          tics.add(value, fmt::format("10^{{{}}}", power));
        else
          tics.add(value, tic_label(value, value));
      }
    if (tics.labelled >= 3) return tics.text;
  }
  return linear_tics(range);
}

Range range_of(const Figure& figure, bool along_x) {
  const Axis& axis = along_x ? figure.x : figure.y;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  const auto cover = [&](const std::vector<double>& values) {
    for (double v : values)
      if (drawable(v, axis.log)) low = std::min(low, v), high = std::max(high, v);
  };
  for (const Series& s : figure.series) {
    cover(along_x ? s.x : s.y);
    if (!along_x) cover(s.y_high);
  }
  if (!(low <= high)) low = axis.log ? 1 : 0, high = axis.log ? 10 : 1;

  // Curves run from edge to edge along x; along y they get some air, and an axis that comes near zero starts there.
  if (axis.log) {
    const double air = high / low < 1 + 1e-7 ? 2 : along_x ? 1 : std::pow(high / low, 0.05);
    low /= air, high *= air;
  } else if (high - low <= 1e-7 * std::max(std::abs(low), std::abs(high))) {  // also what a float cannot tell apart
    const double air = low == 0 ? 1 : 0.1 * std::abs(low);
    low -= air, high += air;
  } else if (!along_x) {
    const double air = 0.06 * (high - low);
    low = low >= 0 && low < 0.3 * high ? 0 : low - air;
    high += air;
  }
  const Range range{axis.low.value_or(low), axis.high.value_or(high)};
  if (drawable(range.low, axis.log) && drawable(range.high, axis.log) && range.low < range.high) return range;
  if (!axis.low && !axis.high) return axis.log ? Range{1, 10} : Range{0, 1};
  // One end was given and all data lie beyond it.
  if (axis.low && !axis.high && drawable(*axis.low, axis.log))
    return {*axis.low, axis.log ? *axis.low * 10 : *axis.low + 1};
  if (axis.high && !axis.low && drawable(*axis.high, axis.log))
    return {axis.log ? *axis.high / 10 : *axis.high - 1, *axis.high};
  fail("svg", "figure '{}': the {} range is [{}, {}], expected {}numbers in rising order", figure.title,
       along_x ? "x" : "y", range.low, range.high, axis.log ? "positive " : "");
}

// ---- the gnuplot script ---------------------------------------------------------------------------------------------

// Single quotes: gnuplot then runs no `commands` and expands nothing. Control characters would end the line.
std::string quoted(std::string_view text, size_t limit = 80) {
  std::string out = "'";
  size_t characters = 0;
  for (char c : text) {
    if ((c & 0xc0) != 0x80 && ++characters > limit) return out + "…'";
    if (c == '\'')
      out += "''";
    else
      out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  }
  return out + "'";
}

void check(const Figure& figure, const Series& s) {
  const size_t expected = s.style == Style::Steps ? s.y.size() + !s.y.empty() : s.y.size();
  if (s.x.size() != expected)
    fail("svg", "figure '{}', series '{}': {} x for {} y, expected {}", figure.title, s.label, s.x.size(), s.y.size(),
         expected);
  if (s.style == Style::Band && s.y_high.size() != s.y.size())
    fail("svg", "figure '{}', series '{}': {} y_high for {} y", figure.title, s.label, s.y_high.size(), s.y.size());
  if (!s.text.empty() && s.text.size() != s.x.size())
    fail("svg", "figure '{}', series '{}': {} texts for {} points", figure.title, s.label, s.text.size(), s.x.size());
}

// The lines of a data block; an empty line breaks the curve. Counts the points.
std::string data_lines(const Figure& figure, const Series& s, Range y, size_t& points) {
  std::string lines;
  points = 0;
  const auto add = [&](double a, double b) { lines += fmt::format("{:.9g} {:.9g}\n", a, b), ++points; };
  if (s.style == Style::Steps) {
    if (s.y.empty()) return lines;
    add(s.x.front(), y.low);
    for (size_t i = 0; i < s.y.size(); ++i) {
      const double height = drawable(s.y[i], figure.y.log) ? std::max(s.y[i], y.low) : y.low;
      add(s.x[i], height);
      add(s.x[i + 1], height);
    }
    add(s.x.back(), y.low);
    return lines;
  }
  const Series seen = s.style == Style::Points ? s : thin(s, screen_columns, figure.x.log);
  for (size_t i = 0; i < seen.x.size(); ++i) {
    const bool good = drawable(seen.x[i], figure.x.log) && drawable(seen.y[i], figure.y.log) &&
                      (s.style != Style::Band || drawable(seen.y_high[i], figure.y.log));
    if (!good) {
      if (points) lines += "\n";
    } else if (s.style == Style::Band) {
      lines += fmt::format("{:.9g} {:.9g} {:.9g}\n", seen.x[i], seen.y[i], seen.y_high[i]), ++points;
    } else {
      add(seen.x[i], seen.y[i]);
    }
  }
  return lines;
}

std::string pen(const Series& s) {
  const std::string color = palette[size_t(std::abs(s.color)) % palette.size()];
  switch (s.style) {
    case Style::Dashed:
      return "lw 1.4 dt (5,5) lc rgb '#999999'";
    case Style::Faint:
      return fmt::format("lw 0.8 lc rgb '#c0{}'", color.substr(1));
    default:
      return fmt::format("lw 2.2 lc rgb '{}'", color);
  }
}

// Our own legend, in rows above the plot: gnuplot's runs into the title once its labels are long. Positions are shares
// of the 600 x 400 px picture.
struct Legend {
  std::string text;
  int rows = 0;
  double x = 1, y = 0.94;
  void add(const Series& s) {
    const auto starts_character = [](char c) { return (c & 0xc0) != 0x80; };
    const auto characters = std::min<int64_t>(40, std::count_if(s.label.begin(), s.label.end(), starts_character));
    const double width = 0.05 + 0.0127 * double(characters);
    if (x + width > 0.97) {
      if (rows == 7) return;
      ++rows, x = 0.125, y -= 0.052;
    }
    if (s.style == Style::Points)
      text += fmt::format("set label '' at screen {:.4f},{:.4f} point pt 7 ps 0.75 {}\n", x + 0.018, y, pen(s));
    else
      text += fmt::format("set arrow from screen {:.4f},{:.4f} rto screen 0.036,0 nohead {}\n", x, y, pen(s));
    text += fmt::format(
        "set label {} at screen {:.4f},{:.4f} left noenhanced font 'sans-serif,13' textcolor rgb '#333333'\n",
        quoted(s.label, 40), x + 0.045, y);
    x += width + 0.025;
  }
};

// The plot elements of one series, whose points stand in data block `name`.
std::string plot_of(const Series& s, const std::string& name, size_t points, Range y) {
  switch (points == 1 && s.style != Style::Band ? Style::Points : s.style) {
    case Style::Marked:
      return fmt::format("{} with linespoints pt 7 ps 0.55 {}", name, pen(s));
    case Style::Points:
      return fmt::format("{} with points pt 7 ps 0.75 {}", name, pen(s));
    case Style::Band:
      return fmt::format("{} using 1:2:3 with filledcurves fs transparent solid 0.18 noborder {}", name, pen(s));
    case Style::Steps:
      return fmt::format("{0} with filledcurves y={1:.9g} fs transparent solid 0.15 noborder {2}, {0} with lines {2}",
                         name, y.low, pen(s));
    default:
      return fmt::format("{} with lines {}", name, pen(s));
  }
}

std::string script(const Figure& figure) {
  for (const Series& s : figure.series) check(figure, s);
  const Range x = range_of(figure, true), y = range_of(figure, false);

  std::string data, plots, texts;
  Legend legend;
  for (const Series& s : figure.series) {
    size_t points = 0;
    const std::string lines = data_lines(figure, s, y, points);
    if (points == 0) continue;
    const std::string name = fmt::format("$series{}", &s - figure.series.data());
    data += fmt::format("{} << EOD\n{}EOD\n", name, lines);
    plots += (plots.empty() ? "plot " : ", ") + plot_of(s, name, points, y);
    if (!s.label.empty()) legend.add(s);
    for (size_t k = 0; k < s.text.size(); ++k)
      if (drawable(s.x[k], figure.x.log) && drawable(s.y[k], figure.y.log))
        texts += fmt::format(
            "set label {} at {:.9g},{:.9g} left offset 0.9,0.45 noenhanced front font 'sans-serif,12' textcolor rgb "
            "'#333333'\n",
            quoted(s.text[k], 40), s.x[k], s.y[k]);
  }
  if (plots.empty()) plots = "set label 'no data' at graph 0.5,0.5 center textcolor rgb '#999999'\nplot NaN";

  std::string out = fmt::format(
      "set encoding utf8\n"
      "set terminal svg size 600,400 font 'sans-serif,14' enhanced rounded background '#ffffff'\n"
      "set lmargin at screen 0.125\nset rmargin at screen 0.965\nset bmargin at screen 0.16\nset tmargin at screen "
      "{:.4f}\n"
      "set border 3 lw 1 lc rgb '#888888'\n"
      "set grid xtics ytics back lt 1 lw 0.7 lc rgb '#e4e4e4'\n"
      "set tics nomirror out scale 0.5,0.25 textcolor rgb '#555555'\n"
      "unset key\n"
      "set label {} at screen 0.125,0.95 left noenhanced font 'sans-serif Bold,16' textcolor rgb '#222222'\n"
      "set xlabel {} offset 0,0.6 textcolor rgb '#333333'\n"
      "set ylabel {} offset 0.5,0 textcolor rgb '#333333'\n",
      0.9 - 0.052 * legend.rows, quoted(figure.title, 60), quoted(figure.x.label), quoted(figure.y.label));
  out += fmt::format("set xrange [{:.9g}:{:.9g}]\nset yrange [{:.9g}:{:.9g}]\n", x.low, x.high, y.low, y.high);
  if (figure.x.log) out += "set logscale x\n";
  if (figure.y.log) out += "set logscale y\n";
  out += fmt::format("set xtics ({})\n", figure.x.log ? log_tics(x) : linear_tics(x));
  out += fmt::format("set ytics ({})\n", figure.y.log ? log_tics(y) : linear_tics(y));
  return out + data + legend.text + texts + plots + "\n";
}

}  // namespace

Series thin(const Series& s, size_t columns, bool log_x) {
  const size_t n = s.y.size();
  if (columns == 0) columns = 1;
  if (s.style == Style::Steps || n <= 4 * columns) return s;
  // Columns of x where x rises, of the index where it does not.
  std::vector<double> position(n);
  for (size_t i = 0; i < n; ++i) position[i] = log_x ? std::log(s.x[i]) : s.x[i];
  const bool rises = std::all_of(position.begin(), position.end(), [](double p) { return std::isfinite(p); }) &&
                     std::is_sorted(position.begin(), position.end()) && position.front() < position.back();
  if (!rises)
    for (size_t i = 0; i < n; ++i) position[i] = double(i);
  const double scale = double(columns) / (position.back() - position.front());
  const auto column = [&](size_t i) { return std::min(size_t((position[i] - position.front()) * scale), columns - 1); };

  Series out = s;
  out.x.clear(), out.y.clear(), out.y_high.clear();
  for (size_t begin = 0, end = 0; begin < n; begin = end) {
    while (end < n && column(end) == column(begin)) ++end;
    size_t low = begin, high = begin, top = begin;
    for (size_t i = begin; i < end; ++i) {
      if (s.y[i] < s.y[low] || !std::isfinite(s.y[low])) low = i;
      if (s.y[i] > s.y[high] || !std::isfinite(s.y[high])) high = i;
      if (s.style == Style::Band && (s.y_high[i] > s.y_high[top] || !std::isfinite(s.y_high[top]))) top = i;
    }
    if (s.style == Style::Band) {
      out.x.push_back(s.x[begin]), out.y.push_back(s.y[low]), out.y_high.push_back(s.y_high[top]);
      continue;
    }
    std::array keep{begin, low, high, end - 1};
    std::sort(keep.begin(), keep.end());
    for (size_t k = 0; k < keep.size(); ++k)
      if (k == 0 || keep[k] != keep[k - 1]) out.x.push_back(s.x[keep[k]]), out.y.push_back(s.y[keep[k]]);
  }
  return out;
}

std::vector<double> smooth(std::span<const double> y, size_t window) {
  std::vector<double> sum(y.size() + 1), count(y.size() + 1), out(y.size());
  for (size_t i = 0; i < y.size(); ++i) {
    const bool good = std::isfinite(y[i]);
    sum[i + 1] = sum[i] + (good ? y[i] : 0);
    count[i + 1] = count[i] + good;
  }
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t begin = i - std::min(window / 2, i),
                 end = std::min({i + (i - begin) + 1, i + window / 2 + 1, y.size()});
    out[i] = (sum[end] - sum[begin]) / (count[end] - count[begin]);
  }
  return out;
}

Series histogram(std::string label, std::span<const double> values, double low, double high, int bins) {
  if (bins < 1 || bins > 100000 || !(low < high) || !std::isfinite(high - low))
    fail("histogram", "{} bins from {} to {}, expected at least one bin and a rising range", bins, low, high);
  Series s{.label = std::move(label), .x = {}, .y = std::vector<double>(size_t(bins)), .style = Style::Steps};
  const double width = (high - low) / bins;
  for (int i = 0; i <= bins; ++i) s.x.push_back(i == bins ? high : low + i * width);
  double counted = 0;
  for (double v : values) {
    if (!(v >= low && v <= high)) continue;
    s.y[std::min(size_t((v - low) / width), size_t(bins) - 1)] += 1;
    ++counted;
  }
  for (double& height : s.y) height = counted > 0 ? height / (counted * width) : 0;
  return s;
}

std::string svg(const Figure& figure) { return gnuplot_svg(script(figure)); }

}  // namespace lightcone
