// The rooms of the house: includes point down only, and a family has one name in kernels/, tests/ and bench/.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;

namespace {
const fs::path root = LIGHTCONE_SOURCE_DIR;
const std::vector<std::string> layers = {"engine", "data", "kernels", "autograd", "models", "experiments"};

/// The place of a path's first folder among the layers; layers.size() if it is none of them.
size_t level(const std::string& path) {
  return std::find(layers.begin(), layers.end(), path.substr(0, path.find('/'))) - layers.begin();
}

/// The forbidden includes of a file at `path` (relative to the root) that reads `text`, one line per finding.
std::vector<std::string> wrong_includes(const std::string& path, const std::string& text) {
  std::vector<std::string> wrong;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const size_t open = std::min(line.find_first_of("<\""), line.size()), close = line.find_first_of(">\"", open + 1);
    std::string word = line.substr(0, open);
    std::erase_if(word, [](char c) { return c == ' ' || c == '\t'; });
    if (word != "#include" || close == std::string::npos) continue;
    const std::string target = line.substr(open + 1, close - open - 1);
    const bool quoted = line[open] == '"',
               ours = target.find('/') != std::string::npos && level(target) < layers.size();
    std::string why;
    if (target.find("..") != std::string::npos)
      why = "climbs with ..";
    else if (!quoted && ours)
      why = "is ours and wants quotes";
    else if (quoted && !ours && !(target == "version.h" && level(path) == layers.size() - 1))
      why = "names no layer";  // version.h is generated, for experiments/ alone
    else if (ours && level(target) > level(path))
      why = "is above " + layers[level(path)];
    if (!why.empty()) wrong.push_back(fmt::format("{}:{}: {} {}", path, number, target, why));
  }
  return wrong;
}

/// The C++ and CUDA files of a layer, relative to the root.
std::vector<std::string> sources(const std::string& layer) {
  std::vector<std::string> found;
  for (const auto& entry : fs::recursive_directory_iterator(root / layer)) {
    const std::string ending = entry.path().extension();
    if (ending == ".h" || ending == ".cpp" || ending == ".cu" || ending == ".cuh")
      found.push_back(entry.path().lexically_relative(root));
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string read(const std::string& path) {
  std::ifstream file(root / path);
  return {std::istreambuf_iterator<char>(file), {}};
}
}  // namespace

TEST_CASE("a file includes its own layer or lower ones") {
  for (const auto& layer : layers) {
    const auto files = sources(layer);
    CHECK_MESSAGE(!files.empty(), layer << " has no files");
    for (const auto& file : files)
      for (const auto& finding : wrong_includes(file, read(file))) FAIL_CHECK(finding);
  }
}

TEST_CASE("a planted include is found") {
  const auto wrong = [](const char* path, const char* text) {
    return fmt::format("{}", fmt::join(wrong_includes(path, text), "; "));
  };
  CHECK(wrong("engine/x.h", "#pragma once\n#include \"kernels/norm.h\"\n") ==
        "engine/x.h:2: kernels/norm.h is above engine");
  CHECK(wrong("data/x.cpp", "  # include \"models/a/b.h\"") == "data/x.cpp:1: models/a/b.h is above data");
  CHECK(wrong("models/x.cpp", "#include \"../engine/tensor.h\"") ==
        "models/x.cpp:1: ../engine/tensor.h climbs with ..");
  CHECK(wrong("models/x.cpp", "#include \"engine/../experiments/run.h\"") ==
        "models/x.cpp:1: engine/../experiments/run.h climbs with ..");
  CHECK(wrong("models/x.cpp", "#include \"tensor.h\"") == "models/x.cpp:1: tensor.h names no layer");
  CHECK(wrong("models/x.cpp", "#include \"tests/support/op_case.h\"") ==
        "models/x.cpp:1: tests/support/op_case.h names no layer");
  CHECK(wrong("engine/x.cpp", "#include <autograd/tape.h>") ==
        "engine/x.cpp:1: autograd/tape.h is ours and wants quotes");
  CHECK(wrong("engine/x.cpp", "#include \"version.h\"") == "engine/x.cpp:1: version.h names no layer");
  CHECK(wrong("experiments/x.cpp", "#include \"version.h\"") == "");
  CHECK(wrong("kernels/x.cpp",
              "#include <vector>\n#include \"kernels/x.h\"\n#include \"data/jets.h\"\n// #include \"models/y.h\"") ==
        "");
}

TEST_CASE("a family has its test and its bench") {
  // Inner steps of another family, whose test and bench reach them, and the file by which they are reached.
  const std::map<std::string, std::pair<std::string, std::string>> part_of = {
      {"gemm", {"matmul", "kernels/linear_parts.h"}},  {"gemm_amx", {"matmul", "kernels/gemm.cpp"}},
      {"amx", {"matmul", "kernels/gemm_amx.h"}},       {"attention_cpu", {"attention", "kernels/attention.cpp"}},
      {"tensor_reps", {"frames", "kernels/frames.h"}},
  };
  int families = 0;
  for (const auto& file : sources("kernels")) {
    const fs::path path = file;
    const std::string family = path.stem();
    if (path.extension() != ".h" || !fs::exists(root / "kernels" / (family + ".cpp"))) continue;
    ++families;
    const auto found = [](const std::string& name) {
      return std::pair{fs::exists(root / "tests" / ("test_" + name + ".cpp")),
                       fs::exists(root / "bench" / (name + ".cpp"))};
    };
    const auto [test, bench] = found(family);
    if (const auto whole = part_of.find(family); whole != part_of.end()) {
      CHECK_MESSAGE(!(test || bench), family << " has files of its own by now: take it off the list of exceptions");
      const auto& [user, by] = whole->second;
      CHECK_MESSAGE(found(user) == std::pair(true, true), user << " lacks its test or bench");
      CHECK_MESSAGE(read(by).find("\"" + file + "\"") != std::string::npos, by << " does not use " << file);
      continue;
    }
    CHECK_MESSAGE(test, file << " has no tests/test_" << family << ".cpp");
    CHECK_MESSAGE(bench, file << " has no bench/" << family << ".cpp");
  }
  CHECK(families > 0);
}
