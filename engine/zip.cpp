#include "engine/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "engine/error.h"

namespace lightcone {

namespace {
// Layouts: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16.
constexpr uint32_t local_signature = 0x04034b50, central_signature = 0x02014b50, end_signature = 0x06054b50;
constexpr uint32_t end64_signature = 0x06064b50, locator64_signature = 0x07064b50;
constexpr size_t local_size = 30, central_size = 46, end_size = 22, end64_size = 56, locator64_size = 20;
constexpr uint64_t deflate_ratio = 1032;  // a deflate stream yields at most 1032 bytes a byte
constexpr uint16_t stored = 0, deflated = 8, encrypted = 1;

/// Little-endian numbers at offsets of the file; whatever lies outside is an Error.
class Fields {
 public:
  explicit Fields(const MappedFile& file) : file_(file) {}
  template <class T>
  T get(uint64_t offset) const {
    T value;
    std::memcpy(&value, slice(offset, sizeof(T)).data(), sizeof(T));
    return value;
  }
  Bytes slice(uint64_t offset, uint64_t length) const {
    const Bytes all = file_.bytes();
    if (offset > all.size() || length > all.size() - offset)
      fail(file_.path(), "byte {}: {} bytes expected, but the file has {} in all; it is cut off or damaged", offset,
           length, all.size());
    return all.subspan(offset, length);
  }
  std::string text(uint64_t offset, uint64_t length) const {
    const Bytes b = slice(offset, length);
    return {b.begin(), b.end()};
  }
  void signature(uint64_t offset, uint32_t expected, const char* what) const {
    if (get<uint32_t>(offset) != expected) fail(file_.path(), "byte {}: expected {}", offset, what);
  }

 private:
  const MappedFile& file_;
};

class EntrySource : public Source {
 public:
  EntrySource(std::shared_ptr<const MappedFile> file, const ZipReader::Entry& entry, uint64_t offset)
      : file_(std::move(file)), entry_(entry), offset_(offset) {
    in_ = file_->bytes().subspan(offset, entry.compressed);
    // Negative window bits: a raw deflate stream, without zlib's own header.
    if (entry_.method == deflated && inflateInit2(stream_.get(), -MAX_WBITS) != Z_OK) throw Error("zlib: no memory");
    if (entry_.size == 0) finish();
  }

  void read(void* to, size_t bytes) override {
    if (bytes == 0) return;
    if (bytes > left()) fail(where(), "{} bytes expected, the entry has {} left", bytes, left());
    auto* out = static_cast<unsigned char*>(to);
    while (bytes > 0) {
      const size_t n = entry_.method == stored ? copy(out, bytes) : inflate(out, bytes);
      if (n == 0) fail(where(), "the compressed data ends before the {} bytes that the entry declares", entry_.size);
      crc_ = static_cast<uint32_t>(crc32_z(crc_, out, n));
      out += n;
      bytes -= n;
      position_ += n;
    }
    if (position_ == entry_.size) finish();
  }
  uint64_t left() const override { return entry_.size - position_; }
  std::string where() const override {
    return fmt::format("{}: {}: byte {} (file: byte {})", file_->path(), entry_.name, position_, offset_);
  }

 private:
  size_t copy(unsigned char* out, size_t bytes) {
    std::copy_n(in_.begin(), bytes, out);
    consume(bytes);
    return bytes;
  }
  void consume(size_t bytes) {
    in_ = in_.subspan(bytes);
    offset_ += bytes;
  }
  size_t inflate(unsigned char* out, size_t bytes) {
    constexpr size_t piece = 1u << 30;  // zlib counts in 32 bits
    const uInt give = static_cast<uInt>(std::min(in_.size(), piece)), take = static_cast<uInt>(std::min(bytes, piece));
    stream_->next_in = const_cast<unsigned char*>(in_.data());
    stream_->avail_in = give;
    stream_->next_out = out;
    stream_->avail_out = take;
    const int result = ::inflate(stream_.get(), Z_NO_FLUSH);
    consume(give - stream_->avail_in);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      fail(where(), "the compressed data is damaged ({})", stream_->msg ? stream_->msg : "zlib");
    ended_ = result == Z_STREAM_END;
    return take - stream_->avail_out;
  }
  void finish() {
    unsigned char more;
    if (entry_.method == deflated && !ended_ && (inflate(&more, 1) != 0 || !ended_))
      fail(where(), "the compressed data does not end after the {} bytes that the entry declares", entry_.size);
    if (!in_.empty()) fail(where(), "{} bytes stand behind the compressed data", in_.size());
    if (crc_ != entry_.crc) fail(where(), "checksum {:08x}, expected {:08x}; the data is damaged", crc_, entry_.crc);
  }

