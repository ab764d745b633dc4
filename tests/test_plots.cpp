#include "experiments/plots.h"

#include <doctest/doctest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "engine/error.h"
#include "experiments/figures.h"
#include "tests/support/text.h"
#include "tests/support/xml.h"

using namespace lightcone;
using namespace lightcone::test;
using test::xml_problem;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();

Figure one(Series series, bool log = false) {
  return {.title = "a figure", .x = {.label = "x"}, .y = {.label = "y", .log = log}, .series = {std::move(series)}};
}

// The corners of the curve of a colour, in pixels from the top left.
std::vector<std::pair<double, double>> curve(const std::string& svg, const std::string& rgb) {
  std::vector<std::pair<double, double>> corners;
  const std::string stroke = "<path stroke='" + rgb + "'  d='";
  const size_t at = svg.rfind(stroke);  // before it comes the sample in the legend
  if (at == std::string::npos) return corners;
  std::istringstream path(svg.substr(at + stroke.size(), svg.find('\'', at + stroke.size()) - at - stroke.size()));
  for (std::string word; path >> word;) {
    if (word[0] == 'M' || word[0] == 'L') word.erase(0, 1);
    if (const size_t comma = word.find(','); comma != std::string::npos)
      corners.emplace_back(std::stod(word), std::stod(word.substr(comma + 1)));
  }
  return corners;
}
const std::string blue = "rgb(  0, 114, 178)";

struct Environment {  // PATH for the length of a test
  std::string path = getenv("PATH") ? getenv("PATH") : "";
  explicit Environment(const std::string& other) { setenv("PATH", other.c_str(), 1); }
  ~Environment() { setenv("PATH", path.c_str(), 1); }
};

}  // namespace

TEST_CASE("plots: a figure is one well-formed element that holds its curve and its words") {
  Series s{.label = "up & <down>", .x = {0, 1, 2}, .y = {0, 2, 1}};
  Figure figure = one(s);
  figure.y.low = 0, figure.y.high = 2;
  const std::string drawn = svg(figure);
  REQUIRE_MESSAGE(!drawn.empty(), "gnuplot is needed to test plots");
  CHECK(xml_problem(drawn) == "");
  CHECK(drawn.starts_with("<svg "));
  CHECK(count(drawn, "up &amp; &lt;down") == 1);
  CHECK(count(drawn, ">a figure<") == 1);
  CHECK(!has(drawn, "DOCTYPE"));
  CHECK(drawn.find("gnuplot") == drawn.find("gnuplot_"));  // no tooltips with its names
  const auto corners = curve(drawn, blue);
  REQUIRE(corners.size() >= 3);
  // The x of three points are the left end, the middle and the right end; the middle point is the top of the plot.
  CHECK(corners[0].first == doctest::Approx(0.125 * 600).epsilon(0.01));
  CHECK(corners[2].first == doctest::Approx(0.965 * 600).epsilon(0.01));
  CHECK(corners[1].second < corners[2].second);
  CHECK(corners[2].second == doctest::Approx((corners[0].second + corners[1].second) / 2).epsilon(0.01));
}

TEST_CASE("plots: every style is drawn") {
  for (Style style :
       {Style::Line, Style::Marked, Style::Dashed, Style::Faint, Style::Points, Style::Steps, Style::Band})
    for (bool log : {false, true}) {
      CAPTURE(int(style));
      Series s{.label = "named", .x = {1, 2, 3, 4}, .y = {1, 30, 2, 5}, .style = style};
      if (style == Style::Steps) s.y.pop_back();
      if (style == Style::Band) s.y_high = {2, 40, 5, 6};
      const std::string drawn = svg(one(s, log));
      CHECK(xml_problem(drawn) == "");
      CHECK(count(drawn, ">named<") == 1);
      CHECK(!has(drawn, "no data"));
      s.label = "";
      CHECK(svg(one(s, log)) != drawn);
    }
}

