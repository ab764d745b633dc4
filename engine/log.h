#pragma once
#include <spdlog/logger.h>

#include <memory>

#include "engine/file.h"

namespace lightcone {

/// A logger that prints to the terminal and, once the run's folder is known, to a file as well; what was logged before
/// goes into the file first.
///
///     Log log;
///     log->info("Using {} threads", threads);
///     log.to_file(folder / "out_0.log");
///
/// Lines read "[2025-03-01 12:00:00 I] text" and are in the file at once. A line that the file does not take throws
/// Error, the first time. Handed on as a pointer; nothing is registered globally.
class Log {
 public:
  /// `terminal` = false logs to the file only (tests, all ranks but the first).
  explicit Log(bool terminal = true);
  /// Appends to `path` from now on. Throws Error if that is not possible.
  void to_file(const Path& path);
  const std::shared_ptr<spdlog::logger>& pointer() const { return logger_; }
  /// From now on nothing is printed to the terminal.
  void file_only();
  /// Whether it prints to the terminal.
  bool terminal() const { return terminal_; }
  spdlog::logger* operator->() const { return logger_.get(); }

 private:
  class FileSink;
  std::shared_ptr<FileSink> file_;
  bool terminal_;
  std::shared_ptr<spdlog::logger> logger_;
};

}  // namespace lightcone
