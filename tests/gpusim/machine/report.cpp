#include "gpusim/report.h"

#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

#include "gpusim/machine/findings.h"
#include "gpusim/machine/machine.h"

namespace gpusim {

namespace {

struct State {
  std::mutex mutex;
  std::vector<Finding> findings;
  std::set<std::tuple<Finding::What, std::string, std::string, uint32_t, std::string, uint32_t>> known;
  std::vector<LaunchReport> launches;
  uint64_t launched = 0;
};

void at_exit();

State& state() {
  static State* s = [] {
    std::atexit(at_exit);
    return new State;
  }();
  return *s;
}

void print(const Finding& f) { std::fprintf(stderr, "gpusim: %s: %s\n", name_of(f.what), f.text.c_str()); }

// A program that never asks still fails when something was found.
void at_exit() {
  const State& s = state();
  if (const char* summary = std::getenv("GPUSIM_SUMMARY"); summary && *summary == '1') {
    const Throughput t = throughput();
    std::fprintf(stderr, "gpusim: %" PRIu64 " launches, %" PRIu64 " thread instructions, %.2f s\n", s.launched,
                 t.thread_instructions, t.seconds);
  }
  if (s.findings.empty()) return;
  std::fprintf(stderr, "gpusim: %zu finding%s\n", s.findings.size(), s.findings.size() == 1 ? "" : "s");
  if (!options().print)
    for (const Finding& f : s.findings) print(f);
  std::fflush(nullptr);
  _exit(86);
}

uint64_t number(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

const char* name_of(Finding::What what) {
  switch (what) {
    case Finding::What::out_of_bounds:
      return "out of bounds";
    case Finding::What::use_after_free:
      return "use after free";
    case Finding::What::uninitialised_read:
      return "uninitialised read";
    case Finding::What::misaligned:
      return "misaligned access";
    case Finding::What::race:
      return "race";
    case Finding::What::unordered:
      return "unordered access";
    case Finding::What::divergent_barrier:
      return "divergent barrier";
    case Finding::What::deadlock:
      return "deadlock";
    case Finding::What::wrong_members:
      return "wrong member mask";
    case Finding::What::trap:
      return "trap";
    case Finding::What::host_access:
      return "host access";
    case Finding::What::leak:
      return "leak";
    case Finding::What::misuse:
      return "misuse";
  }
  return "finding";
}

void report(Finding finding) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  // Without a source line the text tells findings apart.
  const std::string& where = finding.file.empty() ? finding.text : finding.file;
  // Which of two unordered accesses comes second is chance: a pair of lines counts once, whichever way round.
  std::pair<std::string, uint32_t> a{where, finding.line}, b{finding.other_file, finding.other_line};
  if (b.second && b < a) std::swap(a, b);
  if (!s.known.insert({finding.what, finding.kernel, a.first, a.second, b.first, b.second}).second) return;
  if (options().print) print(finding);
  s.findings.push_back(std::move(finding));
}

void report(LaunchReport launch) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  ++s.launched;
  // A program that never takes them must not grow without end.
  if (s.launches.size() < 100'000) s.launches.push_back(std::move(launch));
}

std::vector<Finding> take_findings() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.known.clear();
  return std::exchange(s.findings, {});
}

std::vector<LaunchReport> take_launches() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  return std::exchange(s.launches, {});
}

Options& options() {
  static Options* o = [] {
    auto* from = new Options;
    from->seed = number("GPUSIM_SEED", 0);
    from->threads = static_cast<int>(number("GPUSIM_THREADS", 0));
    from->check_races = number("GPUSIM_RACES", 1) != 0;
    from->check_initialised = number("GPUSIM_INITIALISED", 1) != 0;
    from->print = number("GPUSIM_QUIET", 0) == 0;
    return from;
  }();
  return *o;
}

}  // namespace gpusim
