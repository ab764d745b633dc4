#include "engine/log.h"

#include <spdlog/details/log_msg_buffer.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <mutex>
#include <vector>

#include "engine/error.h"

namespace lightcone {

/// Keeps messages until it is given a file.
class Log::FileSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  void open(const Path& path) {
    std::lock_guard lock(mutex_);
    file_ = std::make_unique<Appender>(path);
    for (const auto& message : std::exchange(kept_, {})) sink_it_(message);
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (!file_) {
      if (!failed_) kept_.emplace_back(message);
      return;
    }
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    try {
      file_->write(text.data(), text.size());
    } catch (...) {
      failed_ = true;  // said once
      file_.reset();
      throw;
    }
  }
  void flush_() override {}
  std::vector<spdlog::details::log_msg_buffer> kept_;
  std::unique_ptr<Appender> file_;
  bool failed_ = false;
};

Log::Log(bool terminal)
    : file_(std::make_shared<FileSink>()),
      terminal_(terminal),
      logger_(std::make_shared<spdlog::logger>("lightcone", file_)) {
  if (terminal) logger_->sinks().push_back(std::make_shared<spdlog::sinks::stdout_color_sink_mt>());
  logger_->set_pattern("[%Y-%m-%d %H:%M:%S %L] %v");
  logger_->set_level(spdlog::level::debug);
  logger_->flush_on(spdlog::level::debug);
  logger_->set_error_handler([](const std::string& message) { throw Error(message); });
}

void Log::file_only() {
  terminal_ = false;
  logger_->sinks().resize(1);  // the file's is the first
}

void Log::to_file(const Path& path) { file_->open(path); }

}  // namespace lightcone
