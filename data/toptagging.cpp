#include "data/toptagging.h"

#include <algorithm>

#include "engine/npz.h"

namespace lightcone {

namespace {
/// 0 and 1 in any type, as i64.
Tensor read_labels(Context& ctx, NpyReader file, const std::string& path, const std::string& name) {
  if (file.shape().rank() != 1) fail(path, "{} has shape {}, expected one axis", name, file.shape());
  const Tensor stored = file.load(ctx);
  Tensor out = ctx.empty(stored.shape(), DType::i64);
  int64_t* label = out.data<int64_t>();
  dispatch_all(stored.dtype(), [&](auto type) {
    using T = typename decltype(type)::type;
    const T* from = stored.data<T>();
    for (int64_t i = 0; i < stored.numel(); ++i) {
      if (from[i] != static_cast<T>(0) && from[i] != static_cast<T>(1))
        fail(path, "{}: jet {} has the label {}, expected 0 or 1", name, i, static_cast<double>(from[i]));
      label[i] = static_cast<int64_t>(from[i]);
    }
  });
  return out;
}
}  // namespace

JetSet read_toptagging(Context& ctx, const Path& path, std::string_view part) {
  const Npz file(path);
  const std::string momenta = fmt::format("kinematics_{}", part), labels = fmt::format("labels_{}", part);
  NpyReader kinematics = file.open(momenta);
  // Labels are short: an error in them shows before the momenta are decompressed.
  Tensor label = read_labels(ctx, file.open(labels), file.path(), labels);
  if (kinematics.shape().rank() == 3 && label.numel() != kinematics.shape()[0])
    fail(file.path(), "{} has {} entries, but {} has {} jets", labels, label.numel(), momenta, kinematics.shape()[0]);
  JetSet out = read_jets(ctx, kinematics, momenta);
  out.labels = label;
  return out;
}

namespace {
std::string choose_array(const Npz& file, const std::optional<std::string>& key) {
  if (key) return *key;
  for (const char* usual : {"kinematics", "kinematics_test"})
    if (file.has(usual)) return usual;
  return file.names().size() == 1 ? file.names()[0] : "kinematics";
}
}  // namespace

std::string jets_array(const Path& path, const std::optional<std::string>& key) {
  return path.extension() == ".npy" ? path.string() : choose_array(Npz(path), key) + " of " + path.string();
}

JetSet read_jets(Context& ctx, const Path& path, const std::optional<std::string>& key) {
  if (path.extension() == ".npy") {
    if (key) fail(path.string(), "holds one array; '{}' can only be chosen in an npz file", *key);
    NpyReader file(open_source(path));
    return read_jets(ctx, file, "the array");
  }
  const Npz file(path);
  const std::string name = choose_array(file, key);
  NpyReader kinematics = file.open(name);
  return read_jets(ctx, kinematics, name);
}

}  // namespace lightcone
