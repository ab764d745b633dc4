#include "experiments/report.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace lightcone {
namespace {

// Figures stand on white in both modes: their colours are chosen for it.
constexpr const char* style = R"(
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --ink: #1b2430; --muted: #5c6878; --line: #e2e6eb; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --page: #11151b; --card: #1a2028; --ink: #e6ebf1; --muted: #98a4b3; --line: #2b343f; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2.5rem 1.5rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 Inter, system-ui, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; display: grid; gap: 1.25rem; }
header { border-left: 4px solid var(--accent); padding-left: 1rem; margin-bottom: .5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
header p { margin: .35rem 0 0; color: var(--muted); font-size: 1.05rem; }
h2 { font-size: 1rem; margin: 0 0 .75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.1rem 1.25rem; min-width: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 1rem; margin: 0; }
.facts dt, .list dt { color: var(--muted); font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.list { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: 0; align-items: baseline; }
.list dd { margin: 0; font-size: .95rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .45rem .9rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-size: .85rem; font-weight: 500; }
tbody tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
sub { font-size: .75em; line-height: 0; }
td:first-child { font-weight: 600; }
th:last-child, td:last-child { padding-right: 0; }
.note { color: var(--muted); font-size: .85rem; margin: .7rem 0 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 1.25rem; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: .75rem; min-width: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: #5c6878; font-size: .85rem; padding: .3rem .5rem 0; }
.sections { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.25rem; align-items: start; }
.wide { grid-column: 1 / -1; }
summary { cursor: pointer; font-weight: 600; }
pre { margin: .9rem 0 0; overflow-x: auto; font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media print { body { padding: 0; background: #fff; } .card, figure { break-inside: avoid; } }
)";

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return out;
}

// Escaped text in which _{B} is a subscript, as in the labels of a figure.
std::string prose(std::string_view text) {
  std::string out = escape(text);
  for (size_t at = 0; (at = out.find("_{", at)) != std::string::npos;) {
    const size_t end = out.find('}', at);
    if (end == std::string::npos) break;
    out.replace(end, 1, "</sub>");
    out.replace(at, 2, "<sub>");
  }
  return out;
}

std::string list(const Facts& facts, const char* kind) {
  std::string out = fmt::format("<dl class=\"{}\">\n", kind);
  const bool tiles = std::string_view(kind) == "facts";  // in tiles each pair is one cell of the grid
  for (auto& [name, value] : facts)
    out += fmt::format("{}<dt>{}</dt><dd>{}</dd>{}\n", tiles ? "<div>" : "", escape(name), escape(value),
                       tiles ? "</div>" : "");
  return out + "</dl>\n";
}

std::string cells(const std::vector<std::string>& row, const char* tag, std::string (*markup)(std::string_view)) {
  std::string out = "<tr>";
  for (auto& cell : row) out += fmt::format("<{0}>{1}</{0}>", tag, markup(cell));
  return out + "</tr>\n";
}

std::string table(const Table& table) {
  std::string out = "<section class=\"card\">\n";
  if (!table.title.empty()) out += fmt::format("<h2>{}</h2>\n", escape(table.title));
  out += "<div class=\"scroll\"><table>\n<thead>" + cells(table.header, "th", prose) + "</thead>\n<tbody>\n";
  for (auto& row : table.rows) {
    if (row.size() != table.header.size())
      fail("html", "table '{}': a row has {} cells, expected {} as in the header", table.title, row.size(),
           table.header.size());
    out += cells(row, "td", escape);
  }
  out += "</tbody>\n</table></div>\n";
  if (!table.note.empty()) out += fmt::format("<p class=\"note\">{}</p>\n", prose(table.note));
  return out + "</section>\n";
}

std::string section(const Section& section) {
  if (section.text.empty())
    return fmt::format("<section class=\"card\">\n<h2>{}</h2>\n{}</section>\n", escape(section.title),
                       list(section.facts, "list"));
  return fmt::format("<details class=\"card wide\"{}>\n<summary>{}</summary>\n{}<pre>{}</pre>\n</details>\n",
                     section.open ? " open=\"open\"" : "", escape(section.title),
                     section.facts.empty() ? "" : list(section.facts, "list"), escape(section.text));
}

}  // namespace

std::string html(const Report& report) {
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" "
      "/>\n<title>{0}</title>\n<style>{1}</style>\n</head>\n"
      "<body>\n<main>\n<header>\n<h1>{0}</h1>\n<p>{2}</p>\n</header>\n",
      escape(report.title), style, escape(report.subtitle));
  if (!report.facts.empty()) out += "<section class=\"card\">\n" + list(report.facts, "facts") + "</section>\n";
  for (const Table& t : report.tables) out += table(t);

  std::string figures;
  for (const Picture& f : report.figures) {
    if (f.svg.empty()) continue;
    figures += "<figure>\n" + f.svg;
    if (!f.caption.empty()) figures += fmt::format("<figcaption>{}</figcaption>\n", escape(f.caption));
    figures += "</figure>\n";
  }
  if (!figures.empty()) out += "<div class=\"figures\">\n" + figures + "</div>\n";

  if (!report.sections.empty()) {
    out += "<div class=\"sections\">\n";
    for (const Section& s : report.sections) out += section(s);
    out += "</div>\n";
  }
  return out + "</main>\n</body>\n</html>\n";
}

Table results_table(const EvaluatedSets& sets) {
  Table table{.title = "Results", .header = {"Set", "Jets", "Accuracy", "AUC"}, .rows = {}};
  if (!sets.empty())
    for (const Rejection& r : sets.front().second.rejections)
      table.header.push_back(fmt::format("1/ε_{{B}} at ε_{{S}} = {:g}", r.signal_efficiency));
  table.header.push_back("Loss");
  for (auto& [name, m] : sets) {
    // Enough digits that the uncertainty shows two of its own.
    const bool known = std::isfinite(m.auc_uncertainty) && m.auc_uncertainty > 0;
    const int decimals = known ? std::clamp(1 - int(std::floor(std::log10(m.auc_uncertainty))), 4, 7) : 4;
    std::vector<std::string> row{name, std::to_string(m.jets), fmt::format("{:.4f}", m.accuracy),
                                 known ? fmt::format("{:.{}f} ± {:.{}f}", m.auc, decimals, m.auc_uncertainty, decimals)
                                       : fmt::format("{:.4f}", m.auc)};
    for (const Rejection& r : m.rejections) row.push_back(text(r));
    row.push_back(fmt::format("{:.4f}", m.loss));
    table.rows.push_back(std::move(row));
  }
  table.note =
      "1/ε_{B} is the background rejection of the tightest cut that keeps the given share of the signal. Uncertainties "
      "are those of "
      "the finite test set: DeLong for the AUC, counting for 1/ε_{B}; > N means that none of N background jets passes.";
  return table;
}

}  // namespace lightcone
