#include "gpusim/roofline.h"

#include <doctest/doctest.h>

#include "gpusim/error.h"

using namespace gpusim;

TEST_CASE("occupancy is what the scarcest thing of a multiprocessor leaves") {
  const Gpu& gpu = gpu_named("H100");  // 65536 registers, 2048 threads, 32 blocks, 228 KiB
  LaunchReport launch;
  launch.block = {256, 1, 1};
  Occupancy o = occupancy(launch, 32, gpu);
  CHECK(o.blocks == 8);
  CHECK(o.share == 1);
  CHECK(o.limit == "threads");
  // 8 warps of 80 * 32 = 2560 registers are 20480 a block.
  o = occupancy(launch, 80, gpu);
  CHECK(o.blocks == 3);
  CHECK(o.share == doctest::Approx(3 * 256 / 2048.));
  CHECK(o.limit == "registers");
  // 49 KiB with the system's own one, four times into 228.
  launch.shared_bytes = 48 << 10;
  o = occupancy(launch, 32, gpu);
  CHECK(o.blocks == 4);
  CHECK(o.limit == "shared memory");
  // A warp that is not full takes the place of one that is.
  launch.shared_bytes = 0;
  launch.block = {8, 1, 1};
  o = occupancy(launch, 16, gpu);
  CHECK(o.blocks == 32);
  CHECK(o.limit == "blocks");
  CHECK(o.share == 0.5);
}

TEST_CASE("a bound is the largest of what each part of a machine needs") {
  const Gpu& gpu = gpu_named("A100");  // 108 multiprocessors at 1.41 GHz, 2039 GB/s
  LaunchReport launch;
  CHECK(least_time(launch, gpu).microseconds == 0);
  launch.least_read_bytes = launch.least_write_bytes = 1 << 20;
  Bound b = least_time(launch, gpu);
  CHECK(b.by == "DRAM");
  CHECK(b.microseconds == doctest::Approx(2 * 1048576 / 2039e3));
  // What blocks read again may come from a cache: it is no part of a bound.
  launch.dram_read_bytes = 1 << 30;
  CHECK(least_time(launch, gpu).microseconds == b.microseconds);
  // 64 lanes of f32: half a clock a warp instruction.
  launch.warp_by_kind.f32 = 10'000'000;
  b = least_time(launch, gpu);
  CHECK(b.by == "f32");
  CHECK(b.microseconds == doctest::Approx(1e7 / 2 / (108 * 1410.)));
  launch.tensor_operations = 100'000'000'000;
  b = least_time(launch, gpu);
  CHECK(b.by == "tensor cores");
  CHECK(b.microseconds == doctest::Approx(2e11 / 312e6));
}

TEST_CASE("a GPU that is not known is refused with those that are") {
  CHECK_THROWS_WITH_AS(gpu_named("H1000"), "no GPU is named H1000; there are A100, H100, H200", Error);
}