TEST_CASE("plots: odd data give a figure, not an error") {
  const std::vector<std::pair<std::string, Series>> cases = {
      {"empty", {.label = "e", .x = {}, .y = {}}},
      {"empty steps", {.label = "e", .x = {}, .y = {}, .style = Style::Steps}},
      {"all NaN", {.label = "e", .x = {1, 2}, .y = {not_a_number, not_a_number}}},
      {"not finite", {.label = "e", .x = {1, 2, 3}, .y = {infinity, -infinity, 1e308}}},
  };
  for (auto& [name, series] : cases)
    for (bool log : {false, true}) {
      CAPTURE(name);
      const std::string drawn = svg(one(series, log));
      CHECK(xml_problem(drawn) == "");
      CHECK(count(drawn, "no data") == 1);
    }
  CHECK(count(svg({.title = "t", .x = {}, .y = {}, .series = {}}), "no data") == 1);

  const std::vector<std::pair<std::string, Series>> drawable = {
      {"single point", {.label = "e", .x = {5}, .y = {3}}},
      {"zero", {.label = "e", .x = {0}, .y = {0}}},
      {"constant", {.label = "e", .x = {1, 2, 3}, .y = {7, 7, 7}}},
      {"constant and large", {.label = "e", .x = {1, 2, 3}, .y = {1e12, 1e12, 1e12}}},
      {"huge span", {.label = "e", .x = {1e-200, 1, 1e200}, .y = {1e-200, 1, 1e200}}},
      {"tiny span", {.label = "e", .x = {1, 2}, .y = {1, 1 + 1e-15}}},
      {"negative", {.label = "e", .x = {-3, -1}, .y = {-5, -2}}},
      {"same x", {.label = "e", .x = {2, 2, 2}, .y = {1, 2, 3}}},
      {"histogram of nothing", histogram("e", {}, 0, 1, 10)},
  };
  for (auto& [name, series] : drawable) {
    CAPTURE(name);
    const std::string drawn = svg(one(series));
    CHECK(xml_problem(drawn) == "");
    CHECK(count(drawn, "no data") == 0);
    CHECK(xml_problem(svg(one(series, true))) == "");
  }
  // All data outside the range that was asked for.
  Figure far = one({.label = "e", .x = {1, 2}, .y = {1, 2}});
  far.y.low = 10;
  CHECK(xml_problem(svg(far)) == "");
}

TEST_CASE("plots: a NaN breaks the curve") {
  Figure figure = one({.label = "", .x = {0, 1, 2, 3, 4}, .y = {1, 2, 3, 2, 1}});
  figure.y.low = 0, figure.y.high = 4;
  const std::string whole = svg(figure);
  figure.series[0].y[2] = not_a_number;
  const std::string broken = svg(figure);
  CHECK(count(broken, "M") == count(whole, "M") + 1);
  CHECK(curve(broken, blue).size() == 4);
}

TEST_CASE("plots: log axes of every width carry labels") {
  for (double high : {1.01, 1.3, 2.0, 5.0, 60.0, 1e4, 1e9, 1e60}) {
    CAPTURE(high);
    Figure figure = one({.label = "", .x = {1, 2}, .y = {1, high}}, true);
    figure.x.label = figure.y.label = "";
    const size_t x_labels = 5;  // 1, 1.2, ... at least
    CHECK(count(svg(figure), "<text>") > x_labels + 3);
  }
}

TEST_CASE("plots: no name runs a command or breaks the page") {
  const auto marker = std::filesystem::temp_directory_path() / "lightcone_test_plots_marker";
  std::filesystem::remove(marker);
  const std::string command = "touch " + marker.string();
  for (const std::string& evil :
       {"`" + command + "`", "'; system('" + command + "'); '", "\"; system(\"" + command + "\"); \"",
        "\n!" + command + "\n", "x\nEOD\n!" + command, std::string("a\0b", 3),
        std::string("</svg><script>alert(1)</script>"), std::string("tag_slim^2 @macro {/Bold} \\ 100% id=\"x\" ε"),
        std::string("id='gpDot' href='#a'")}) {
    CAPTURE(evil);
    Figure figure{.title = evil, .x = {.label = evil}, .y = {.label = evil}, .series = {}};
    figure.series.push_back({.label = evil, .x = {1, 2}, .y = {3, 4}, .style = Style::Points, .text = {evil, evil}});
    const std::string drawn = svg(figure);
    CHECK(xml_problem(drawn) == "");
    CHECK(count(drawn, "<script") == 0);
    CHECK(count(drawn, "</svg>") == 1);
    CHECK(!std::filesystem::exists(marker));
  }
  const std::string plain = svg(one({.label = "tag_slim id=\"x\"", .x = {1, 2}, .y = {3, 4}}));
  CHECK(count(plain, ">tag_slim id=\"x\"<") == 1);  // neither a subscript nor a renamed id
}

