// gpusim_resources [--allow FILE] [--table FILE] FILE...
//
// What ptxas gave every kernel in objects, archives and programs, as a table: target, registers, shared and local
// memory. Fails if a kernel has local memory (arrays that are indexed, spilled registers) and no line of the allow file is
// for it, or if such a line is for none. A line there: a part of the kernel's name, " : ", the reason. # begins a comment.
#include <algorithm>
#include <fstream>
#include <tuple>

#include "gpusim/error.h"
#include "gpusim/resources.h"

using namespace gpusim;

namespace {

struct Allowed {
  std::string part;
  bool used = false;
};

std::vector<Allowed> read_allowed(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail("{}: cannot be read", path);
  std::vector<Allowed> allowed;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(" : ");
    if (colon == 0 || colon == line.npos || colon + 3 == line.size())
      fail("{}: \"{}\" is no part of a name, \" : \" and a reason", path, line);
    allowed.push_back({line.substr(0, colon)});
  }
  return allowed;
}

int run(int argc, char** argv) {
  std::vector<Allowed> allowed;
  std::vector<Resources> all;
  std::string table, allow_file;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool option = argument.starts_with("--");
    if (option && i + 1 == argc) fail("{} needs a value", argument);
    if (argument == "--allow") {
      allowed = read_allowed(allow_file = argv[++i]);
    } else if (argument == "--table") {
      table = argv[++i];
    } else if (option) {
      fail("unknown option {}", argument);
    } else {
      const auto more = resources_in(argument);
      all.insert(all.end(), more.begin(), more.end());
    }
  }
  if (all.empty()) fail("no machine code in these files");
  for (Resources& r : all) r.kernel = short_name(r.kernel);
  auto key = [](const Resources& r) {
    return std::tie(r.kernel, r.target, r.registers, r.shared_bytes, r.local_bytes);
  };
  std::sort(all.begin(), all.end(), [&](const Resources& a, const Resources& b) { return key(a) < key(b); });

  std::string text =
      fmt::format("{:>6} {:>9} {:>12} {:>11}  kernel\n", "target", "registers", "shared bytes", "local bytes");
  int wrong = 0;
  std::string complaints;
  for (const Resources& r : all) {
    text += fmt::format("{:>6} {:>9} {:>12} {:>11}  {}\n", fmt::format("sm_{}", r.target), r.registers, r.shared_bytes,
                        r.local_bytes, r.kernel);
    if (r.local_bytes == 0) continue;
    bool excused = false;
    for (Allowed& a : allowed)
      if (r.kernel.find(a.part) != std::string::npos) excused = a.used = true;
    if (excused) continue;
    ++wrong;
    complaints += fmt::format("{} has {} bytes of local memory for sm_{}\n", r.kernel, r.local_bytes, r.target);
  }
  for (const Allowed& a : allowed)
    if (!a.used && ++wrong)
      complaints += fmt::format("{}: no kernel with local memory has \"{}\"\n", allow_file, a.part);
  if (!table.empty()) {
    std::ofstream file(table);
    if (!(file << text).flush()) fail("cannot write {}", table);
  }
  fmt::print("{}{}", text, complaints);
  return wrong ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "gpusim_resources: {}\n", error.what());
    return 2;
  }
}
