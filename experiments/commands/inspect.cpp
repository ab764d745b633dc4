#include <fmt/ranges.h>
#include <algorithm>
#include <filesystem>

#include "engine/error.h"
#include "engine/npz.h"
#include "engine/safetensors.h"
#include "experiments/commands/commands.h"
#include "experiments/machine.h"

namespace lightcone {

namespace {

namespace fs = std::filesystem;

// Text of a file, which may hold anything, as a terminal may show it: control characters as their codes.
std::string visible(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;  // U+0080 to 9f
    if (c1 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
      out += fmt::format("\\x{:02x}", c1 ? static_cast<unsigned char>(text[++i]) : c);
    else
      out += text[i];
  }
  return out;
}

void inspect_safetensors(const fs::path& path) {
  const Safetensors file(path);
  for (const auto& [key, value] : file.metadata())
    fmt::print("  {} = {}{}\n", visible(key), visible(value.substr(0, 160)),
               value.size() > 160 ? fmt::format("… ({} characters)", value.size()) : "");
  int64_t elements = 0, trained = 0;
  for (const auto& name : file.names()) {
    const auto& info = file.info(name);
    int64_t n = 1;
    for (int64_t e : info.shape) n *= e;
    elements += n;
    if (info.type.starts_with("F") || info.type == "BF16") trained += n;
    fmt::print("  {:<70} {:<8} [{}]\n", visible(name), visible(info.type), fmt::join(info.shape, ", "));
  }
  fmt::print("  {} tensors, {} elements, {} of them floating point\n", file.names().size(), elements, trained);
}

void inspect_npz(const fs::path& path) {
  const Npz file(path);
  for (const auto& name : file.names()) {
    const NpyReader array = file.open(name);
    fmt::print("  {:<30} {:<6} {}\n", visible(name), array.dtype(), array.shape());
  }
}

void inspect_npy(const fs::path& path) {
  const NpyReader array(open_source(path));
  fmt::print("  {} {}\n", array.dtype(), array.shape());
}

void inspect_file(const fs::path& path) {
  const std::string extension = path.extension().string();
  fmt::print("{} ({})\n", path.string(), bytes_text(static_cast<int64_t>(fs::file_size(path))));
  if (extension == ".safetensors")
    inspect_safetensors(path);
  else if (extension == ".npz")
    inspect_npz(path);
  else if (extension == ".npy")
    inspect_npy(path);
  else if (extension == ".json" || extension == ".toml" || extension == ".log" || extension == ".csv")
    fmt::print("{}\n", visible(read_file(path)));
  else
    fail("inspect", "{}: expected .safetensors, .npz, .npy, .json, .toml, .csv, .log or the folder of a run",
         path.string());
}

void inspect_run(const fs::path& folder) {
  if (!fs::exists(folder / "config.toml"))
    fail("inspect", "{} is a folder, but not of a run: it has no config.toml", folder.string());
  fmt::print("run {}\n", folder.string());
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != ".lock") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& f : files)
    fmt::print("  {:<50} {:>12} bytes\n", visible(fs::relative(f, folder).string()), fs::file_size(f));
  if (fs::exists(folder / "results.json"))
    fmt::print("\nresults.json\n{}\n", visible(read_file(folder / "results.json")));
  for (const auto& f : files)
    if (f.filename().string().starts_with("model_run")) {
      fmt::print("\n");
      inspect_file(f);
    }
}

}  // namespace

int inspect_command(const std::vector<std::string>& paths) {
  for (const auto& p : paths) {
    if (!fs::exists(p)) fail("inspect", "{}: no such file or folder", p);
    if (fs::is_directory(p))
      inspect_run(p);
    else
      inspect_file(p);
  }
  return 0;
}

}  // namespace lightcone
