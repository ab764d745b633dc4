#include "engine/log.h"

#include <spdlog/details/log_msg_buffer.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
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
    try {
      file_ = std::make_shared<spdlog::sinks::basic_file_sink_st>(path.string());
    } catch (const spdlog::spdlog_ex& e) {
      fail(path.string(), "the log cannot be written: {}", e.what());
    }
    file_->set_formatter(formatter_->clone());
    for (const auto& message : kept_) file_->log(message);
    file_->flush();
    kept_.clear();
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (file_)
      file_->log(message);
    else
      kept_.emplace_back(message);
  }
  void flush_() override {
    if (file_) file_->flush();
  }
  std::vector<spdlog::details::log_msg_buffer> kept_;
  std::shared_ptr<spdlog::sinks::basic_file_sink_st> file_;
};

Log::Log(bool terminal)
    : file_(std::make_shared<FileSink>()),
      terminal_(terminal),
      logger_(std::make_shared<spdlog::logger>("lightcone", file_)) {
  if (terminal) logger_->sinks().push_back(std::make_shared<spdlog::sinks::stdout_color_sink_mt>());
  logger_->set_pattern("[%Y-%m-%d %H:%M:%S %L] %v");
  logger_->set_level(spdlog::level::debug);
  logger_->flush_on(spdlog::level::debug);  // a killed run has its last line
}

void Log::file_only() {
  terminal_ = false;
  logger_->sinks().resize(1);  // the file's is the first
}

void Log::to_file(const Path& path) { file_->open(path); }

}  // namespace lightcone
