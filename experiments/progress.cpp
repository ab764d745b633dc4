#include "experiments/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace lightcone {
namespace {

bool set(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value;
}

bool speaks_utf8() {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (set(variable)) {
      const std::string_view value = std::getenv(variable);
      return value.find("UTF-8") != std::string_view::npos || value.find("utf8") != std::string_view::npos;
    }
  return false;
}

int terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e10) return "?";
  const int64_t s = std::llround(seconds);
  if (s >= 100 * 3600) return fmt::format("{} d {} h", s / 86400, s / 3600 % 24);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

ProgressOutput ProgressOutput::none() {
  return {[](std::string_view) {}, [] { return 0.0; }, [] { return 80; }};
}

ProgressOutput ProgressOutput::terminal() {
  const char* kind = std::getenv("TERM");
  const bool redraws = isatty(STDOUT_FILENO) && kind && std::string_view(kind) != "dumb";
  return {.write =
              [](std::string_view text) {
                fwrite(text.data(), 1, text.size(), stdout);
                fflush(stdout);
              },
          .seconds =
              [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); },
          .width = terminal_width,
          .redraws = redraws,
          .color = redraws && !set("NO_COLOR"),
          .unicode = speaks_utf8()};
}

Progress::Progress(int64_t total, int64_t first, ProgressOutput output)
    : output_(std::move(output)),
      total_(std::max<int64_t>(total, 0)),
      iteration_(first),
      measured_iteration_(first),
      drawn_iteration_(first) {
  started_ = measured_at_ = output_.seconds();
  drawn_at_ = output_.redraws ? started_ - 1 : started_;  // a terminal shows the first iteration at once
}

void Progress::update(int64_t iteration, double loss, double learning_rate, int64_t jets) {
  if (finished_) return;
  iteration_ = iteration;
  loss_ = loss;
  learning_rate_ = learning_rate;
  new_jets_ += jets;
  updated_ = true;
  const double now = output_.seconds();
  const double pause = output_.redraws ? 0.1 : std::clamp(0.1 * (now - started_), 10.0, 300.0);
  if (now - drawn_at_ < pause) return;
  measure(now);
  draw();
  drawn_at_ = now;
}

void Progress::measure(double now) {
  const double passed = now - measured_at_;
  if (passed <= 0) return;
  const double fade = std::exp(-passed / 30);
  recent_seconds_ = fade * recent_seconds_ + passed;
  recent_iterations_ = fade * recent_iterations_ + double(iteration_ - measured_iteration_);
  recent_jets_ = fade * recent_jets_ + double(new_jets_);
  measured_at_ = now;
  measured_iteration_ = iteration_;
  new_jets_ = 0;
}

std::string Progress::bar(int columns, double share) const {
  const auto repeat = [](std::string_view piece, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += piece;
    return out;
  };
  const int halves = int(share * 2 * columns), full = halves / 2;
  const int half = output_.unicode ? halves % 2 : 0;
  const std::string left = repeat(output_.unicode ? "━" : "=", full) + (half ? "╸" : "");
  const std::string right = repeat(output_.unicode ? "─" : "-", columns - full - half);
  return output_.color ? fmt::format("\x1b[36m{}\x1b[90m{}\x1b[0m", left, right) : left + right;
}

std::string Progress::line(int width) const {
  const int64_t done = std::clamp<int64_t>(iteration_, 0, total_);
  const double share = total_ > 0 ? double(done) / double(total_) : 1;
  const auto per_second = [&](double recent) { return recent_seconds_ > 0 ? recent / recent_seconds_ : 0; };
  const double rate = per_second(recent_iterations_);
  const std::string total = std::to_string(total_);

  struct Field {
    std::string text;
    int need;  // on a narrow terminal the least needed goes first
  };
  std::vector<Field> fields = {
      {fmt::format("{:>{}}/{}", iteration_, total.size(), total), 5},
      {fmt::format("{:5.1f}%", 100 * share), 2},
      {fmt::format("loss {:#.4g}", loss_), 4},
      {fmt::format("lr {:.1e}", learning_rate_), 0},
      {fmt::format("{:.0f} jets/s", per_second(recent_jets_)), 1},
      {done == total_ ? fmt::format("in {}", duration_text(measured_at_ - started_))
                      : (rate > 0 ? duration_text(double(total_ - done) / rate) : "?") + " left",
       3},
  };
  const auto used = [&] {
    int columns = -2;
    for (const Field& f : fields) columns += int(f.text.size()) + 2;
    return columns;
  };
  const auto less_needed = [](const Field& a, const Field& b) { return a.need < b.need; };
  while (fields.size() > 1 && used() > width) fields.erase(std::min_element(fields.begin(), fields.end(), less_needed));

  const int room = std::min(width - used() - 2, 30);
  if (output_.redraws && room >= 8) fields.insert(fields.begin() + 1, {bar(room, share), 0});
  std::string out;
  for (const Field& f : fields) out += (out.empty() ? "" : "  ") + f.text;
  return used() > width && fields.size() == 1 ? out.substr(0, size_t(width)) : out;
}

void Progress::draw() {
  // The last column stays free: a terminal may wrap as soon as it is filled.
  if (output_.redraws)
    output_.write(fmt::format("\r{}\x1b[K", line(std::max(output_.width() - 1, 1))));
  else
    output_.write(line(1000) + "\n");
  shown_ = true;
  drawn_iteration_ = iteration_;
}

void Progress::clear() {
  if (output_.redraws && shown_ && !finished_) output_.write("\r\x1b[K");
}

void Progress::redraw() {
  if (output_.redraws && shown_ && !finished_) draw();
}

void Progress::finish() {
  if (finished_) return;
  if (updated_ && (output_.redraws || drawn_iteration_ != iteration_)) {
    measure(output_.seconds());
    draw();
    if (output_.redraws) output_.write("\n");
  }
  finished_ = true;
}

}  // namespace lightcone
