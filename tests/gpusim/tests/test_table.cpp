// The table of kernels, from made-up launches.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "gpusim/table.h"

namespace {

using gpusim::LaunchReport;

LaunchReport launch(const std::string& kernel, uint64_t bytes) {
  LaunchReport l;
  l.kernel = kernel;
  l.grid = {100, 1, 1};
  l.block = {256, 1, 1};
  l.thread_instructions = 3'000'000;
  l.global_load_sectors = 40;
  l.dram_read_bytes = 3 * bytes;
  l.least_read_bytes = bytes;
  l.least_write_bytes = l.dram_write_bytes = bytes;
  l.shared_wavefronts = 8;
  l.bank_conflicts = 1;
  return l;
}

/// The words of the line that ends with this kernel.
std::vector<std::string> row(const std::string& table, const std::string& kernel) {
  const size_t end = table.find("  " + kernel + "\n");
  REQUIRE(end != table.npos);
  std::vector<std::string> words;
  for (size_t at = table.rfind('\n', end) + 1; at < end;) {
    const size_t begin = table.find_first_not_of(' ', at);
    at = std::min(end, table.find(' ', begin));
    words.push_back(table.substr(begin, at - begin));
  }
  return words;
}

}  // namespace

TEST_CASE("table: launches of a kernel add up, the largest bound comes first") {
  const std::vector<LaunchReport> launches = {
      launch("void a::(anonymous namespace)::one<a::T, 4>(int, a::T)", 1'000'000), launch("two(float*)", 10'000'000),
      launch("void a::(anonymous namespace)::one<a::T, 4>(int, a::T)", 1'000'000)};
  const std::vector<gpusim::Resources> resources = {{launches[0].kernel, 80, 64, 0, 0},
                                                    {launches[0].kernel, 90, 128, 0, 0}};
  const std::string table = gpusim::kernel_table(launches, resources);
  INFO(table);
  CHECK(table.find("  two\n") < table.find("  one<T, 4>\n"));
  // 2 launches; 2 MB read and 2 MB written at least, thrice and once that in fact; 2 of 16 passes are conflicts; 256
  // threads of 64 registers fit 4 times, of 128 twice; 4 MB at 2039, 3352 and 4800 GB/s.
  const std::vector<std::string> expected = {"2",     "6.000",  "80",    "0",      "6.000", "2.000", "2.00",
                                             "12.5",  "%",      "128",   "50",     "%",     "25",    "%",
                                             "1.962", "(DRAM)", "1.193", "(DRAM)", "0.833", "(DRAM)"};
  CHECK(row(table, "one<T, 4>") == expected);
  CHECK(row(table, "two")[9] == "-");
  CHECK(table.find("no time") != table.npos);
}
