#pragma once
#include <string>
#include <vector>

#include "engine/fields.h"

namespace lightcone {

/// One `key=value` of the command line, read as Hydra reads it.
///
///     a.b=value      sets a key, a/b=option chooses a group's option (which of the two is up to the configuration
///     tree) +a.b=value     the key may be new (++ means the same) ~a.b           removes it
struct Override {
  enum class Kind { set, add, remove };
  Kind kind = Kind::set;
  std::string key;
  std::string text;  // as written, without surrounding blanks
  Json value;        // typed

  std::string option() const { return value.is_string() ? value.get<std::string>() : text; }  // of a group
};

/// Throws Error, quoting the text, if it is not of that form.
Override parse_override(const std::string& text);

/// A value in Hydra's grammar: null, true, 3, 1e-3, bare text (8x0n+2x1n), 'quoted' or "quoted" text, [lists], {a:1}.
Json parse_value(const std::string& text);

/// The parts of a dotted name.
std::vector<std::string> split(const std::string& text, char separator);

}  // namespace lightcone
