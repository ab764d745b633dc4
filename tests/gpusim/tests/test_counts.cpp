// What a launch counts, against numbers derived by hand from the kernels in counts.cu.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "gpusim/machine/machine.h"
#include "gpusim/report.h"
#include "gpusim/tests/counts.h"

namespace {

using gpusim::LaunchReport;

constexpr uint64_t sector = 32;

/// The one launch's report, the same for every seed and any number of threads.
LaunchReport counts(const std::function<void()>& program) {
  const gpusim::Options before = gpusim::options();
  LaunchReport first;
  for (const uint64_t seed : {0, 1, 2})
    for (const int threads : {1, 2}) {
      gpusim::options().seed = seed;
      gpusim::options().threads = threads;
      gpusim::take_launches();
      program();
      const auto launches = gpusim::take_launches();
      REQUIRE(launches.size() == 1);
      if (seed == 0 && threads == 1) first = launches[0];
      INFO("seed " << seed << ", " << threads << " threads");
      CHECK(launches[0] == first);
    }
  gpusim::options() = before;
  CHECK(gpusim::take_findings().empty());
  return first;
}

}  // namespace

TEST_CASE("A copy asks for as many sectors as its stride spreads a warp over") {
  // 4096 floats, 128 warps. A warp's 128 bytes are 4 sectors; 5 if they begin in the middle of one; with a stride of 2
  // twice as many; with 32 a sector for each lane.
  struct {
    int stride, offset;
    uint64_t load_sectors, read, least;
  } cases[] = {
      {1, 0, 128 * 4, 512, 512},
      {1, 1, 128 * 5, 16 * 33, 513},  // a block's 1024 bytes touch 33 sectors, all blocks' 513
      {2, 0, 128 * 8, 1024, 1024},
      {32, 0, 128 * 32, 4096, 4096},
  };
  for (const auto& c : cases) {
    INFO("stride " << c.stride << ", offset " << c.offset);
    const LaunchReport r = counts([&] { counted::copy(c.stride, c.offset); });
    CHECK(r.global_load_requests == 128);
    CHECK(r.global_load_sectors == c.load_sectors);
    CHECK(r.global_store_requests == 128);
    CHECK(r.global_store_sectors == 128 * 4);
    CHECK(r.dram_read_bytes == c.read * sector);
    CHECK(r.least_read_bytes == c.least * sector);
    CHECK(r.dram_write_bytes == 4096 * 4);
    CHECK(r.least_write_bytes == 4096 * 4);
    CHECK(r.branches == 0);
    CHECK(r.thread_instructions == 32 * r.warp_instructions);
  }
}

TEST_CASE("A copy by vectors moves the same sectors with a quarter of the requests") {
  const LaunchReport r = counts(counted::copy4);
  CHECK(r.global_load_requests == 32);  // 1024 float4
  CHECK(r.global_load_sectors == 512);
  CHECK(r.global_store_requests == 32);
  CHECK(r.global_store_sectors == 512);
  CHECK(r.dram_read_bytes == 512 * sector);
  CHECK(r.least_write_bytes == 512 * sector);
}

TEST_CASE("A transpose writes a sector a lane, or conflicts in its banks, or neither") {
  // 16 tiles of 32 x 32, 512 warps, each with a row to read.
  for (const int padding : {-1, 0, 1}) {
    INFO("padding " << padding);
    const bool naive = padding < 0;
    const LaunchReport r = counts([&] { counted::transpose(padding); });
    CHECK(r.global_load_requests == 512);
    CHECK(r.global_load_sectors == 512 * 4);
    CHECK(r.global_store_requests == 512);
    CHECK(r.global_store_sectors == 512 * (naive ? 32 : 4));
    // Within a block every sector is written in full, by 8 warps or by one.
    CHECK(r.dram_write_bytes == 128 * 128 * 4);
    CHECK(r.least_write_bytes == 128 * 128 * 4);
    CHECK(r.dram_read_bytes == 128 * 128 * 4);
    // Rows go in without conflict; a column of a tile of 32 words a row lies in one bank.
    CHECK(r.shared_requests == (naive ? 0 : 1024));
    CHECK(r.shared_wavefronts == (naive ? 0 : padding ? 1024 : 512 + 512 * 32));
    CHECK(r.bank_conflicts == (padding == 0 ? 512 * 31 : 0));
    CHECK(r.barriers == (naive ? 0 : 512));
    CHECK(r.shared_bytes == (naive ? 0 : 32 * (32 + padding) * 4));
  }
}

