#include "engine/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

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

class FileWriter : public Writer {
 public:
  FileWriter(int fd, const std::string& path) : fd_(fd), path_(path) {}
  using Writer::write;
  void write(const void* data, size_t bytes) override {
    auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t n = ::write(fd_, from, bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(path_, "cannot be written: {}", std::strerror(errno));
      from += n;
      bytes -= n;
    }
  }

 private:
  int fd_;
  const std::string& path_;
};

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
  const Path folder = path.has_parent_path() ? path.parent_path() : Path(".");
  const std::string temporary =
      (folder / fmt::format(".{}.{}.{}.tmp", path.filename().string(), ::getpid(), serial++)).string();
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.fd < 0) fail(name, "cannot be written: {}: {}", folder.string(), std::strerror(errno));
  try {
    FileWriter writer(file.fd, name);
    fill(writer);
    if (::fsync(file.fd) != 0 || file.close() != 0 || std::rename(temporary.c_str(), name.c_str()) != 0)
      fail(name, "cannot be written: {}", std::strerror(errno));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  // Makes the rename itself survive a power cut. Some file systems cannot, and the file is complete either way.
  Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.fd >= 0) ::fsync(directory.fd);
}

void write_atomic(const Path& path, std::string_view bytes) {
  write_atomic(path, [&](Writer& out) { out.write(bytes); });
}

std::unique_ptr<Source> open_source(const Path& path) { return std::make_unique<FileSource>(path); }

}  // namespace lightcone
