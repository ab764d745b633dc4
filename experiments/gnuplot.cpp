#include "experiments/gnuplot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>

namespace lightcone {
namespace {

void warn_once(const std::string& message) {
  static std::atomic<bool> warned = false;
  if (!warned.exchange(true)) spdlog::warn("{}; the run goes on without plots", message);
}

using File = std::unique_ptr<FILE, decltype([](FILE* f) { fclose(f); })>;

std::string content(FILE* file) {
  std::string text;
  std::array<char, 1 << 14> part;
  rewind(file);
  while (size_t n = fread(part.data(), 1, part.size(), file)) text.append(part.data(), n);
  return text;
}

constexpr std::string_view fonts = "Inter,Helvetica Neue,Helvetica,Arial,sans-serif";

// Files without names on all three streams: gnuplot can block on no pipe, and nothing is left behind whatever happens.
std::string run(const std::string& script) {
  const File in{tmpfile()}, out{tmpfile()}, err{tmpfile()};
  if (!in || !out || !err) return warn_once("no temporary file for gnuplot"), "";
  if (fwrite(script.data(), 1, script.size(), in.get()) != script.size() || fflush(in.get()))
    return warn_once("cannot write a temporary file for gnuplot"), "";
  rewind(in.get());
  lseek(fileno(in.get()), 0, SEEK_SET);

  posix_spawn_file_actions_t streams;
  posix_spawn_file_actions_init(&streams);
  posix_spawn_file_actions_adddup2(&streams, fileno(in.get()), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&streams, fileno(out.get()), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&streams, fileno(err.get()), STDERR_FILENO);
  char name[] = "gnuplot", defaults[] = "-d", from_stdin[] = "-";  // -d: nobody's ~/.gnuplot
  char* arguments[] = {name, defaults, from_stdin, nullptr};
  pid_t child = 0;
  const int refused = posix_spawnp(&child, name, &streams, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&streams);
  if (refused) return warn_once("gnuplot is not installed (Debian: gnuplot-nox)"), "";
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }

  std::string svg = content(out.get());
  if (svg.find("</svg>") != std::string::npos) return svg;
  std::string reason = content(err.get());
  std::replace(reason.begin(), reason.end(), '\n', ' ');
  warn_once("gnuplot failed: " + reason.substr(0, 300));
  return "";
}

void erase_elements(std::string& svg, std::string_view open, std::string_view close) {
  for (size_t at = 0; (at = svg.find(open, at)) != std::string::npos;) {
    const size_t end = svg.find(close, at);
    if (end == std::string::npos) return;
    svg.erase(at, end + close.size() - at);
  }
}

// One element that can stand in a page: no XML prolog, no tooltips, our fonts, ids of its own.
std::string tidy(std::string svg) {
  svg.erase(0, svg.find("<svg"));
  svg.erase(svg.rfind("</svg>") + 6);
  erase_elements(svg, "<title>", "</title>");
  erase_elements(svg, "<desc>", "</desc>");
  uint64_t hash = 1469598103934665603u;  // FNV-1a
  for (unsigned char c : svg) hash = (hash ^ c) * 1099511628211u;
  const std::string prefix = fmt::format("f{:016x}-", hash);

  std::string out = "<svg role=\"img\"";
  bool in_tag = true;  // text may look like an attribute; gnuplot escapes every < in it
  for (size_t i = 4; i < svg.size(); ++i) {
    out += svg[i];
    if (svg[i] == '<') in_tag = true;
    if (svg[i] == '>') in_tag = false;
    if (!in_tag) continue;
    for (std::string_view before : {" id=\"", " id='", "href=\"#", "href='#", "url(#", "url('#"})
      if (out.ends_with(before)) out += prefix;
    if (constexpr std::string_view family = "font-family=\"sans-serif"; out.ends_with(family))
      out.replace(out.size() - 10, 10, fonts);
  }
  return out + "\n";
}

}  // namespace

std::string gnuplot_svg(const std::string& script) {
  const std::string drawn = run(script);
  return drawn.empty() ? "" : tidy(drawn);
}

}  // namespace lightcone
