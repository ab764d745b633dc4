// Threads that are not OpenMP's, all at work at once: what the thread sanitizer watches.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "data/prefetcher.h"
#include "engine/log.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/text.h"

using namespace lightcone;
using namespace lightcone::test;

TEST_CASE("threads: several of them write whole lines into one log") {
  ScratchFolder folder;
  Log log(false);
  log->info("before the file");
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t)
    writers.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) log->info("writer {} line {} end", t, i);
    });
  log.to_file(folder / "out.log");
  for (auto& w : writers) w.join();
  log->flush();
  const std::string text = read_file(folder / "out.log");
  CHECK(lines(text) == 801);
  for (int t = 0; t < 4; ++t)
    for (int i = 0; i < 200; ++i) CHECK(has(text, fmt::format("writer {} line {} end\n", t, i)));
}

TEST_CASE("threads: a prefetcher's items are computed with while it prepares the next and logs") {
  ScratchFolder folder;
  Log log(false);
  log.to_file(folder / "out.log");
  int next = 0;
  Prefetcher<Tensor> items([&](Context& ctx) -> std::optional<Tensor> {
    if (next == 50) return std::nullopt;
    log->info("item {}", next);
    return ctx.of({1000}, DType::f64, std::vector<double>(1000, next++));
  });
  Context ctx(1);
  double sum = 0;
  while (const auto item = items.next()) {
    // Freed here, in memory of the other thread's allocator.
    sum += std::accumulate(item->data<double>(), item->data<double>() + 1000, 0.);
    log->info("sum {}", sum);
  }
  CHECK(sum == 1000. * 49 * 50 / 2);
}
