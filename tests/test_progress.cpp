#include "experiments/progress.h"
#include "tests/support/text.h"

#include <doctest/doctest.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

using namespace lightcone;
using namespace lightcone::test;

namespace {

// A terminal that a test can look at: it keeps a cursor, obeys \r, \n and "erase to the end of the line", and wraps.
struct Screen {
  std::string written;
  double now = 100;
  int width = 120;
  ProgressOutput output(bool redraws, bool color = false, bool unicode = false) {
    return {.write = [this](std::string_view text) { written += text; },
            .seconds = [this] { return now; },
            .width = [this] { return width; },
            .redraws = redraws,
            .color = color,
            .unicode = unicode};
  }
  std::vector<std::string> rows() const {
    std::vector<std::string> rows{""};
    size_t column = 0;
    for (size_t i = 0; i < written.size(); ++i) {
      std::string& row = rows.back();
      if (written[i] == '\r') {
        column = 0;
      } else if (written[i] == '\n') {
        rows.emplace_back();
        column = 0;
      } else if (written.compare(i, 3, "\x1b[K") == 0) {
        row.resize(column);
        i += 2;
      } else {
        if (column == size_t(width)) rows.emplace_back(), column = 0;
        std::string& here = rows.back();
        if (here.size() <= column) here.resize(column + 1);
        here[column++] = written[i];
      }
    }
    return rows;
  }
};

}  // namespace

TEST_CASE("progress: a terminal shows one line with all that matters") {
  Screen screen;
  Progress progress(1000, 0, screen.output(true));
  for (int i = 1; i <= 250; ++i) {
    screen.now += 0.2;
    progress.update(i, 0.5 / i, 3e-4, 512);
  }
  REQUIRE(screen.rows().size() == 1);
  const std::string row = screen.rows()[0];
  CHECK(row.starts_with(" 250/1000  ="));
  CHECK(has(row, "   25.0%  loss 0.002000  lr 3.0e-04  2560 jets/s  2:30 left"));
  CHECK(row.size() < 120);
  CHECK(count(row, "=") == (count(row, "=") + count(row, "-") - 1) / 4);  // a quarter of the bar (one - is in 3.0e-04)
}

TEST_CASE("progress: the line is drawn at most ten times a second") {
  Screen screen;
  Progress progress(100000, 0, screen.output(true));
  for (int i = 1; i <= 20000; ++i) {
    screen.now += 0.0005;
    progress.update(i, 1, 1, 1);
  }
  CHECK(count(screen.written, "\r") <= 101);
  CHECK(count(screen.written, "\r") >= 95);
}

TEST_CASE("progress: without a terminal there are plain lines at growing intervals, without control characters") {
  Screen screen;
  {
    Progress progress(36000, 0, screen.output(false));
    for (int i = 1; i <= 36000; ++i) {  // ten hours
      screen.now += 1;
      progress.update(i, 0.25, 1e-3, 64);
    }
  }
  CHECK(!has(screen.written, "\x1b"));
  CHECK(!has(screen.written, "\r"));
  const size_t lines = count(screen.written, "\n");
  CHECK(lines > 100);
  CHECK(lines < 200);
  CHECK(has(screen.written, "    9/36000") == false);
  CHECK(screen.written.starts_with("   10/36000    0.0%  loss 0.2500  lr 1.0e-03  64 jets/s  9:59:50 left\n"));
  CHECK(screen.written.ends_with("36000/36000  100.0%  loss 0.2500  lr 1.0e-03  64 jets/s  in 10:00:00\n"));
  CHECK(count(screen.written, "36000/36000") == 1);
}

TEST_CASE("progress: log lines between clear and redraw stay whole") {
  Screen screen;
  Progress progress(10, 0, screen.output(true));
  progress.update(1, 0.5, 1e-3, 8);
  progress.clear();
  screen.written += "short\n";
  progress.redraw();
  screen.now += 1;
  progress.update(2, 0.5, 1e-3, 8);
  progress.finish();
  progress.clear();
  progress.redraw();
  progress.update(3, 0.5, 1e-3, 8);
  screen.written += "after";
  const auto rows = screen.rows();
  REQUIRE(rows.size() == 3);
  CHECK(rows[0] == "short");
  CHECK(rows[1].starts_with(" 2/10 "));
  CHECK(rows[2] == "after");
}

TEST_CASE("progress: nothing is shown before the first iteration") {
  Screen screen;
  {
    Progress progress(10, 0, screen.output(true));
    progress.clear();
    progress.redraw();
  }
  CHECK(screen.written.empty());
}

