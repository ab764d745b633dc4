#include "gpusim/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "gpusim/roofline.h"

namespace gpusim {

namespace {

/// All launches of one kernel.
struct Row {
  const LaunchReport* largest = nullptr;  // the launch with the most threads, whose occupancy is shown
  uint64_t launches = 0;
  LaunchReport sum;
  std::map<std::string, double> bound;                            // by GPU, microseconds
  std::map<std::string, std::map<std::string, double>> bound_by;  // by GPU and what sets it
};

uint64_t threads(const LaunchReport& l) {
  return uint64_t{l.grid[0]} * l.grid[1] * l.grid[2] * l.block[0] * l.block[1] * l.block[2];
}

void add(Row& row, const LaunchReport& l) {
  ++row.launches;
  if (!row.largest || threads(l) > threads(*row.largest)) row.largest = &l;
  using R = LaunchReport;
  for (auto field : {&R::thread_instructions, &R::global_load_sectors, &R::global_store_sectors, &R::dram_read_bytes,
                     &R::dram_write_bytes, &R::least_read_bytes, &R::least_write_bytes, &R::shared_wavefronts,
                     &R::bank_conflicts, &R::local_requests})
    row.sum.*field += l.*field;
  for (const Gpu& gpu : gpus()) {
    const Bound bound = least_time(l, gpu);
    row.bound[gpu.name] += bound.microseconds;
    row.bound_by[gpu.name][bound.by] += bound.microseconds;
  }
}

/// The machine code that this GPU would take.
const Resources* resources_for(const std::string& kernel, const Gpu& gpu, std::span<const Resources> all) {
  const Resources* best = nullptr;
  for (const Resources& r : all)
    if (r.kernel == kernel && r.target <= (gpu.name == "A100" ? 80 : 90) && (!best || r.target > best->target))
      best = &r;
  return best;
}

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

}  // namespace

std::string kernel_table(std::span<const LaunchReport> launches, std::span<const Resources> resources) {
  std::map<std::string, Row> rows;
  for (const LaunchReport& l : launches) add(rows[l.kernel], l);
  std::vector<std::pair<std::string, const Row*>> order;
  for (const auto& [kernel, row] : rows) order.emplace_back(kernel, &row);
  auto bound = [](const Row& row) { return row.bound.at("H100"); };
  std::stable_sort(order.begin(), order.end(),
                   [&](const auto& a, const auto& b) { return bound(*a.second) > bound(*b.second); });

  std::string text = fmt::format("{:>8} {:>10} {:>11} {:>11} {:>9} {:>9} {:>7} {:>9} {:>9} {:>10} {:>10}", "launches",
                                 "Minstr", "sectors in", "sectors out", "MB read", "MB written", "x least", "conflicts",
                                 "registers", "occ. A100", "occ. H100");
  for (const Gpu& gpu : gpus()) text += fmt::format(" {:>21}", "bound " + gpu.name + " us");
  text += "  kernel\n";
  for (const auto& [kernel, row] : order) {
    const LaunchReport& s = row->sum;
    const auto mb = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e6; };
    const double least = mb(s.least_read_bytes + s.least_write_bytes),
                 traffic = mb(s.dram_read_bytes + s.dram_write_bytes);
    std::string registers = "-", occupied[2] = {"-", "-"};
    for (int i = 0; i < 2; ++i) {
      const Gpu& gpu = gpu_named(i ? "H100" : "A100");
      const Resources* r = resources_for(kernel, gpu, resources);
      if (!r) continue;
      registers = fmt::format("{}", r->registers);
      occupied[i] = percent(occupancy(*row->largest, r->registers, gpu).share);
    }
    text += fmt::format("{:>8} {:>10.3f} {:>11} {:>11} {:>9.3f} {:>10.3f} {:>7} {:>9} {:>9} {:>10} {:>10}",
                        row->launches, static_cast<double>(s.thread_instructions) / 1e6, s.global_load_sectors,
                        s.global_store_sectors, mb(s.dram_read_bytes), mb(s.dram_write_bytes),
                        least > 0 ? fmt::format("{:.2f}", traffic / least) : "-",
                        s.shared_wavefronts ? fmt::format("{:.1f} %", 100. * static_cast<double>(s.bank_conflicts) /
                                                                          static_cast<double>(s.shared_wavefronts))
                                            : "-",
                        registers, occupied[0], occupied[1]);
    for (const Gpu& gpu : gpus()) {
      const auto& by = row->bound_by.at(gpu.name);
      const auto most = std::max_element(by.begin(), by.end(), [](auto& a, auto& b) { return a.second < b.second; });
      text += fmt::format(" {:>21}", fmt::format("{:.3f} ({})", row->bound.at(gpu.name), most->first));
    }
    text += "  " + short_name(kernel) + (s.local_requests ? " (local memory)" : "") + "\n";
  }
  text +=
      "Counts of a simulated GPU. A bound is what no launch can be faster than on that GPU, and no time; launches and\n"
      "waits are not in it. \"x least\" compares DRAM traffic, without a cache between blocks, with each sector "
      "once.\n";
  return text;
}

}  // namespace gpusim