TEST_CASE("A product by tiles reads each matrix once per row of tiles") {
  for (const uint64_t edge : {16, 32}) {
    INFO("tiles of " << edge);
    const LaunchReport r = counts([&] { counted::product(static_cast<int>(edge)); });
    const uint64_t blocks = (128 / edge) * (128 / edge), tiles = 128 / edge, warps = blocks * edge * edge / 32;
    // A warp has 32 elements of a tile: two rows of 64 bytes, or one of 128, are 4 sectors.
    CHECK(r.global_load_requests == warps * tiles * 2);
    CHECK(r.global_load_sectors == warps * tiles * 2 * 4);
    CHECK(r.global_store_requests == warps);
    CHECK(r.global_store_sectors == warps * 4);
    // Per tile two stores, and for each k an element of a row (the same for a row's lanes) and a row of the other tile.
    CHECK(r.shared_requests == warps * tiles * (2 + 2 * edge));
    CHECK(r.shared_wavefronts == r.shared_requests);
    CHECK(r.bank_conflicts == 0);
    CHECK(r.barriers == warps * tiles * 2);
    // A block touches `edge` rows of the one matrix and as many columns of the other.
    CHECK(r.dram_read_bytes == blocks * 2 * edge * 128 * 4);
    CHECK(r.least_read_bytes == 2 * 128 * 128 * 4);
    CHECK(r.dram_write_bytes == 128 * 128 * 4);
    CHECK(r.warp_by_kind.f32 == warps * 128);  // an fma for each element of the sum
    CHECK(r.divergent_branches == 0);
  }
}

TEST_CASE("A loop of a known body counts its instructions by kind") {
  for (const uint64_t n : {1, 10, 1000}) {
    const LaunchReport r = counts([&] { counted::loop(static_cast<int>(n)); });
    // Per warp and trip: fma; mad, add; setp; bra.
    CHECK(r.warp_by_kind.f32 == 2 * n);
    CHECK(r.warp_by_kind.integer == 2 * (2 * n + 1));  // and the address
    CHECK(r.warp_by_kind.predicate == 2 * n);
    CHECK(r.warp_by_kind.control == 2 * (n + 1));  // and ret
    CHECK(r.warp_by_kind.convert == 2);
    CHECK(r.warp_by_kind.move == 2 * 6);  // two parameters, three zeros, tid
    CHECK(r.warp_by_kind.memory == 2);
    CHECK(r.warp_by_kind.f64 + r.warp_by_kind.half + r.warp_by_kind.warp + r.warp_by_kind.tensor == 0);
    CHECK(r.warp_instructions == 2 * (5 * n + 10));
    CHECK(r.thread_instructions == 64 * (5 * n + 10));
    CHECK(r.branches == 2 * n);
    CHECK(r.divergent_branches == 0);
  }
}

TEST_CASE("A branch diverges where a warp's lanes part, not where warps do") {
  const LaunchReport r = counts(counted::diverge);
  CHECK(r.branches == 4);
  CHECK(r.divergent_branches == 2);
  // Four loads of one word by half of each warp, and one by the first warp.
  CHECK(r.global_load_requests == 9);
  CHECK(r.global_load_sectors == 9);
}

TEST_CASE("An array that is indexed lies in local memory") {
  const LaunchReport r = counts(counted::local);
  CHECK(r.local_requests == 17);  // 16 stores, one load
  CHECK(r.local_bytes == 64);
  CHECK(r.global_load_requests == 0);
}

TEST_CASE("A matrix product on tensor cores counts its multiply-adds") {
  const LaunchReport r = counts(counted::tensor);
  CHECK(r.tensor_operations == 2 * 4 * 16 * 8 * 16);
  CHECK(r.warp_by_kind.tensor == 2 * 4);
}

TEST_CASE("The machine runs some hundred million thread instructions a second and core") {
  const gpusim::Options before = gpusim::options();
  gpusim::options().threads = 1;
  double best = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const gpusim::Throughput begin = gpusim::throughput();
    counted::mix(32, 200);
    const gpusim::Throughput end = gpusim::throughput();
    best = std::max(
        best, static_cast<double>(end.thread_instructions - begin.thread_instructions) / (end.seconds - begin.seconds));
  }
  gpusim::options() = before;
  MESSAGE(std::to_string(best / 1e6) << " million thread instructions a second");
  CHECK(best > 50e6);  // of a machine that does nothing else, five times as many
}
