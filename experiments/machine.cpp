#include "experiments/machine.h"

#include <fmt/format.h>
#include <sched.h>
#include <spdlog/version.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "version.h"

namespace lightcone {
namespace {

// The value on the first line that starts with `key`, without separators and quotes.
std::string value_in(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t first = line.find_first_not_of(" \t:=\"", key.size()), last = line.find_last_not_of(" \t\"");
    if (first != std::string::npos && first <= last) return line.substr(first, last - first + 1);
  }
  return "unknown";
}

int usable_cores() {
  int cores = int(std::thread::hardware_concurrency());
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  double quota = 0, period = 0;
  if (std::ifstream("/sys/fs/cgroup/cpu.max") >> quota >> period && quota > 0 && period > 0)
    cores = std::clamp(int(std::ceil(quota / period)), 1, std::max(cores, 1));
  return cores;
}

int64_t usable_memory() {
  int64_t memory = int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE), limit = 0;
  if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && limit > 0) memory = std::min(memory, limit);
  return std::max<int64_t>(memory, 0);
}

std::string operating_system() {
  utsname system{};
  const std::string name = value_in("/etc/os-release", "PRETTY_NAME");
  return uname(&system) ? name : fmt::format("{}, {} {}", name, system.sysname, system.release);
}

}  // namespace

Machine this_machine() {
  return {value_in("/proc/cpuinfo", "model name"), usable_cores(), usable_memory(), operating_system()};
}

int64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

std::string bytes_text(int64_t bytes) {
  double size = double(bytes);
  const char* unit = "bytes";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"})
    if (size >= 1024) size /= 1024, unit = larger;
  return bytes < 1024 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} {}", size, unit);
}

std::vector<std::pair<std::string, std::string>> machine_facts(Device device) {
  const Machine machine = this_machine();
  std::vector<std::pair<std::string, std::string>> facts = {{"CPU", machine.cpu},
                                                            {"Cores", std::to_string(machine.cores)},
                                                            {"Memory", bytes_text(machine.memory)},
                                                            {"System", machine.os}};
  if (device == Device::cuda) facts.insert(facts.begin(), {"GPU", gpu_text()});
  return facts;
}

std::vector<std::pair<std::string, std::string>> version_facts() {
  const std::string commit = LIGHTCONE_COMMIT;
#ifdef __clang__
  const std::string compiler = fmt::format("Clang {}", __clang_version__);
#else
  const std::string compiler = fmt::format("GCC {}", __VERSION__);
#endif
  std::vector<std::pair<std::string, std::string>> facts = {
      {"Lightcone", LIGHTCONE_VERSION + (commit.empty() ? "" : " (" + commit + ")")},
      {"Compiler", fmt::format("{}, -march={}", compiler, LIGHTCONE_ARCH)}};
  facts.emplace_back("fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100));
  facts.emplace_back("spdlog", fmt::format("{}.{}.{}", SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH));
  facts.emplace_back("nlohmann json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                                  NLOHMANN_JSON_VERSION_PATCH));
  facts.emplace_back("zlib", zlibVersion());
  return facts;
}

}  // namespace lightcone
