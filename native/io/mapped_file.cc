// SPDX-License-Identifier: Apache-2.0
// MappedFile on POSIX. A path comes from a stranger as often as from the user, so nothing about it
// may block: a FIFO without a writer, a terminal and an endless device are all refused at once.
#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace maestrale {
namespace {

// strerror() shares a buffer between threads; this does not.
std::string reason(int error) { return std::generic_category().message(error); }

// The largest single pread: Linux transfers at most 2 GiB - 4 KiB a call in any case.
constexpr size_t kMaxTransfer = size_t{1} << 30;

// Owns the descriptor until the constructor that opened it has succeeded.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  int release() { return std::exchange(fd, -1); }
};

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "a special file";
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  if (path.empty()) throw Error(ErrorCode::kInvalidArg, "the file path is empty");
  if (path.find('\0') != std::string::npos)
    throw Error(ErrorCode::kInvalidArg, "the file path contains a NUL character");

  // O_NONBLOCK lets the open of a FIFO return; it changes nothing for a regular file. Checking the
  // open descriptor, not the path, leaves no moment in which the file could be exchanged.
  Descriptor descriptor{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
  if (descriptor.fd < 0) throw Error(ErrorCode::kInvalidArg, "cannot open '" + path + "': " + reason(errno));
  struct stat status;
  if (::fstat(descriptor.fd, &status) != 0)
    throw Error(ErrorCode::kInvalidArg, "cannot examine '" + path + "': " + reason(errno));
  if (!S_ISREG(status.st_mode))
    throw Error(ErrorCode::kModelFormat,
                "'" + path + "' is " + kind_of(status.st_mode) + ", but a regular file is needed");
  if (status.st_size <= 0) throw Error(ErrorCode::kModelFormat, "'" + path + "' is empty (0 bytes)");

  size_ = uint64_t(status.st_size);
  if (size_ > SIZE_MAX)
    throw Error(ErrorCode::kModelUnsupported,
                "'" + path + "' has " + std::to_string(size_) + " bytes, more than this machine can address");
  void* mapping = ::mmap(nullptr, size_t(size_), PROT_READ, MAP_PRIVATE, descriptor.fd, 0);
  if (mapping == MAP_FAILED)
    throw Error(errno == ENOMEM ? ErrorCode::kOutOfMemory : ErrorCode::kInvalidArg,
                "cannot map '" + path + "' (" + std::to_string(size_) + " bytes): " + reason(errno));
  data_ = static_cast<const std::byte*>(mapping);
  fd_ = descriptor.release();
}

MappedFile::~MappedFile() {
  ::munmap(const_cast<std::byte*>(data_), size_t(size_));
  ::close(fd_);
}

void MappedFile::read(uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset)
    throw Error(ErrorCode::kModelFormat, "reading " + std::to_string(out.size()) + " bytes at byte " +
                                             std::to_string(offset) + " passes the end of '" + path_ + "' (" +
                                             std::to_string(size_) + " bytes)");
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), std::min(out.size(), kMaxTransfer), off_t(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(ErrorCode::kModelFormat,
                  "reading '" + path_ + "' failed at byte " + std::to_string(offset) + ": " + reason(errno));
    if (n == 0)
      throw Error(ErrorCode::kModelFormat, "'" + path_ +
                                               "' became shorter while it was read: it ends at byte " +
                                               std::to_string(offset) + " of " + std::to_string(size_));
    offset += uint64_t(n);
    out = out.subspan(size_t(n));
  }
}

}  // namespace maestrale
