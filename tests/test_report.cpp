#include "experiments/report.h"

#include <doctest/doctest.h>

#include <limits>

#include "engine/error.h"
#include "experiments/figures.h"
#include "experiments/machine.h"
#include "tests/support/text.h"
#include "tests/support/xml.h"

using namespace lightcone;
using namespace lightcone::test;

namespace {

// The page as one element: everything after the document type.
std::string problem(const std::string& page) {
  const std::string doctype = "<!DOCTYPE html>\n";
  return page.starts_with(doctype) ? xml_problem(page.substr(doctype.size())) : "no document type";
}

Report full_report() {
  Report report{.title = "Top tagging",
                .subtitle = "A run.",
                .facts = {{"Network", "slim"}},
                .tables = {},
                .figures = {},
                .sections = {}};
  const std::vector<int> labels{0, 1, 0, 1, 1, 0};
  EvaluatedSets sets;
  sets.emplace_back("test", binary_metrics(labels, std::vector<double>{-1, 2, 0.5, 1, 0.25, -2}));
  sets.emplace_back("val", binary_metrics(labels, std::vector<double>{-1, 2, -0.5, 1, 0.25, -2}));
  report.tables.push_back(results_table(sets));
  report.figures.push_back({svg(roc_figure(sets)), "a caption"});
  report.figures.push_back({svg(score_figure(labels, std::vector<double>{-1, 2, 0.5, 1, 0.25, -2})), ""});
  report.sections.push_back({.title = "Machine", .facts = machine_facts(Device::cpu)});
  report.sections.push_back({.title = "Versions", .facts = version_facts()});
  report.sections.push_back({.title = "Configuration", .text = "[model]\nname = \"slim\" # <a>\n"});
  return report;
}

}  // namespace

TEST_CASE("report: a full page is well-formed and holds what it was given") {
  const std::string page = html(full_report());
  CHECK(problem(page) == "");
  for (const char* what : {"<title>Top tagging</title>", "<h1>Top tagging</h1>", "A run.",
                           "<dt>Network</dt><dd>slim</dd>", "<td>test</td>", "1/ε<sub>B</sub> at ε<sub>S</sub> = 0.3",
                           "<figcaption>a caption</figcaption>", "<summary>Configuration</summary>",
                           "name = &quot;slim&quot; # &lt;a&gt;", "<dt>Compiler</dt>", "prefers-color-scheme: dark"})
    CHECK_MESSAGE(has(page, what), what);
  CHECK(page == html(full_report()));
}

TEST_CASE("report: the page loads nothing and runs no script") {
  const std::string page = html(full_report());
  for (const char* load : {"src=", "<script", "<link", "@import", "<iframe", "<img", "<object", "<base", "onload",
                           "href=\"http", "href='http", "url(http", "url(\"", "url('", "url(/", "javascript:"})
    CHECK_MESSAGE(!has(page, load), load);
  // The only addresses are the names of the SVG namespaces, which no browser fetches.
  for (size_t at = 0; (at = page.find("http", at)) != std::string::npos; ++at)
    CHECK(page.substr(at, 18) == "http://www.w3.org/");
}

TEST_CASE("report: all text is escaped") {
  const std::string evil = "</pre></title><script>alert('\"&')</script>\x01";
  Report report{.title = evil,
                .subtitle = evil,
                .facts = {{evil, evil}},
                .tables = {{.title = evil, .header = {evil, evil}, .rows = {{evil, evil}}, .note = evil}},
                .figures = {{"<svg></svg>", evil}},
                .sections = {{.title = evil, .facts = {{evil, evil}}, .text = evil, .open = true},
                             {.title = evil, .facts = {{evil, evil}}}}};
  const std::string page = html(report);
  CHECK(problem(page) == "");
  CHECK(!has(page, "<script"));
  CHECK(!has(page, "\x01"));
  CHECK(has(page, "&lt;/pre&gt;&lt;/title&gt;&lt;script&gt;alert(&#39;&quot;&amp;&#39;)"));
  report.tables[0].header = {"a_{<b>}", "_{ open", "}_{"};
  report.tables[0].rows = {};
  CHECK(problem(html(report)) == "");
  CHECK(has(html(report), "a<sub>&lt;b&gt;</sub>"));
}

TEST_CASE("report: empty parts leave no trace, missing plots no hole") {
  const std::string page =
      html({.title = "t", .subtitle = "", .facts = {}, .tables = {}, .figures = {{"", "lost"}}, .sections = {}});
  CHECK(problem(page) == "");
  CHECK(!has(page, "lost"));
  CHECK(!has(page, "class=\"figures\""));
  CHECK(!has(page, "class=\"card\""));
}

TEST_CASE("report: a row that does not fit its header is named") {
  Report report{.title = "t", .subtitle = "", .facts = {}, .tables = {}, .figures = {}, .sections = {}};
  report.tables = {{.title = "Results", .header = {"a", "b"}, .rows = {{"1"}}}};
  CHECK_THROWS_WITH_AS(html(report), "html: table 'Results': a row has 1 cells, expected 2 as in the header", Error);
}

TEST_CASE("report: the results table shows uncertainties where they are known") {
  std::vector<int> labels;
  std::vector<double> logits;
  for (int i = 0; i < 1000; ++i)
    labels.push_back(i % 2), logits.push_back(0.01 * ((i * 7919) % 1000) + (i % 2 ? 3 : 0));
  EvaluatedSets sets;
  sets.emplace_back("test_ema", binary_metrics(labels, logits));
  sets.emplace_back("perfect", binary_metrics(std::vector<int>{0, 1}, std::vector<double>{-1, 1}));
  const Table table = results_table(sets);
  REQUIRE(table.rows.size() == 2);
  CHECK(table.header.size() == 8);
  CHECK(table.rows[0].size() == 8);
  CHECK(table.rows[0][0] == "test_ema");
  CHECK(table.rows[0][1] == "1000");
  CHECK(has(table.rows[0][3], " ± 0.01"));
  CHECK(table.rows[1][3] == "1.0000");
  CHECK(table.rows[1][4] == "> 1");
  CHECK(table.rows[1][7] == "0.3133");
  CHECK(results_table({}).rows.empty());
}

TEST_CASE("machine: what this process runs on") {
  const Machine machine = this_machine();
  CHECK(!machine.cpu.empty());
  CHECK(machine.cores >= 1);
  CHECK(machine.memory > 1 << 20);
  CHECK(has(machine.os, "Linux"));
  CHECK(bytes_text(12) == "12 bytes");
  CHECK(bytes_text(1536) == "1.5 KiB");
  CHECK(bytes_text(int64_t(5) << 30) == "5.0 GiB");

  const int64_t before = peak_memory();
  CHECK(before > 1 << 20);
  CHECK(before <= machine.memory);
  std::vector<char> block(size_t(before) + (64 << 20), 1);  // larger than all that came before
  CHECK(block[block.size() / 2] == 1);
  CHECK(peak_memory() >= before + (32 << 20));
}
