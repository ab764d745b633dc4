#pragma once
#include <string>
#include <utility>
#include <vector>

#include "experiments/metrics.h"

namespace lightcone {

/// A run on one page: what it was, what came out, how it went. The page is one HTML file that loads nothing and runs no
/// script, is light or dark as the reader's system is, and can be printed.

using Facts = std::vector<std::pair<std::string, std::string>>;  // name and value

struct Table {
  std::string title;
  std::vector<std::string> header;             // here and in the note, _{B} is a subscript
  std::vector<std::vector<std::string>> rows;  // as long as the header; the first column is the row's name
  std::string note{};                          // below the table
};

struct Picture {
  std::string svg;      // from svg(); an empty one is left out
  std::string caption;  // may be empty
};

/// A card below the figures, with names and values. Where it has text (a configuration, a log), that is shown as it is,
/// folded away unless `open`.
struct Section {
  std::string title;
  Facts facts{};
  std::string text{};
  bool open = false;
};

struct Report {
  std::string title;
  std::string subtitle;  // one sentence
  Facts facts;           // few and short: network, parameters, training time
  std::vector<Table> tables;
  std::vector<Picture> figures;
  std::vector<Section> sections;
};

/// The page. All text is escaped; the SVG of figures is taken as it is. Throws Error if a table's row is longer or
/// shorter than its header.
std::string html(const Report& report);

/// One row for each evaluated set: jets, accuracy, AUC and 1/ε_{B} at signal efficiencies 0.3, 0.5 and 0.8 with their
/// uncertainties, loss.
Table results_table(const EvaluatedSets& sets);

}  // namespace lightcone
