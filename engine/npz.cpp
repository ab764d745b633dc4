#include "engine/npz.h"

#include <algorithm>
#include <set>

namespace lightcone {

Npz::Npz(const Path& path) : zip_(path) {
  for (const auto& entry : zip_.entries())
    if (entry.name.ends_with(".npy")) names_.push_back(entry.name.substr(0, entry.name.size() - 4));
}

bool Npz::has(std::string_view name) const { return std::find(names_.begin(), names_.end(), name) != names_.end(); }

NpyReader Npz::open(std::string_view name) const {
  if (!has(name)) fail(path(), "has no array '{}', only {}", name, fmt::join(names_, ", "));
  return NpyReader(zip_.open(*zip_.find(fmt::format("{}.npy", name))));
}

void save_npz(const Path& path, const std::vector<std::pair<std::string, Tensor>>& arrays) {
  std::set<std::string_view> names;
  for (const auto& [name, array] : arrays)
    if (!names.insert(name).second) fail(path.string(), "two arrays are named '{}'", name);
  auto bytes = [](const void* data, size_t size) { return Bytes(static_cast<const unsigned char*>(data), size); };
  write_atomic(path, [&](Writer& out) {
    ZipWriter zip(out);
    for (const auto& [name, array] : arrays) {
      const std::string header = npy_header(array);
      zip.add(name + ".npy", bytes(header.data(), header.size()), bytes(array.raw(), array.bytes()));
    }
    zip.finish();
  });
}

}  // namespace lightcone
