// SPDX-License-Identifier: Apache-2.0
// A read-only file: mapped for its header, read with pread for its bulk data. Bulk reads survive a file
// that shrinks meanwhile; touching the mapping beyond its new end would not, so only headers, which
// are read once right after the file is opened, go through it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace maestrale {

class MappedFile {
 public:
  // Opens a regular file; directories, FIFOs and devices are refused. Throws Error{kModelFormat} when the
  // file is empty or no regular file, Error{kInvalidArg} when it cannot be opened.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_t(size_)}; }

  // Copies [offset, offset + out.size()) with pread, from any thread. A file that shrank or whose disk
  // fails throws Error{kModelFormat}, where touching the mapping would raise SIGBUS.
  void read(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  const std::byte* data_ = nullptr;
};

}  // namespace maestrale
