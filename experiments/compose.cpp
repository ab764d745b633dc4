#include "experiments/compose.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <set>

#include "engine/error.h"
#include "experiments/overrides.h"
#include "experiments/paths.h"
#include "experiments/toml.h"

namespace lightcone {

namespace fs = std::filesystem;

namespace {

constexpr size_t max_files = 500, max_interpolated = 64 << 10;

// Keys that the references renamed.
const std::map<std::string, std::string> aliases{{"data.tagging_features_framesnet", "data.tagging_features"}};

std::string join(const std::string& a, const std::string& b) { return a.empty() ? b : b.empty() ? a : a + "/" + b; }

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

std::vector<std::string> options_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().extension() == ".toml") names.push_back(it->path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string nearest(const std::string& name, const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(nearest_names(name, names), ", "));
}

fs::path find_config_dir(const std::string& given) {
  if (given == "config") return share_dir() / "configs";
  if (given == "config_quick") return share_dir() / "configs/quick";
  if (is_folder(given)) return given;
  if (fs::path shared = share_dir() / given; is_folder(shared)) return shared;
  fail("config", "no folder {} here or in {}; the program's own are config and config_quick", excerpt(given),
       share_dir().string());
}

// Tables merge key by key; anything else is replaced.
void merge(Json& into, const Json& from) {
  if (!into.is_object() || !from.is_object()) {
    into = from;
    return;
  }
  for (const auto& [key, value] : from.items()) merge(into[key], value);
}

/// Follows the defaults lists from the primary file down and merges what they name, in order.
struct Composer {
  fs::path root;
  fs::path overlay;                            // of a paper; empty without one
  std::map<std::string, std::string> choices;  // group -> option, or "" to leave the group out
  std::vector<std::string> appended;           // groups added to the end of the primary list
  std::set<std::string> seen;                  // groups met on the way
  std::vector<std::string> trail;              // files being expanded
  size_t files = 0;
  Json out = Json::object();

  Json load(const std::string& group, const std::string& name) {
    const std::string file = join(group, name) + ".toml";
    for (const auto& part : split(file, '/'))
      if (part.empty() || part == "." || part == "..")
        fail("config", "{} is not the name of a file in {}", excerpt(file), root.string());
    if (!is_file(root / file)) fail_missing(group, name);
    Json table = read_toml(root / file);
    if (!overlay.empty() && is_file(overlay / file)) merge(table, read_toml(overlay / file));
    return table;
  }

  [[noreturn]] void fail_missing(const std::string& group, const std::string& name) {
    const fs::path folder = group.empty() ? root : root / group;
    const auto names = options_in(folder);
    const std::string what = group.empty() ? "configuration" : "option of " + group;
    const std::string by = trail.empty() ? "" : " (named by " + trail.back() + ".toml or the command line)";
    if (names.empty()) fail("config", "no {} '{}'{}: {} has no .toml files", what, excerpt(name), by, folder.string());
    fail("config", "no {} '{}'{} in {}; nearest: {}; available: {}", what, excerpt(name), by, folder.string(),
         nearest(name, names), fmt::join(names, ", "));
  }

  void expand(const std::string& group, const std::string& name) {
    const std::string file = join(group, name);
    const bool cyclic = std::find(trail.begin(), trail.end(), file) != trail.end();
    Json table = load(group, name);
    const bool primary = trail.empty();
    trail.push_back(file);
    if (cyclic) fail("config", "defaults go round in a circle: {}", fmt::join(trail, " -> "));
    if (++files > max_files) fail("config", "defaults of {} name more than {} files", trail.front(), max_files);

    Json defaults = Json::array();
    if (auto it = table.find("defaults"); it != table.end()) {
      defaults = *it;
      table.erase(it);
    }
    if (!defaults.is_array()) fail_defaults(file);
    if (std::find(defaults.begin(), defaults.end(), "_self_") == defaults.end()) defaults.push_back("_self_");
    // An outer file's override counts before an inner one's, and the command line before both.
    for (const auto& entry : defaults)
      if (is_override(entry)) {
        if (!entry.begin().value().is_string()) fail_defaults(file);
        choices.try_emplace(absolute(group, entry.begin().key().substr(override_word.size())),
                            entry.begin().value().get<std::string>());
      }
    for (const auto& entry : defaults) {
      if (is_override(entry)) continue;
      if (entry == "_self_")
        merge_at(group, table);
      else if (entry.is_string())
        expand_name(group, entry.get<std::string>());
      else if (entry.is_object() && entry.size() == 1)
        expand_group(group, entry.begin().key(), entry.begin().value(), file);
      else
        fail_defaults(file);
    }
    if (primary)
      for (const auto& added : appended)
        if (!seen.contains(added)) expand_group("", added, choices.at(added), file);
    trail.pop_back();
  }

