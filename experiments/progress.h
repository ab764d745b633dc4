#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace lightcone {

/// "0:07", "12:34", "6:12:05", "3 d 4 h".
std::string duration_text(double seconds);

/// Where progress is shown. terminal() asks the system; a test sets its own.
struct ProgressOutput {
  std::function<void(std::string_view)> write;
  std::function<double()> seconds;  // a clock that never goes back
  std::function<int()> width;       // columns of the terminal now; it may be resized
  bool redraws = false;             // one line that is drawn over; else plain lines now and then
  bool color = false;
  bool unicode = false;

  /// Standard output: redrawn where it is a terminal that can, coloured unless NO_COLOR is set.
  static ProgressOutput terminal();
  /// Shows nothing.
  static ProgressOutput none();
};

/// How far a training is: iteration, bar, loss, learning rate, jets per second, time left.
///
///      1200/300000  ━╸──────────────    0.4%  loss 0.2134  lr 3.0e-04  6880 jets/s  6:11:20 left
///
/// On a terminal the line is drawn over at most ten times a second and never wraps: what is least needed is left out
/// where the terminal is narrow. Elsewhere a plain line comes at most every 10 s, later every 10 % of the time so far
/// up to 5 min. Rates follow the last half minute. To write anything else, call clear() before and redraw() after. For
/// one thread.
class Progress {
 public:
  /// Counts from `first` (iterations done before, where a run resumes) to `total`.
  explicit Progress(int64_t total, int64_t first = 0, ProgressOutput output = ProgressOutput::terminal());
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// After each iteration; cheap where nothing is due. `jets` is the number in this iteration's batch.
  void update(int64_t iteration, double loss, double learning_rate, int64_t jets);
  void clear();   // takes the line away
  void redraw();  // puts it back
  void finish();  // shows the last state and ends the line; further calls do nothing

 private:
  void measure(double now);
  std::string line(int width) const;
  std::string bar(int columns, double share) const;
  void draw();

  ProgressOutput output_;
  int64_t total_, iteration_, measured_iteration_, drawn_iteration_;
  double loss_ = 0, learning_rate_ = 0;
  double started_, measured_at_, drawn_at_;
  // Iterations, jets and seconds of the last half minute: older ones fade.
  double recent_iterations_ = 0, recent_jets_ = 0, recent_seconds_ = 0;
  int64_t new_jets_ = 0;
  bool updated_ = false, shown_ = false, finished_ = false;
};

}  // namespace lightcone