TEST_CASE("plots: ids of two figures differ, and each refers to its own") {
  const auto ids = [](const std::string& text, std::vector<std::string> starts) {
    std::set<std::string> found;
    for (const std::string& start : starts)
      for (size_t at = 0; (at = text.find(start, at)) != std::string::npos;) {
        at += start.size();
        found.insert(text.substr(at, text.find_first_of("\"')", at) - at));
      }
    return found;
  };
  const std::string a = svg(one({.label = "a", .x = {1, 2}, .y = {3, 4}, .style = Style::Points}));
  const std::string b = svg(one({.label = "b", .x = {1, 2}, .y = {3, 4}, .style = Style::Points}));
  const auto own = ids(a, {" id=\"", " id='"}), other = ids(b, {" id=\"", " id='"});
  CHECK(own.size() > 3);
  for (auto& id : own) CHECK(!other.contains(id));
  const auto references = ids(a, {"href='#", "href=\"#", "url(#"});
  CHECK(references.size() > 3);
  for (auto& id : references) CHECK(own.contains(id));
  CHECK(a == svg(one({.label = "a", .x = {1, 2}, .y = {3, 4}, .style = Style::Points})));  // same bits on every run
}

TEST_CASE("plots: long curves are thinned without losing a spike") {
  const size_t n = 300000;
  Series s{.label = "", .x = {}, .y = {}};
  for (size_t i = 0; i < n; ++i) s.x.push_back(double(i)), s.y.push_back(std::sin(double(i)));
  s.y[123456] = 50;
  s.y[7] = -50;
  const Series t = thin(s, 400);
  CHECK(t.x.size() <= 1600);
  CHECK(t.x.size() > 400);
  CHECK(std::is_sorted(t.x.begin(), t.x.end()));
  CHECK(t.x.front() == 0);
  CHECK(t.x.back() == double(n - 1));
  CHECK(*std::max_element(t.y.begin(), t.y.end()) == 50);
  CHECK(*std::min_element(t.y.begin(), t.y.end()) == -50);
  for (size_t i = 0; i < t.x.size(); ++i) CHECK(t.y[i] == s.y[size_t(t.x[i])]);
  CHECK(svg(one(s)).size() < 60000);

  Series folded = s;  // x that does not rise
  for (size_t i = 0; i < n; ++i) folded.x[i] = double(i % 1000);
  CHECK(thin(folded, 400).x.size() <= 1600);
  Series short_one{.label = "", .x = {1, 2, 3}, .y = {1, 2, 3}};
  CHECK(thin(short_one, 400).x == short_one.x);

  Series band = s;
  band.style = Style::Band;
  for (double y : s.y) band.y_high.push_back(y + 1);
  const Series narrow = thin(band, 400);
  CHECK(narrow.x.size() == 400);
  CHECK(*std::max_element(narrow.y_high.begin(), narrow.y_high.end()) == 51);
  CHECK(*std::min_element(narrow.y.begin(), narrow.y.end()) == -50);
}