  std::shared_ptr<const MappedFile> file_;
  ZipReader::Entry entry_;
  Bytes in_;         // what is not consumed yet
  uint64_t offset_;  // of in_, in the file
  uint64_t position_ = 0;
  uint32_t crc_ = 0;
  bool ended_ = false;
  struct InflateEnd {
    void operator()(z_stream* s) const {
      inflateEnd(s);
      delete s;
    }
  };
  std::unique_ptr<z_stream, InflateEnd> stream_{new z_stream{}};
};

/// Where the central directory lies, from the record at the end of the file.
struct Directory {
  uint64_t entries, bytes, offset;
};
Directory find_directory(const MappedFile& file, const Fields& f) {
  const uint64_t size = file.bytes().size();
  const uint64_t earliest = size > end_size + 0xffff ? size - end_size - 0xffff : 0;  // a comment may follow
  for (uint64_t at = size < end_size ? 0 : size - end_size + 1; at-- > earliest;) {
    if (f.get<uint32_t>(at) != end_signature || at + end_size + f.get<uint16_t>(at + 20) != size) continue;
    if (at >= locator64_size && f.get<uint32_t>(at - locator64_size) == locator64_signature) {
      const auto end64 = f.get<uint64_t>(at - locator64_size + 8);
      f.signature(end64, end64_signature, "the zip64 end of the directory");
      f.slice(end64, end64_size);
      return {f.get<uint64_t>(end64 + 32), f.get<uint64_t>(end64 + 40), f.get<uint64_t>(end64 + 48)};
    }
    if (f.get<uint16_t>(at + 4) != 0) fail(file.path(), "byte {}: an archive of several files", at + 4);
    return {f.get<uint16_t>(at + 10), f.get<uint32_t>(at + 12), f.get<uint32_t>(at + 16)};
  }
  fail(file.path(), "byte {}: no end of a zip directory; the file is cut off or no zip or npz file", size);
}

/// Sizes and offset beyond 32 bits stand in an extra field, those that need it in this order.
void read_zip64(const std::string& path, const Fields& f, uint64_t at, uint64_t length, ZipReader::Entry& e) {
  const uint64_t end = at + length;
  while (at + 4 <= end) {
    const uint64_t id = f.get<uint16_t>(at), size = f.get<uint16_t>(at + 2);
    if (at + 4 + size > end) break;
    if (id == 1) {
      uint64_t from = at + 4;
      for (uint64_t* value : {&e.size, &e.compressed, &e.header}) {
        if (*value != 0xffffffff) continue;
        if (from + 8 > at + 4 + size) fail(path, "byte {}: the zip64 field is too short", at);
        *value = f.get<uint64_t>(from);
        from += 8;
      }
    }
    at += 4 + size;
  }
}
}  // namespace

ZipReader::ZipReader(const Path& path) : file_(std::make_shared<MappedFile>(path)) {
  const Fields f(*file_);
  const Directory directory = find_directory(*file_, f);
  f.slice(directory.offset, directory.bytes);
  directory_ = directory.offset;
  const uint64_t end = directory.offset + directory.bytes;
  std::set<std::string_view> names;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (at + central_size > end)
      fail(this->path(), "byte {}: the directory ends after {} of {} entries", at, i, directory.entries);
    f.signature(at, central_signature, "an entry of the directory");
    Entry e;
    e.flags = f.get<uint16_t>(at + 8);
    e.method = f.get<uint16_t>(at + 10);
    e.crc = f.get<uint32_t>(at + 16);
    e.compressed = f.get<uint32_t>(at + 20);
    e.size = f.get<uint32_t>(at + 24);
    e.header = f.get<uint32_t>(at + 42);
    const uint64_t name = f.get<uint16_t>(at + 28), extra = f.get<uint16_t>(at + 30), note = f.get<uint16_t>(at + 32);
    if (at + central_size + name + extra + note > end)
      fail(this->path(), "byte {}: entry {} does not fit into the directory", at, i);
    e.name = f.text(at + central_size, name);
    read_zip64(this->path(), f, at + central_size + name, extra, e);
    entries_.push_back(std::move(e));
    at += central_size + name + extra + note;
  }
  for (const Entry& e : entries_)
    if (!names.insert(e.name).second) fail(this->path(), "two entries are named '{}'", e.name);
}

