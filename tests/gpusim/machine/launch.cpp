// A launch: its blocks on worker threads.
#include <algorithm>
#include <chrono>
#include <exception>
#include <numeric>
#include <random>
#include <thread>

#include "gpusim/machine/block.h"
#include "gpusim/machine/findings.h"

namespace gpusim {

namespace {

std::mutex throughput_mutex;
Throughput total_throughput;

/// The grid's blocks in the order in which they start.
std::vector<uint32_t> order_of_blocks(uint64_t blocks, uint64_t seed) {
  std::vector<uint32_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  // Near neighbours change places, as they do on a machine; a block that waits for one that comes much later would keep
  // everything in between in memory.
  constexpr size_t window = 64;
  std::mt19937_64 random(seed);
  if (seed)
    for (size_t begin = 0; begin < order.size(); begin += window)
      std::shuffle(order.begin() + begin, order.begin() + std::min(order.size(), begin + window), random);
  return order;
}

// Steps that a block runs before another one has its turn.
constexpr uint64_t time_slice = 200'000;

class Worker {
 public:
  Worker(Running& running, size_t me, const std::vector<uint32_t>& order, std::atomic<uint64_t>& next)
      : running_(running), me_(me), order_(order), next_(next) {}

  void operator()() {
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
      running_.stop = true;
    }
    running_.waited[me_] = ~uint64_t{0};
  }

  std::exception_ptr failure;
  std::vector<std::unique_ptr<Block>> all;  // with their counters

 private:
  // One block at a time, as long as it comes to its end. Where it may wait for another (a look-back, a spin lock), more
  // blocks begin and take turns.
  void work() {
    std::vector<Block*> active, idle;
    uint64_t since = 0, seen = running_.progress;
    while (!running_.stop.load(std::memory_order_relaxed)) {
      if (active.empty() || all_spun_) {
        all_spun_ = false;
        const uint64_t k = next_++;
        if (k < order_.size()) {
          if (idle.empty()) {
            all.push_back(std::make_unique<Block>(running_));
            idle.push_back(all.back().get());
          }
          active.push_back(idle.back());
          idle.pop_back();
          active.back()->start(order_[k]);
          since = 0;
        } else if (active.empty()) {
          return;
        }
      }
      all_spun_ = true;
      for (size_t k = 0; k < active.size();) {
        const uint64_t before = active[k]->steps();
        const bool ended = active[k]->run(time_slice);
        since += active[k]->steps() - before;
        if (ended) {
          idle.push_back(active[k]);
          active.erase(active.begin() + k);
          ++running_.progress;
        } else {
          all_spun_ &= active[k]->may_wait();
          ++k;
        }
        if (running_.stop.load(std::memory_order_relaxed)) return;
      }
      if (all_spun_ && !active.empty()) std::this_thread::yield();
      if (const uint64_t now = running_.progress; now != seen) seen = now, since = 0;
      // A block may wait for one of another worker, which the machine may have put to sleep: all of them have to be at
      // it.
      running_.waited[me_] = since;
      const bool all_waited = std::all_of(running_.waited.begin(), running_.waited.end(),
                                          [](const auto& steps) { return steps > options().hang_after; });
      if (all_waited && (next_ >= order_.size() || !all_spun_) && !active.empty()) {
        active.front()->hang();
        return;
      }
    }
  }

  Running& running_;
  size_t me_;
  const std::vector<uint32_t>& order_;
  std::atomic<uint64_t>& next_;
  bool all_spun_ = false;
};

}  // namespace

void add(LaunchReport& to, const LaunchReport& c) {
  auto& k = to.warp_by_kind;
  const auto& o = c.warp_by_kind;
  k.integer += o.integer, k.f32 += o.f32, k.f64 += o.f64, k.half += o.half, k.convert += o.convert, k.move += o.move;
  k.predicate += o.predicate, k.control += o.control, k.memory += o.memory, k.warp += o.warp, k.tensor += o.tensor;
  for (auto counter :
       {&LaunchReport::warp_instructions, &LaunchReport::thread_instructions, &LaunchReport::global_load_requests,
        &LaunchReport::global_load_sectors, &LaunchReport::global_store_requests, &LaunchReport::global_store_sectors,
        &LaunchReport::atomics, &LaunchReport::dram_read_bytes, &LaunchReport::dram_write_bytes,
        &LaunchReport::shared_requests, &LaunchReport::shared_wavefronts, &LaunchReport::bank_conflicts,
        &LaunchReport::local_requests, &LaunchReport::branches, &LaunchReport::divergent_branches,
        &LaunchReport::barriers, &LaunchReport::tensor_operations})
    to.*counter += c.*counter;
}

bool run(const Kernel& kernel, const Launch& launch, Finding::What* fault) {
  const auto begin = std::chrono::steady_clock::now();
  Running running;
  running.kernel = &kernel;
  running.launch = &launch;
  running.blocks = uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  running.check_races = options().check_races;
  running.check_initialised = options().check_initialised;
  running.seed = options().seed;

  const std::vector<uint32_t> order = order_of_blocks(running.blocks, running.seed);
  std::atomic<uint64_t> next = 0;
  const int wanted = options().threads ? options().threads : static_cast<int>(std::thread::hardware_concurrency());
  const int threads = static_cast<int>(std::clamp<uint64_t>(running.blocks, 1, std::max(1, wanted)));
  running.waited = std::vector<std::atomic<uint64_t>>(threads);
  std::vector<std::unique_ptr<Worker>> workers;
  for (int t = 0; t < threads; ++t) workers.push_back(std::make_unique<Worker>(running, t, order, next));
  {
    std::vector<std::jthread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(std::ref(*workers[t]));
    (*workers[0])();
  }

  LaunchReport total;
  total.kernel = kernel.info.name;
  total.device = kernel.program->device();
  total.grid = launch.grid;
  total.block = launch.block;
  total.shared_bytes = kernel.info.static_shared + launch.dynamic_shared;
  total.local_bytes = kernel.info.local_bytes;
  SectorSet sectors;
  for (const auto& worker : workers)
    for (const auto& block : worker->all) finish(*block, total, sectors);
  total.least_read_bytes = 32 * sectors.read_sectors();
  total.least_write_bytes = 32 * sectors.written_sectors();
  {
    std::lock_guard lock(throughput_mutex);
    total_throughput.thread_instructions += total.thread_instructions;
    total_throughput.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  for (const auto& worker : workers)
    if (worker->failure) std::rethrow_exception(worker->failure);
  report(std::move(total));
  if (running.stop && fault) *fault = running.fault;
  return !running.stop;
}

Throughput throughput() {
  std::lock_guard lock(throughput_mutex);
  return total_throughput;
}

}  // namespace gpusim
