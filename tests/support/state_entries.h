#pragma once
#include <map>
#include <string>

#include "engine/safetensors.h"

namespace lightcone::test {

/// The bytes of every entry of a training's state, by name, but for the times that it took.
inline std::map<std::string, std::string> state_entries(const Path& path) {
  Context ctx(1);
  const Safetensors file(path);
  std::map<std::string, std::string> out;
  for (const auto& name : file.names()) {
    if (name.starts_with("loop.number.seconds.")) continue;
    const Tensor t = file.load(ctx, name);
    out[name] = std::string(static_cast<const char*>(t.raw()), static_cast<size_t>(t.bytes()));
  }
  return out;
}

}  // namespace lightcone::test
