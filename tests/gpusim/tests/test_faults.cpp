// Planted faults: each is found, as what it is, at its line, for any order of blocks and warps and any number of
// threads; the same program without it is clean.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "gpusim/tests/faults.h"

using gpusim::Finding;

namespace {

std::string line_of(const std::string& file, uint32_t number) {
  static std::map<std::string, std::vector<std::string>> files;
  std::vector<std::string>& lines = files[file];
  if (lines.empty()) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
  }
  return number > 0 && number <= lines.size() ? lines[number - 1] : "";
}

bool is_marked(const std::string& file, uint32_t number, const std::string& name) {
  return line_of(file, number).ends_with("// FAULT " + name);
}

/// How many lines of a file carry the mark.
int marks(const std::string& file, const std::string& name) {
  int n = 0;
  line_of(file, 1);
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) n += line.ends_with("// FAULT " + name);
  return n;
}

std::vector<Finding> findings_of(const Fault& fault, int bad) {
  fault.run(bad);
  cudaDeviceSynchronize();
  cudaDeviceReset();
  return gpusim::take_findings();
}

void check(const Fault& fault) {
  const gpusim::Options before = gpusim::options();
  gpusim::options().print = false;
  gpusim::options().hang_after = 2'000'000;
  for (const uint64_t seed : {0, 1, 2})
    for (const int threads : {1, 2}) {
      gpusim::options().seed = seed;
      gpusim::options().threads = threads;
      INFO(std::string(fault.name) << ", seed " << seed << ", " << threads << " threads");
      for (const Finding& f : findings_of(fault, 0)) FAIL_CHECK("without the fault: " << f.text);
      if (!fault.what) continue;
      std::set<uint32_t> lines;
      std::string file;
      const auto found = findings_of(fault, 1);
      CHECK_FALSE(found.empty());
      for (const Finding& f : found) {
        INFO(f.text);
        CHECK(std::string(gpusim::name_of(f.what)) == gpusim::name_of(*fault.what));
        if (f.line == 0) continue;
        file = f.file;
        lines.insert(f.line);
        INFO(f.text);
        CHECK(is_marked(f.file, f.line, fault.name));
        if (f.other_line == 0) continue;
        lines.insert(f.other_line);
        CHECK(is_marked(f.other_file, f.other_line, fault.name));
      }
      // Of two operations only the later one's line is known; a deadlock is seen somewhere in its loop.
      if (file.empty() || *fault.what == Finding::What::unordered || *fault.what == Finding::What::deadlock) continue;
      CHECK(static_cast<int>(lines.size()) == marks(file, fault.name));
    }
  gpusim::options() = before;
}

}  // namespace

TEST_CASE("Accesses outside, after the end, before the first write, and crooked ones") {
  for (const Fault& fault : faults_of_memory()) check(fault);
}

TEST_CASE("Races between lanes, warps, blocks and streams") {
  for (const Fault& fault : faults_of_order()) check(fault);
}

TEST_CASE("Barriers and masks that do not fit the threads, deadlocks, traps; locks and waits that make progress") {
  for (const Fault& fault : faults_of_waiting()) check(fault);
}

TEST_CASE("What cannot be simulated is refused with a message") {
  const bool before = gpusim::options().print;
  gpusim::options().print = false;
  for (const Fault& fault : refused_kernels()) {
    const auto found = findings_of(fault, 1);
    REQUIRE(found.size() == 1);
    CHECK(found[0].what == Finding::What::misuse);
    CHECK(found[0].text.find(fault.name) != std::string::npos);
  }
  gpusim::options().print = before;
}

namespace {

/// What a program of its own says and answers; the program is a test case of this file that is skipped otherwise.
int status_of(const std::string& environment, const std::string& test_case) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command =
      environment + " '" + self + "' --no-skip --test-case='" + test_case + "' > /dev/null 2>&1";
  return WEXITSTATUS(std::system(command.c_str()));
}

bool only(Finding::What what) {
  const auto found = gpusim::take_findings();
  for (const Finding& f : found) INFO(f.text);
  return found.size() == 1 && found[0].what == what && !found[0].text.empty();
}

}  // namespace

TEST_CASE("A program that leaks" * doctest::skip()) {
  OnDevice<int> freed(10);
  void* leaked = nullptr;
  CHECK(cudaMalloc(&leaked, 100) == cudaSuccess);
}
TEST_CASE("A program that frees" * doctest::skip()) { OnDevice<int> freed(10); }
TEST_CASE("A program that reads behind the end and never asks" * doctest::skip()) { faults_of_memory()[0].run(1); }

TEST_CASE("Findings that nobody took, and leaks where they are asked for, are the program's exit status") {
  CHECK(status_of("GPUSIM_LEAKS=1", "A program that leaks") == 86);
  CHECK(status_of("GPUSIM_LEAKS=0", "A program that leaks") == 0);
  CHECK(status_of("GPUSIM_LEAKS=1", "A program that frees") == 0);
  CHECK(status_of("", "A program that reads behind the end and never asks") == 86);
}

TEST_CASE("What the host does wrong") {
  const bool before = gpusim::options().print;
  gpusim::options().print = false;
  gpusim::take_findings();
  void *device = nullptr, *pinned = nullptr;
  int host[16] = {};
  REQUIRE(cudaMalloc(&device, sizeof host) == cudaSuccess);
  REQUIRE(cudaMallocHost(&pinned, sizeof host) == cudaSuccess);

  CHECK(cudaMemcpy(device, host, sizeof host, cudaMemcpyDeviceToHost) != cudaSuccess);
  CHECK(only(Finding::What::misuse));
  CHECK(cudaMemcpy(device, host, sizeof host, cudaMemcpyHostToDevice) == cudaSuccess);
  CHECK(gpusim::take_findings().empty());

  CHECK(cudaMemcpyAsync(pinned, device, sizeof host, cudaMemcpyDeviceToHost, nullptr) == cudaSuccess);
  CHECK(*static_cast<volatile int*>(pinned) != 1);  // the copy may not have come yet
  CHECK(only(Finding::What::host_access));
  CHECK(cudaMemcpyAsync(pinned, device, sizeof host, cudaMemcpyDeviceToHost, nullptr) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  CHECK(*static_cast<volatile int*>(pinned) == 0);
  CHECK(gpusim::take_findings().empty());

  CHECK(cudaFree(device) == cudaSuccess);
  CHECK(gpusim::take_findings().empty());
  CHECK(cudaFree(device) != cudaSuccess);
  CHECK(only(Finding::What::use_after_free));
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
  cudaGetLastError();
  gpusim::options().print = before;
}
