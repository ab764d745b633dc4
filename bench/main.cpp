#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/ceilings.h"
#include "bench/harness.h"

using namespace lightcone;

namespace {

constexpr const char* usage =
    "lightcone_bench [--filter TEXT] [--threads N] [--quick] [--json FILE]\n"
    "Checks each kernel, then times it and shows the share of what this machine can do. See bench/README.md.\n";

struct Arguments {
  bench::Options options;
  std::string json;
  bool help = false;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    auto value = [&]() -> std::string {
      if (++i == argc) fail("lightcone_bench", "{} needs a value", option);
      return argv[i];
    };
    if (option == "--filter") {
      a.options.filter = value();
    } else if (option == "--threads") {
      const std::string text = value();
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), a.options.threads);
      if (error != std::errc() || end != text.data() + text.size() || a.options.threads < 1 || a.options.threads > 4096)
        fail("lightcone_bench", "--threads is \"{}\", expected a number from 1 to 4096", text);
    } else if (option == "--quick") {
      a.options.quick = true;
    } else if (option == "--json") {
      a.json = value();
    } else if (option == "--help") {
      a.help = true;
    } else {
      fail("lightcone_bench", "unknown option {}\n{}", option, usage);
    }
  }
  return a;
}

int run(const Arguments& a) {
  std::ofstream file;
  if (!a.json.empty()) {
    file.open(a.json);
    if (!file) fail("lightcone_bench", "cannot write {}", a.json);
  }
  bench::Runner runner(a.options);
  fmt::print("{}, {} threads\n", bench::cpu_model(), runner.context().threads());
  bench::run_all(runner);
  if (runner.results().empty()) fail("lightcone_bench", "no case has \"{}\" in its name", a.options.filter);
  if (file.is_open()) {
    file << runner.json().dump(1) << '\n';
    if (!file.flush()) fail("lightcone_bench", "cannot write {}", a.json);
  }
  return std::any_of(runner.results().begin(), runner.results().end(), [](const auto& r) { return !r.ok; });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse(argc, argv);
    if (arguments.help) {
      fmt::print("{}", usage);
      return 0;
    }
    return run(arguments);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
