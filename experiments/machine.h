#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/device.h"

namespace lightcone {

/// Where a run takes place, for its log, its results and its report. What the system does not tell is "unknown" or 0.
struct Machine {
  std::string cpu;     // "Intel(R) Xeon(R) Platinum 8488C"
  int cores = 0;       // logical cores that this process may use: its affinity and its container's limit
  int64_t memory = 0;  // bytes, the container's limit where it has one
  std::string os;      // "Debian GNU/Linux 12 (bookworm), Linux 6.1.0"
};
Machine this_machine();

/// Largest resident memory of this process so far, in bytes.
int64_t peak_memory();

/// "15.6 GiB", "3.2 MiB", "12 bytes".
std::string bytes_text(int64_t bytes);

/// Name and value of each, ready for a report: the machine (with its GPU if that is the device), and what this binary
/// is made of (lightcone with its commit, compiler, libraries).
std::vector<std::pair<std::string, std::string>> machine_facts(Device device);
std::vector<std::pair<std::string, std::string>> version_facts();

}  // namespace lightcone
