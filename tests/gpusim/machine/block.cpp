#include "gpusim/machine/block.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "gpusim/error.h"
#include "gpusim/machine/findings.h"

namespace gpusim {

Block::Block(Running& running) : running_(running), kernel_(*running.kernel), launch_(*running.launch) {
  const auto& b = launch_.block;
  threads_ = b[0] * b[1] * b[2];
  const uint32_t warps = (threads_ + warp_size - 1) / warp_size;
  const size_t stride = (kernel_.register_bytes + 63) / 64 * 64;
  register_memory_.reset(new (std::align_val_t{64}) std::byte[stride * warps]());
  warps_.resize(warps);
  order_.resize(warps);
  std::iota(order_.begin(), order_.end(), 0);
  for (uint32_t i = 0; i < warps; ++i) {
    Warp& w = warps_[i];
    w.index = i;
    w.lanes.registers = register_memory_.get() + i * stride;
    w.local.resize(kernel_.local_storage * warp_size);
    w.local_written.resize(w.local.size());
    for (const Kernel::Constant& c : kernel_.constants) {
      if (c.bytes == 0) w.lanes.predicate(c.slot) = static_cast<uint32_t>(c.value);
      for (int l = 0; l < warp_size && c.bytes; ++l) {
        std::byte* at = w.lanes.registers + c.slot + l * c.bytes;
        std::memset(at, 0, c.bytes);
        std::memcpy(at, &c.value, std::min<size_t>(c.bytes, 8));
      }
    }
  }
  shared_ranges_ = kernel_.shared;
  uint32_t end = kernel_.dynamic_shared_at;
  if (launch_.dynamic_shared) {
    end += launch_.dynamic_shared;
    shared_ranges_.push_back({kernel_.dynamic_shared_at, end, "dynamic shared memory"});
  }
  shared_shift_ = kernel_.shared_granule < 4 ? 0 : 2;
  shared_.resize(end + 16);
  shared_cells_.resize((end >> shared_shift_) + 1);
}

void Block::start(uint32_t linear) {
  linear_ = linear;
  const auto& grid = launch_.grid;
  index_ = {linear % grid[0], linear / grid[0] % grid[1], linear / grid[0] / grid[1]};
  if (++shared_id_ == 0) {  // after 2^32 blocks the numbers begin again
    std::fill(shared_cells_.begin(), shared_cells_.end(), Cell{});
    shared_id_ = 1;
  }
  std::fill(shared_.begin(), shared_.end(), std::byte{0xff});
  block_sectors_.clear();
  acquired_.of.clear();
  acquired_reads_.of.clear();
  barriers_.fill({});
  clock_ = 0;
  changes_before_ = ~uint64_t{0};
  random_.seed(running_.seed * 0x9e3779b97f4a7c15u + linear);
  for (uint32_t i = 0; i < warps_.size(); ++i) {
    Warp& w = warps_[i];
    const uint32_t lanes = std::min<uint32_t>(warp_size, threads_ - i * warp_size);
    w.alive = lanes == warp_size ? all_lanes : (1u << lanes) - 1;
    w.lanes.exited = ~w.alive;  // those that never were
    w.groups = {{.pc = 0, .mask = w.alive}};
    w.ran_out = false;
    w.clock.fill(0);
    w.clock[i] = 1;
    std::fill(w.local_written.begin(), w.local_written.end(), 0);
    std::fill(w.local.begin(), w.local.end(), std::byte{0xff});
    w.has_released = w.has_seen = false;
    w.copies.clear();
    w.copy_group = 0;
  }
  set_specials();
}

void Block::set_specials() {
  const auto &grid = launch_.grid, &block = launch_.block;
  for (Warp& w : warps_)
    for (const Kernel::Special& special : kernel_.specials) {
      const std::string& n = special.name;
      auto value = [&](uint32_t lane) -> uint64_t {
        const auto thread = thread_of(w, lane);
        const int axis = n.empty() ? 0 : n.back() - 'x';
        if (n.starts_with("tid.")) return thread[axis];
        if (n.starts_with("ntid.")) return block[axis];
        if (n.starts_with("ctaid.")) return index_[axis];
        if (n.starts_with("nctaid.")) return grid[axis];
        if (n == "laneid") return lane;
        if (n == "warpid") return w.index;
        if (n == "nwarpid") return 64;
        if (n == "smid") return linear_ % 132;
        if (n == "nsmid") return 132;
        if (n == "gridid") return launch_.operation->id;
        if (n == "lanemask_eq") return 1u << lane;
        if (n == "lanemask_lt") return (1u << lane) - 1;
        if (n == "lanemask_le") return (2u << lane) - 1;
        if (n == "lanemask_gt") return ~((2u << lane) - 1);
        if (n == "lanemask_ge") return ~((1u << lane) - 1);
        if (n == "total_smem_size") return kernel_.info.static_shared + launch_.dynamic_shared;
        if (n == "dynamic_smem_size") return launch_.dynamic_shared;
        // A cluster is one block.
        if (n.starts_with("clusterid.")) return index_[axis];
        if (n.starts_with("nclusterid.")) return grid[axis];
        if (n.starts_with("cluster_ctaid.") || n == "cluster_ctarank" || n == "is_explicit_cluster") return 0;
        if (n.starts_with("cluster_nctaid.") || n == "cluster_nctarank") return 1;
        fail("{}: gpusim does not know the special register %{}", kernel_.info.name, n);
      };
      for (uint32_t l = 0; l < warp_size; ++l) {
        const uint64_t v = value(l);
        std::memcpy(w.lanes.registers + special.slot + l * special.bytes, &v, special.bytes);
      }
    }
}

bool Block::run(uint64_t steps) {
  const uint64_t slice = 4096;
  changes_before_ = changes();
  while (steps > 0) {
    bool moved = false, alive = false, awake = false;
    const uint64_t before_round = changes();
    if (running_.seed) std::shuffle(order_.begin(), order_.end(), random_);
    for (uint32_t i : order_) {
      Warp& w = warps_[i];
      if (!w.alive) continue;
      const uint64_t turn = running_.seed ? 1 + random_() % 256 : slice;
      const uint64_t before = clock_;
      w.paused = false;
      const bool ran = run_warp(w, turn) != 0;
      moved |= ran;
      awake |= ran && !w.paused;
      steps -= std::min(steps, std::max<uint64_t>(1, clock_ - before));
      if (running_.stop.load(std::memory_order_relaxed)) return true;
      alive |= w.alive != 0;
    }
    if (!alive) {
      launch_sectors.join(block_sectors_);
      counters.dram_read_bytes += 32 * block_sectors_.read_sectors();
      counters.dram_write_bytes += 32 * block_sectors_.written_sectors();
      return true;
    }
    if (!moved) {
      stuck();
      return true;
    }
    if (!awake && changes() == before_round) return false;
  }
  return false;
}

std::array<uint32_t, 3> Block::thread_of(const Warp& w, uint32_t lane) const {
  const auto& b = launch_.block;
  const uint32_t t = w.index * warp_size + lane;
  return {t % b[0], t / b[0] % b[1], t / b[0] / b[1]};
}

void Block::find(Finding::What what, const Warp& w, const Step& s, uint32_t lane, const std::string& text, bool fatal,
                 const Site* other, uint64_t address) {
  if (fatal) running_.stop = true;
  const Site& site = kernel_.sites[s.site];
  Finding f;
  f.what = what;
  f.kernel = kernel_.info.name;
  f.file = site.file;
  f.line = site.line;
  f.address = address;
  f.block = index_;
  f.thread = thread_of(w, lane);
  if (other) {
    f.other_file = other->file;
    f.other_line = other->line;
  }
  f.text =
      fmt::format("{}:{}: {} in block ({}, {}, {}), thread ({}, {}, {}) of {}: {}", site.file, site.line, site.text,
                  index_[0], index_[1], index_[2], f.thread[0], f.thread[1], f.thread[2], f.kernel, text);
  report(std::move(f));
}

void finish(Block& block, LaunchReport& total, SectorSet& sectors) {
  LaunchReport c = block.counters;
  uint64_t* const kinds[] = {&c.warp_by_kind.integer,   &c.warp_by_kind.f32,     &c.warp_by_kind.f64,
                             &c.warp_by_kind.half,      &c.warp_by_kind.convert, &c.warp_by_kind.move,
                             &c.warp_by_kind.predicate, &c.warp_by_kind.control, &c.warp_by_kind.memory,
                             &c.warp_by_kind.warp,      &c.warp_by_kind.tensor};
  static_assert(std::size(kinds) == static_cast<size_t>(Kind::count));
  for (size_t k = 0; k < std::size(kinds); ++k) {
    *kinds[k] = block.by_kind_[k];
    c.warp_instructions += block.by_kind_[k];
  }
  c.thread_instructions = block.thread_instructions_;
  add(total, c);
  sectors.join(block.launch_sectors);
}

}  // namespace gpusim