  static constexpr std::string_view override_word = "override ";
  static bool is_override(const Json& entry) {
    return entry.is_object() && entry.size() == 1 && entry.begin().key().starts_with(override_word);
  }

  [[noreturn]] static void fail_defaults(const std::string& file) {
    fail("config", "{}.toml: defaults must be a list of names and {{group = \"option\"}} tables", file);
  }

  static std::string absolute(const std::string& group, const std::string& name) {
    return name.starts_with("/") ? name.substr(1) : join(group, name);
  }

  void expand_name(const std::string& group, const std::string& name) {
    const fs::path path = absolute(group, name);
    expand(path.parent_path().string(), path.filename().string());
  }

  void expand_group(const std::string& parent, const std::string& name, const Json& option, const std::string& file) {
    const std::string group = absolute(parent, name);
    if (!seen.insert(group).second) fail("config", "{}.toml: the group {} is in two defaults lists", file, group);
    if (!option.is_string() && !option.is_null()) fail_defaults(file);
    std::string chosen = option.is_null() ? "" : option.get<std::string>();
    if (auto it = choices.find(group); it != choices.end()) chosen = it->second;
    if (!chosen.empty()) expand_name(group, chosen);
  }

  void merge_at(const std::string& group, const Json& table) {
    Json* node = &out;
    if (!group.empty())
      for (const auto& part : split(group, '/')) {
        if (!node->is_object()) *node = Json::object();
        node = &(*node)[part];
      }
    merge(*node, table);
  }
};

// Every dotted name below `node`, tables included.
void collect_names(const Json& node, const std::string& prefix, std::vector<std::string>& names) {
  for (const auto& [key, value] : node.items()) {
    names.push_back(prefix + key);
    if (value.is_object()) collect_names(value, prefix + key + ".", names);
  }
}

[[noreturn]] void fail_unknown(const Json& tree, const Override& o) {
  std::vector<std::string> names;
  collect_names(tree, "", names);
  fail("config", "unknown key {}; nearest: {}", excerpt(o.key), nearest(o.key, names));
}

// Text stays text where the old value is text or the key is a name that may be null: exp_name=2024, run_name=1e5. "???"
// and "${...}" say nothing of the type.
bool keeps_text(const Override& o, const Json& old, const Json& value) {
  if ((o.key == "run_name" || o.key == "jobid") && (value.is_number() || value.is_boolean())) return true;
  if (!old.is_string() || !(value.is_number() || value.is_boolean())) return false;
  const auto& text = old.get_ref<const std::string&>();
  return text != "???" && text.find("${") == std::string::npos;
}

void assign(Json& tree, const Override& o) {
  auto parts = split(o.key, '.');
  const std::string last = parts.back();
  parts.pop_back();
  Json* node = &tree;
  for (const auto& part : parts) {
    if (node->is_null() && o.kind == Override::Kind::add) *node = Json::object();
    if (!node->is_object() || (o.kind != Override::Kind::add && !node->contains(part))) fail_unknown(tree, o);
    node = &(*node)[part];
  }
  if (node->is_null() && o.kind == Override::Kind::add) *node = Json::object();
  if (!node->is_object() || (o.kind != Override::Kind::add && !node->contains(last))) fail_unknown(tree, o);
  if (o.kind == Override::Kind::remove) {
    node->erase(last);
    return;
  }
  Json& old = (*node)[last];
  if (old.is_object() && !o.value.is_object() && !o.value.is_null())
    fail("config", "{}={}: {} is a table here, not a group of options; set its keys as {}.key=value", o.key,
         excerpt(o.text), o.key, o.key);
  if (old.is_object() && o.value.is_object() && o.kind == Override::Kind::set)
    for (const auto& [key, unused] : o.value.items())
      if (!old.contains(key)) fail_unknown(tree, {o.kind, o.key + "." + key, "", {}});
  if (keeps_text(o, old, o.value))
    old = o.text;
  else
    merge(old, o.value);
}

/// Replaces "${a.b}" in place, each target first, so that no text is resolved twice.
struct Interpolation {
  Json& tree;

