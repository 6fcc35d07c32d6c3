// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"

namespace maestrale {
namespace {

constexpr size_t kWriteBytes = size_t{4} << 20;  // between two calls of before_write

}  // namespace

std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> count{0};
  return path + "." + std::to_string(::getpid()) + "-" + std::to_string(count++) + ".tmp";
}

// File systems that cannot do that rename durably anyway.
void sync_directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const int fd = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

AtomicFile::AtomicFile(const std::string& path, std::function<void()> before_write)
    : path_(path), temporary_(temporary_name(path)), before_write_(std::move(before_write)) {
  const std::filesystem::path name(path);
  std::error_code absent;
  if (!name.has_filename() || std::filesystem::is_directory(name, absent))
    throw Error(ErrorCode::kInvalidArg, "'" + path + "' is a directory, where a file is to be written");
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("create");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (before_write_) before_write_();
    const ssize_t n = ::write(fd_, bytes.data(), std::min(bytes.size(), kWriteBytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("write");
    bytes = bytes.subspan(size_t(n));
    written_ += uint64_t(n);
  }
}

void AtomicFile::pad_to(uint64_t offset) {
  if (offset <= written_) return;
  const std::vector<std::byte> zeros(size_t(offset - written_));
  write(zeros);
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename");
  ::close(std::exchange(fd_, -1));
  sync_directory_of(path_);
}

void AtomicFile::fail(const char* verb) const {
  throw Error(ErrorCode::kInvalidArg,
              "cannot " + std::string(verb) + " '" + path_ + "': " + std::generic_category().message(errno));
}

}  // namespace maestrale
