#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
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

/// Writes the file as a whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder.
/// Whatever fails (or `fill` throws), the temporary file goes and an older file at `path` stays as it was. The
/// folder must exist.
void write_atomic(const Path& path, const std::function<void(Writer&)>& fill);
void write_atomic(const Path& path, std::string_view bytes);

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