  void resolve(Json& node, const std::string& name, int depth = 0) {
    if (node.is_structured())
      for (auto& [key, entry] : node.items()) resolve(entry, name.empty() ? key : name + "." + key, depth);
    if (!node.is_string()) return;
    std::string text = node.get<std::string>(), out;
    size_t at = 0, begin, end;
    while ((begin = text.find("${", at)) != std::string::npos && (end = text.find('}', begin)) != std::string::npos) {
      const std::string path = text.substr(begin + 2, end - begin - 2);
      Json& target = find(path, name);
      if (depth > 32) fail("config", "{} = \"{}\" refers to itself", name, excerpt(text));
      resolve(target, path, depth + 1);
      if (begin == 0 && end + 1 == text.size()) {
        node = Json(target);
        return;
      }
      out += text.substr(at, begin - at) + (target.is_string() ? target.get<std::string>() : target.dump());
      if (out.size() > max_interpolated) fail("config", "{} becomes too long by its ${{...}}", name);
      at = end + 1;
    }
    if (at > 0) node = out + text.substr(at);
  }

  Json& find(const std::string& path, const std::string& name) {
    Json* node = &tree;
    for (const auto& part : split(path, '.')) {
      auto it = node->is_object() ? node->find(part) : node->end();
      if (it == node->end()) {
        std::vector<std::string> names;
        collect_names(tree, "", names);
        fail("config", "{} refers to ${{{}}}, which does not exist; nearest: {}", name, excerpt(path),
             nearest(path.substr(0, 256), names));
      }
      node = &*it;
    }
    if (node->is_structured()) fail("config", "{} refers to ${{{}}}, which is not a single value", name, path);
    return *node;
  }
};

void collect_missing(const Json& node, const std::string& prefix, std::vector<std::string>& names) {
  for (const auto& [key, value] : node.items())
    if (value.is_object())
      collect_missing(value, prefix + key + ".", names);
    else if (value == "???")
      names.push_back(prefix + key + "=...");
}

}  // namespace

Json compose(const ComposeRequest& request) {
  Composer composer;
  composer.root = find_config_dir(request.config_dir);
  std::vector<Override> values;
  for (const auto& text : request.overrides) {
    Override o = parse_override(text);
    const bool group = o.key.find('.') == std::string::npos && is_folder(composer.root / o.key);
    if (!group && o.key.find('/') != std::string::npos) {
      composer.choices[o.key] = o.option();  // not there: the check below says so
    } else if (group && o.key == "paper" && o.kind != Override::Kind::remove) {
      composer.overlay = composer.root / "paper" / o.option();
      if (o.text.empty() || !is_folder(composer.overlay))
        fail("config", "no paper '{}' in {}", excerpt(o.text), (composer.root / "paper").string());
    } else if (group) {
      composer.choices[o.key] = o.kind == Override::Kind::remove || o.value.is_null() ? "" : o.option();
      if (o.kind == Override::Kind::add) composer.appended.push_back(o.key);
    } else {
      if (auto it = aliases.find(o.key); it != aliases.end()) o.key = it->second;
      values.push_back(std::move(o));
    }
  }

  std::string name = request.config_name;
  if (name.ends_with(".toml")) name.resize(name.size() - 5);
  composer.expand("", name);
  const std::vector<std::string> groups(composer.seen.begin(), composer.seen.end());
  for (const auto& [group, option] : composer.choices)
    if (!composer.seen.contains(group))
      fail("config", "{}={}: nothing here selects a group {}; groups here: {}", excerpt(group), excerpt(option),
           excerpt(group), groups.empty() ? "none" : fmt::format("{}", fmt::join(groups, ", ")));

  Json tree = std::move(composer.out);
  for (const auto& o : values) assign(tree, o);
  Interpolation{tree}.resolve(tree, "");
  std::vector<std::string> missing;
  collect_missing(tree, "", missing);
  if (!missing.empty())
    fail("config", "{} leaves values open; add {}", excerpt(request.config_name), fmt::join(missing, " "));
  return values_first(tree);
}

}  // namespace lightcone