TEST_CASE("progress: an error that ends the training finds its own line") {
  Screen screen;
  try {
    Progress progress(10, 0, screen.output(true));
    progress.update(1, 0.5, 1e-3, 8);
    throw std::runtime_error("diverged");
  } catch (const std::runtime_error& error) {
    screen.written += error.what();
  }
  CHECK(screen.rows().back() == "diverged");
}

TEST_CASE("progress: the line fits terminals of every width") {
  for (int width = 1; width <= 140; ++width) {
    CAPTURE(width);
    Screen screen;
    screen.width = width;
    Progress progress(300000, 0, screen.output(true));
    for (int i = 1; i <= 3; ++i) {
      screen.now += 1;
      progress.update(100000 + i, 123456.789, 1e-4, 1000000);
    }
    CHECK(screen.rows().size() == 1);
    CHECK(screen.rows()[0].size() <= size_t(std::max(width - 1, 1)));
    if (width > 14) CHECK(screen.rows()[0].starts_with("100003/300000"));
    if (width > 30) CHECK(has(screen.rows()[0], "loss 1.235e+05"));
  }
}

TEST_CASE("progress: a shorter line leaves nothing of a longer one") {
  Screen screen;
  Progress progress(1000000, 0, screen.output(true));
  for (int i : {1, 2, 999999}) {  // from days to seconds left
    screen.now += 1;
    progress.update(i, 1, 1, 1);
  }
  CHECK(screen.rows()[0].ends_with(" 0:00 left"));
}

TEST_CASE("progress: a terminal made narrower while it runs") {
  Screen screen;
  Progress progress(100, 0, screen.output(true));
  progress.update(1, 1, 1, 1);
  screen.width = 30;
  screen.written.clear();
  screen.now += 1;
  progress.update(2, 1, 1, 1);
  CHECK(screen.rows().size() == 1);
}

TEST_CASE("progress: colour and block characters only where asked for") {
  Screen plain, rich;
  {
    Progress a(10, 0, plain.output(true)), b(10, 0, rich.output(true, true, true));
    a.update(5, 1, 1, 1);
    b.update(5, 1, 1, 1);
  }
  CHECK(!has(plain.written, "\x1b[36m"));
  for (char c : plain.written) CHECK(static_cast<unsigned char>(c) < 0x80);
  CHECK(has(rich.written, "\x1b[36m"));
  CHECK(count(rich.written, "\x1b[36m") == count(rich.written, "\x1b[0m"));
  CHECK(has(rich.written, "━"));
}

TEST_CASE("progress: a resumed run counts only its own iterations for the time left") {
  Screen screen;
  Progress progress(1000, 900, screen.output(true));
  for (int i = 901; i <= 910; ++i) {
    screen.now += 1;
    progress.update(i, 1, 1, 1);
  }
  CHECK(has(screen.rows()[0], "1:30 left"));
}

TEST_CASE("progress: the rate follows a change of speed") {
  Screen screen;
  Progress progress(100000, 0, screen.output(true));
  int i = 0;
  for (; i < 100; ++i) screen.now += 1, progress.update(i, 1, 1, 10);
  for (; i < 3000; ++i) screen.now += 0.1, progress.update(i, 1, 1, 10);
  CHECK(has(screen.rows()[0], "100 jets/s"));
}

TEST_CASE("progress: odd numbers neither crash nor hang") {
  for (int64_t total : {int64_t(-5), int64_t(0), int64_t(1), std::numeric_limits<int64_t>::max()})
    for (int64_t iteration : {int64_t(-1), int64_t(0), int64_t(7), std::numeric_limits<int64_t>::max()}) {
      Screen screen;
      Progress progress(total, 0, screen.output(true));
      progress.update(iteration, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 0);
      screen.now += 1;
      progress.update(iteration, -1e300, 0, std::numeric_limits<int>::max());
      progress.finish();
      CHECK(screen.rows().size() == 2);
    }
}

TEST_CASE("progress: durations") {
  CHECK(duration_text(0) == "0:00");
  CHECK(duration_text(59.6) == "1:00");
  CHECK(duration_text(3599) == "59:59");
  CHECK(duration_text(3600) == "1:00:00");
  CHECK(duration_text(99 * 3600 + 59 * 60) == "99:59:00");
  CHECK(duration_text(100 * 3600) == "4 d 4 h");
  CHECK(duration_text(-1) == "?");
  CHECK(duration_text(std::numeric_limits<double>::infinity()) == "?");
  CHECK(duration_text(std::numeric_limits<double>::quiet_NaN()) == "?");
}