const ZipReader::Entry* ZipReader::find(std::string_view name) const {
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](auto& e) { return e.name == name; });
  return it == entries_.end() ? nullptr : &*it;
}

std::unique_ptr<Source> ZipReader::open(const Entry& e) const {
  const Fields f(*file_);
  f.signature(e.header, local_signature, "an entry");
  const uint64_t name = f.get<uint16_t>(e.header + 26), extra = f.get<uint16_t>(e.header + 28);
  if (f.text(e.header + local_size, name) != e.name)
    fail(path(), "byte {}: expected the entry '{}', another one is here", e.header, e.name);
  if (e.flags & encrypted) fail(path(), "byte {}: '{}' is encrypted", e.header, e.name);
  if (e.method != stored && e.method != deflated)
    fail(path(), "byte {}: '{}' is compressed by method {}, expected stored (0) or deflate (8)", e.header, e.name,
         e.method);
  const uint64_t data = e.header + local_size + name + extra;
  if (data > directory_ || e.compressed > directory_ - data)
    fail(path(), "byte {}: '{}' has {} bytes, which reach into the directory at byte {}", data, e.name, e.compressed,
         directory_);
  if (e.method == stored ? e.size != e.compressed : e.size / deflate_ratio > e.compressed)
    fail(path(), "byte {}: '{}' cannot have {} bytes in {} of the file", data, e.name, e.size, e.compressed);
  return std::make_unique<EntrySource>(file_, e, data);
}

namespace {
template <class T>
std::string packed(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}
}  // namespace

void ZipWriter::write(const void* data, size_t bytes) {
  if (written_ + bytes > 0xfffffffe) throw Error("zip: an archive of more than 4 GiB; write safetensors instead");
  out_.write(data, bytes);
  written_ += bytes;
}

void ZipWriter::add(std::string_view name, Bytes head, Bytes body) {
  if (name.size() > 0xffff || entries_ == 0xfffe) throw Error("zip: too many entries, or a name too long");
  const uint32_t crc = static_cast<uint32_t>(crc32_z(crc32_z(0, head.data(), head.size()), body.data(), body.size()));
  const uint32_t size = static_cast<uint32_t>(head.size() + body.size()), offset = static_cast<uint32_t>(written_);
  // Version 2.0, names in UTF-8, stored, at midnight of 1 January 1980.
  const std::string common = packed<uint16_t>({20, 0x800, stored, 0, 0x21}) + packed<uint32_t>({crc, size, size}) +
                             packed<uint16_t>({static_cast<uint16_t>(name.size()), 0});
  const std::string header = packed({local_signature}) + common + std::string(name);
  write(header.data(), header.size());
  write(head.data(), head.size());
  write(body.data(), body.size());
  directory_ += packed({central_signature}) + packed<uint16_t>({20}) + common + packed<uint16_t>({0, 0, 0}) +
                packed<uint32_t>({0, offset}) + std::string(name);
  ++entries_;
}

void ZipWriter::finish() {
  const uint32_t offset = static_cast<uint32_t>(written_), size = static_cast<uint32_t>(directory_.size());
  write(directory_.data(), directory_.size());
  const std::string end = packed({end_signature}) + packed<uint16_t>({0, 0, entries_, entries_}) +
                          packed({size, offset}) + packed<uint16_t>({0});
  write(end.data(), end.size());
}

}  // namespace lightcone
