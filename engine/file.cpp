#include "engine/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "engine/error.h"

namespace lightcone {

namespace {
struct Descriptor {
  int fd;
  explicit Descriptor(int f) : fd(f) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  int close() {
    const int result = fd < 0 ? 0 : ::close(fd);
    fd = -1;
    return result;
  }
};

// What the system says, and what to do about it.
std::string reason(int error) {
  const char* advice = error == ENOSPC || error == EDQUOT                    ? "; make room on this disk"
                       : error == EFBIG                                      ? "; raise the limit (ulimit -f)"
                       : error == EACCES || error == EPERM || error == EROFS ? "; choose a folder that is yours"
                       : error == ENOENT                                     ? "; was the folder deleted?"
                       : error == ENAMETOOLONG                               ? "; choose a shorter name"
                                                                             : "";
  return fmt::format("{}{}", std::strerror(error), advice);
}

void write_all(int fd, const void* data, size_t bytes, const std::string& path) {
  auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd, from, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "cannot be written: {}", reason(errno));
    from += n;
    bytes -= n;
  }
}

class FileWriter : public Writer {
 public:
  FileWriter(int fd, const std::string& path) : fd_(fd), path_(path) {}
  using Writer::write;
  void write(const void* data, size_t bytes) override { write_all(fd_, data, bytes, path_); }

 private:
  int fd_;
  const std::string& path_;
};

Path folder_of(const Path& path) { return path.has_parent_path() ? path.parent_path() : Path("."); }

class FileSource : public Source {
 public:
  explicit FileSource(const Path& path) : file_(path) {}
  void read(void* to, size_t bytes) override {
    if (bytes > left()) fail(where(), "{} bytes expected, the file has {} left; it is cut off", bytes, left());
    std::copy_n(file_.bytes().begin() + position_, bytes, static_cast<unsigned char*>(to));
    position_ += bytes;
  }
  uint64_t left() const override { return file_.bytes().size() - position_; }
  std::string where() const override { return fmt::format("{}: byte {}", file_.path(), position_); }

 private:
  MappedFile file_;
  uint64_t position_ = 0;
};
}  // namespace

MappedFile::MappedFile(const Path& path) : path_(path.string()) {
  // Without O_NONBLOCK opening a named pipe would wait for a writer.
  Descriptor file(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status;
  if (file.fd < 0 || ::fstat(file.fd, &status) != 0) fail(path_, "cannot be opened: {}", std::strerror(errno));
  if (!S_ISREG(status.st_mode))
    fail(path_, "is {}, expected a file", S_ISDIR(status.st_mode) ? "a folder" : "a device");
  const size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) return;  // an empty mapping is an error to mmap
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) fail(path_, "cannot be mapped: {}", std::strerror(errno));
  bytes_ = {static_cast<const unsigned char*>(data), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<unsigned char*>(bytes_.data()), bytes_.size());
}

std::string read_file(const Path& path) {
  const MappedFile file(path);
  return {file.bytes().begin(), file.bytes().end()};
}

void write_atomic(const Path& path, const std::function<void(Writer&)>& fill) {
  static std::atomic<int> serial = 0;
  const std::string name = path.string();
  const Path folder = folder_of(path);
  const std::string temporary =
      (folder / fmt::format(".{}.{}.{}.tmp", path.filename().string(), ::getpid(), serial++)).string();
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.fd < 0) fail(name, "cannot be written: {}: {}", folder.string(), reason(errno));
  try {
    FileWriter writer(file.fd, name);
    fill(writer);
    if (::fsync(file.fd) != 0 || file.close() != 0 || std::rename(temporary.c_str(), name.c_str()) != 0)
      fail(name, "cannot be written: {}", reason(errno));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(folder);  // the file is complete even where this fails
}

void write_atomic(const Path& path, std::string_view bytes) {
  write_atomic(path, [&](Writer& out) { out.write(bytes); });
}

Appender::Appender(const Path& path, std::optional<uint64_t> keep)
    : path_(path.string()), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) {
  if (fd_ >= 0 && (!keep || ::ftruncate(fd_, static_cast<off_t>(*keep)) == 0)) return;
  const int error = errno;
  if (fd_ >= 0) ::close(fd_);
  fail(path_, "cannot be written: {}", reason(error));
}

Appender::~Appender() { ::close(fd_); }

void Appender::write(const void* data, size_t bytes) { write_all(fd_, data, bytes, path_); }

FileLock::FileLock(const Path& path) : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail(path.string(), "cannot be written: {}", reason(errno));
  char process[32] = {};
  int failed = ::flock(fd_, LOCK_EX | LOCK_NB);
  for (int waits = 0; failed && errno == EWOULDBLOCK && waits < 200; ++waits) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    failed = ::flock(fd_, LOCK_EX | LOCK_NB);
  }
  if (!failed) {
    held_ = true;
    // For the message below; without it the lock holds as well.
    const auto end = fmt::format_to_n(process, sizeof process, "{}", ::getpid()).out;
    [[maybe_unused]] const bool noted =
        ::ftruncate(fd_, 0) == 0 && ::pwrite(fd_, process, static_cast<size_t>(end - process), 0) > 0;
  } else if (errno == EWOULDBLOCK) {
    const bool known = ::pread(fd_, process, sizeof process - 1, 0) > 0;
    ::close(fd_);
    fail(folder_of(path).string(), "is in use by {}; wait until it ends, or end it",
         known ? fmt::format("process {}", process) : "another process");
  }
}

FileLock::~FileLock() { ::close(fd_); }

void sync_folder(const Path& folder) {
  Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.fd >= 0) ::fsync(directory.fd);
}

void remove_temporaries(const Path& folder) {
  std::error_code ignored;
  std::vector<Path> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    if (const std::string name = entry.path().filename().string(); name.starts_with(".") && name.ends_with(".tmp"))
      left.push_back(entry.path());
  for (const auto& path : left) std::filesystem::remove(path, ignored);
}

void check_writable(const Path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) fail(path.string(), "is a folder, expected the name of a file");
  if (::access(folder_of(path).c_str(), W_OK) != 0)
    fail(path.string(), "cannot be written: {}: {}", folder_of(path).string(), reason(errno));
}

std::unique_ptr<Source> open_source(const Path& path) { return std::make_unique<FileSource>(path); }

}  // namespace lightcone
