#pragma once
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace lightcone::test {

/// "" if `text` is one well-formed XML element (tags balance, attributes are quoted and differ, & starts an entity),
/// else what is wrong and where.
inline std::string xml_problem(std::string_view text) {
  std::vector<std::string> open;
  size_t i = 0, roots = 0;
  const auto near = [&](const char* what) { return std::string(what) + ": " + std::string(text.substr(i, 60)); };
  const auto name_at = [&](size_t from) {
    size_t end = from;
    while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == ':' ||
                                 text[end] == '-' || text[end] == '_' || text[end] == '.'))
      ++end;
    return std::string(text.substr(from, end - from));
  };
  const auto entity_at = [&](size_t from) {
    size_t end = text[from + 1] == '#' ? from + 2 : from + 1;
    const size_t first = end;
    while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end]))) ++end;
    return end > first && end < text.size() && text[end] == ';';
  };
  while (i < text.size()) {
    if (text[i] == '&' && !entity_at(i)) return near("bare &");
    if (text[i] != '<') {
      if (open.empty() && !std::isspace(static_cast<unsigned char>(text[i]))) return near("text outside the root");
      ++i;
      continue;
    }
    if (text.substr(i, 2) == "</") {
      const std::string name = name_at(i + 2);
      if (open.empty() || open.back() != name) return near("closes what is not open");
      open.pop_back();
      i = text.find('>', i);
      if (i++ == std::string_view::npos) return "tag without end";
      continue;
    }
    const std::string name = name_at(i + 1);
    if (name.empty()) return near("bare <");
    if (open.empty() && roots++) return near("second root");
    size_t at = i + 1 + name.size();
    std::vector<std::string> attributes;
    bool closed = false;
    while (true) {
      while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
      if (at >= text.size()) return near("tag without end");
      if (text[at] == '>') break;
      if (text.substr(at, 2) == "/>") {
        closed = true;
        ++at;
        break;
      }
      const std::string attribute = name_at(at);
      if (attribute.empty()) return near("bad attribute");
      for (auto& other : attributes)
        if (other == attribute) return near("attribute twice");
      attributes.push_back(attribute);
      at += attribute.size();
      const auto skip_spaces = [&] {
        while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
      };
      skip_spaces();
      if (at >= text.size() || text[at++] != '=') return near("attribute without value");
      skip_spaces();
      if (at >= text.size() || (text[at] != '"' && text[at] != '\'')) return near("attribute without quotes");
      const char quote = text[at];
      for (++at; at < text.size() && text[at] != quote; ++at) {
        if (text[at] == '<') return near("< in an attribute");
        if (text[at] == '&' && !entity_at(at)) return near("bare & in an attribute");
      }
      if (at++ >= text.size()) return near("attribute without end");
    }
    if (!closed) open.push_back(name);
    i = at + 1;
  }
  if (!open.empty()) return "not closed: " + open.back();
  return roots ? "" : "no element";
}

}  // namespace lightcone::test
