#pragma once
#include <string>
#include <vector>

#include "engine/fields.h"

namespace lightcone {

struct ComposeRequest {
  /// A folder of TOML files: "config" and "config_quick" are configs/ and configs/quick/ of share_dir(); else a folder
  /// relative to the working directory or to share_dir(); or the folder of a run, whose config.toml is `config`.
  std::string config_dir = "config";
  std::string config_name = "toptagging";
  std::vector<std::string> overrides;
};

/// Composes a configuration as Hydra does.
///
/// A file may start with a list of what it builds on, later entries over earlier ones:
///
///     defaults = [{training = "top_transformer"}, "tagging", "_self_"]
///
/// `{group = "option"}` takes <group>/<option>.toml into the table of the group's name (model/framesnet:
/// model.framesnet), "name" takes a file of the same folder, "_self_" stands for the file's own content, last if it is
/// not listed. A name is relative to the file's folder; with a leading / it starts at the root.
/// {"override group" = "option"} chooses another option for a group that a file below selects.
///
/// Overrides (overrides.h): `group=option` first, wherever they stand, then `a.b=value` in their order. An option that
/// does not exist, a key that does not exist (without +) and a group that nothing selects are errors that name the
/// nearest ones. `+group=option` adds a group at the end; `~group` leaves one out.
///
/// `+paper=name` reads the older values of a publication: each file of paper/<name>/ is laid over the file of its name.
///
/// At the end "${a.b}" is replaced by that value, and a value left at "???" is an error. In the result each table has
/// its values first and then its tables, so that read_toml(toml_text(composed)) is the same.
Json compose(const ComposeRequest& request);

}  // namespace lightcone