TEST_CASE("plots: smoothing keeps constants and lines, and leaves out what is not finite") {
  const std::vector<double> line{1, 2, 3, 4, 5, 6, 7};
  const auto smoothed = smooth(line, 3);
  CHECK(std::vector<double>(smoothed.begin(), smoothed.end() - 1) == std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK(smoothed.back() == 6.5);
  CHECK(smooth(std::vector<double>{1, not_a_number, 3, infinity}, 3) == std::vector<double>{1, 2, 3, 3});
  CHECK(std::isnan(smooth(std::vector<double>{not_a_number}, 5)[0]));
  CHECK(smooth({}, 5).empty());
  CHECK(smooth(line, 1) == line);
  CHECK(smooth(line, 0) == line);
}

TEST_CASE("plots: a histogram is a density") {
  const Series s = histogram("h", std::vector<double>{0, 0.1, 0.5, 0.99, 1, 1.5, -1, not_a_number}, 0, 1, 4);
  CHECK(s.x == std::vector<double>{0, 0.25, 0.5, 0.75, 1});
  CHECK(s.y == std::vector<double>{1.6, 0, 0.8, 1.6});  // 5 inside
  CHECK_THROWS_AS(histogram("h", {}, 1, 1, 4), Error);
  CHECK_THROWS_AS(histogram("h", {}, 0, 1, 0), Error);
  CHECK_THROWS_AS(histogram("h", {}, 0, infinity, 3), Error);
}

TEST_CASE("plots: vectors that do not fit together are an error") {
  CHECK_THROWS_WITH_AS(svg(one({.label = "s", .x = {1}, .y = {1, 2}})),
                       "svg: figure 'a figure', series 's': 1 x for 2 y, expected 2", Error);
  CHECK_THROWS_AS(svg(one({.label = "s", .x = {1, 2}, .y = {1, 2}, .style = Style::Steps})), Error);
  CHECK_THROWS_AS(svg(one({.label = "s", .x = {1, 2}, .y = {1, 2}, .style = Style::Band})), Error);
  CHECK_THROWS_AS(svg(one({.label = "s", .x = {1, 2}, .y = {1, 2}, .style = Style::Points, .text = {"a"}})), Error);
  Figure bad = one({.label = "s", .x = {1, 2}, .y = {1, 2}}, true);
  bad.y.low = 0;
  CHECK_THROWS_WITH_AS(svg(bad), doctest::Contains("expected positive numbers in rising order"), Error);
}

TEST_CASE("plots: the figures of a run") {
  std::mt19937_64 random(5);
  std::normal_distribution<double> gauss;
  std::vector<int> labels;
  std::vector<double> logits;
  for (int i = 0; i < 4000; ++i) labels.push_back(i % 2), logits.push_back(gauss(random) + (i % 2 ? 1.5 : -1.5));
  EvaluatedSets sets;
  sets.emplace_back("test", binary_metrics(labels, logits));
  const std::string roc = svg(roc_figure(sets));
  CHECK(xml_problem(roc) == "");
  CHECK(count(roc, ">test<") == 1);
  CHECK(count(roc, ">" + text(sets[0].second.rejections[1]) + "<") == 1);
  const std::string score = svg(score_figure(labels, logits, "top", "QCD"));
  CHECK(count(score, ">top<") + count(score, ">QCD<") == 2);

  // Perfect separation has no finite rejection, no run at all no curve; both are figures.
  EvaluatedSets perfect;
  perfect.emplace_back("test", binary_metrics(std::vector<int>{0, 1}, std::vector<double>{0, 1}));
  CHECK(xml_problem(svg(roc_figure(perfect))) == "");
  CHECK(xml_problem(svg(roc_figure({}))) == "");
  CHECK(xml_problem(svg(score_figure({}, {}))) == "");
  CHECK(count(svg(loss_figure({}, {}, {})), "no data") == 1);
  CHECK(xml_problem(svg(loss_figure(std::vector<double>{0.7}, std::vector<double>{1}, std::vector<double>{0.8}))) ==
        "");
  CHECK(xml_problem(svg(learning_rate_figure(std::vector<double>{1e-3, 0}))) == "");
  std::vector<double> norms(1000, 1.0);
  norms[3] = 0;
  CHECK(!gradient_norm_figure(norms).y.log);
  norms[3] = 1;
  CHECK(gradient_norm_figure(norms).y.log);
  CHECK(gradient_norm_figure(norms).series.size() == 2);
}

TEST_CASE("plots: without gnuplot there is one warning and no plot") {
  const auto logger = spdlog::default_logger();
  std::ostringstream log;
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log)));
  const Figure figure = one({.label = "a", .x = {1, 2}, .y = {3, 4}});
  const auto folder = std::filesystem::temp_directory_path() / "lightcone_test_plots";
  std::filesystem::create_directories(folder);
  {
    const Environment nothing(folder.string());
    CHECK(svg(figure) == "");
    std::ofstream(folder / "gnuplot") << "#!/bin/sh\necho broken >&2\nexit 1\n";
    std::filesystem::permissions(folder / "gnuplot", std::filesystem::perms::owner_all);
    CHECK(svg(figure) == "");
  }
  spdlog::set_default_logger(logger);
  std::filesystem::remove_all(folder);
  CHECK(count(log.str(), "\n") == 1);
  CHECK(count(log.str(), "gnuplot is not installed") == 1);
  CHECK(svg(figure) != "");
}
