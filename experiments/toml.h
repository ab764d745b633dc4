#pragma once
#include <filesystem>
#include <string>

#include "engine/fields.h"

namespace lightcone {

/// A TOML file as Json, keys in file order. TOML has no null, so the string "null" stands for it, here and in
/// toml_text. Throws Error with file and line on bad syntax, dates, text that is not UTF-8, nesting past 64 levels, or
/// a file of more than 64 KiB.
Json read_toml(const std::filesystem::path& file);

/// The TOML text of a table: read_toml gives back the same Json (of each table first the values, then the tables).
std::string toml_text(const Json& table);

/// Each table's values first, then its tables, as TOML has to write them; otherwise in the order they were in.
Json values_first(const Json& table);

/// `text` as it fits on one line of a message: control characters escaped, cut at about 80 characters.
std::string excerpt(const std::string& text);

bool is_utf8(const std::string& text);

}  // namespace lightcone
