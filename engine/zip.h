#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/file.h"

namespace lightcone {

/// Entries of a zip archive, stored or deflated, zip64 included. Opening reads the central directory, which must lie
/// as a whole in the file; every malformed byte that matters gives an Error with its offset.
class ZipReader {
 public:
  struct Entry {
    std::string name;
    uint64_t size = 0;        ///< of the data
    uint64_t compressed = 0;  ///< in the file
    uint64_t header = 0;      ///< offset of the local header
    uint32_t crc = 0;
    uint16_t flags = 0, method = 0;
  };
  explicit ZipReader(const Path& path);
  const std::string& path() const { return file_->path(); }
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry* find(std::string_view name) const;  ///< nullptr if there is none

  /// The entry's data, decompressed as it is read; its checksum is compared when the last byte is read. Keeps the file
  /// open on its own. A declared size that the compressed bytes cannot yield is an Error here, before any is read.
  std::unique_ptr<Source> open(const Entry& entry) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<Entry> entries_;
  uint64_t directory_ = 0;  // offset; entries end before
};

/// Writes an archive of stored entries, the same bytes for the same data. Below 4 GiB, else Error.
class ZipWriter {
 public:
  explicit ZipWriter(Writer& out) : out_(out) {}
  /// An entry whose data is `head` followed by `body`.
  void add(std::string_view name, Bytes head, Bytes body);
  void finish();

 private:
  void write(const void* data, size_t bytes);
  Writer& out_;
  uint64_t written_ = 0;
  uint16_t entries_ = 0;
  std::string directory_;
};

}  // namespace lightcone
