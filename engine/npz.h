#pragma once
#include <string>
#include <utility>
#include <vector>

#include "engine/npy.h"
#include "engine/zip.h"

namespace lightcone {

/// A zip archive of npy arrays, as numpy.savez and savez_compressed write it.
class Npz {
 public:
  explicit Npz(const Path& path);
  const std::string& path() const { return zip_.path(); }
  /// Without the ".npy".
  const std::vector<std::string>& names() const { return names_; }
  bool has(std::string_view name) const;
  /// Throws Error that lists the arrays if there is none of this name.
  NpyReader open(std::string_view name) const;
  Tensor load(Context& ctx, std::string_view name) const { return open(name).load(ctx); }

 private:
  ZipReader zip_;
  std::vector<std::string> names_;
};

/// Writes the arrays uncompressed, atomically. Throws Error for a repeated name, bf16 and fp8.
void save_npz(const Path& path, const std::vector<std::pair<std::string, Tensor>>& arrays);

}  // namespace lightcone
