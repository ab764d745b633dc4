#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lightcone {

using Path = std::filesystem::path;
using Bytes = std::span<const unsigned char>;

/// Read-only view of a whole file, mapped into memory until destruction. Throws Error if the path cannot be read or is
/// not a regular file. The file must not shrink meanwhile; files that Lightcone writes are replaced, never changed.
class MappedFile {
 public:
  explicit MappedFile(const Path& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();
  const std::string& path() const { return path_; }
  Bytes bytes() const { return bytes_; }

 private:
  std::string path_;
  Bytes bytes_;
};

std::string read_file(const Path& path);

/// Takes the bytes of a file that is being written; write() throws Error when the disk is full.
class Writer {
 public:
  virtual ~Writer() = default;
  virtual void write(const void* data, size_t bytes) = 0;
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write(Bytes bytes) { write(bytes.data(), bytes.size()); }
};

/// Writes the file as a whole or not at all: a temporary file .<name>.<process>.<n>.tmp in the same folder, fsync,
/// rename, fsync of the folder. A kill may leave the temporary file.
/// Whatever fails (or `fill` throws), the temporary file goes and an older file at `path` stays as it was. The
/// folder must exist.
void write_atomic(const Path& path, const std::function<void(Writer&)>& fill);
void write_atomic(const Path& path, std::string_view bytes);

/// Adds to the end of a file with no buffer in between: whatever was written is there after a kill, and a write that
/// fails throws Error at once.
class Appender : public Writer {
 public:
  /// Creates the file. Of one that is there, the first `keep` bytes stay.
  explicit Appender(const Path& path, std::optional<uint64_t> keep = std::nullopt);
  Appender(const Appender&) = delete;
  Appender& operator=(const Appender&) = delete;
  ~Appender() override;
  using Writer::write;
  void write(const void* data, size_t bytes) override;

 private:
  std::string path_;
  int fd_;
};

/// Holds a file's lock until destruction, or until the process ends in whatever way (flock). Throws Error naming the
/// process that holds it already and goes on to, for two seconds: one that was killed while it started another
/// (gnuplot) leaves the lock to that one for an instant. Where the file system has no locks, held() is false and
/// nothing is locked.
class FileLock {
 public:
  explicit FileLock(const Path& path);
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();
  bool held() const { return held_; }

 private:
  int fd_;
  bool held_ = false;
};

/// Makes what was renamed or created in a folder survive a power cut, where the file system can.
void sync_folder(const Path& folder);

/// Deletes what a killed write_atomic left in a folder. Only for who holds the folder's lock.
void remove_temporaries(const Path& folder);

/// Throws Error if a file at `path` could not be written: its folder is missing or read-only, or a folder is in the
/// way.
void check_writable(const Path& path);

/// The bytes of a file, or of an entry in an archive, in order.
class Source {
 public:
  virtual ~Source() = default;
  /// The next `bytes` bytes. Throws Error if fewer are left or if they are damaged.
  virtual void read(void* to, size_t bytes) = 0;
  virtual uint64_t left() const = 0;
  /// File and offset of the next byte, for error messages.
  virtual std::string where() const = 0;
};

std::unique_ptr<Source> open_source(const Path& path);

}  // namespace lightcone
