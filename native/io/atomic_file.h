// SPDX-License-Identifier: Apache-2.0
// A file that takes its name when it is complete and on disk; until then, and after a failure, whatever had
// the name before keeps it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace maestrale {

// A name beside `path` for what is to become it, unique among those that this process hands out: it may write
// the same path twice at a time.
std::string temporary_name(const std::string& path);

// Puts the directory that holds `path` on disk: until then a rename is not.
void sync_directory_of(const std::string& path);

class AtomicFile {
 public:
  // Writes go to a file beside `path`, which is removed unless commit() succeeds. `before_write` is called
  // every few megabytes and may throw to give up. Throws Error{kInvalidArg} when the file cannot be created.
  explicit AtomicFile(const std::string& path, std::function<void()> before_write = {});
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Bytes written so far.
  uint64_t size() const { return written_; }

  // Throws Error{kInvalidArg} with the system's reason, e.g. a full disk; so does commit().
  void write(std::span<const std::byte> bytes);
  void pad_to(uint64_t offset);  // with zeros
  // Puts the file on disk, then in place of what had the name, and that on disk too.
  void commit();

 private:
  [[noreturn]] void fail(const char* verb) const;

  const std::string path_, temporary_;
  const std::function<void()> before_write_;
  int fd_ = -1;
  uint64_t written_ = 0;
};

}  // namespace maestrale
