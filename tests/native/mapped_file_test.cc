// SPDX-License-Identifier: Apache-2.0
// MappedFile: contents, and paths that are no ordinary file.
#include "io/mapped_file.h"

#include <sys/stat.h>

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "expect_error.h"
#include "temp_dir.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

const std::vector<std::byte> kContent = [] {
  std::vector<std::byte> bytes(10000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i * 7 % 251);
  return bytes;
}();

}  // namespace

TEST("mapped_file: mapping and read give the bytes of the file") {
  TempDir dir;
  const MappedFile file(dir.write("data", kContent));
  CHECK_EQ(file.size(), 10000u);
  CHECK(std::equal(file.bytes().begin(), file.bytes().end(), kContent.begin(), kContent.end()));
  std::vector<std::byte> part(4321);
  file.read(1234, part);
  CHECK(std::equal(part.begin(), part.end(), kContent.begin() + 1234));
  file.read(10000, std::span<std::byte>());  // nothing at the very end is no error
}

TEST("mapped_file: a symbolic link to a file is followed") {
  TempDir dir;
  dir.write("data", kContent);
  std::filesystem::create_symlink("data", dir.path("link"));
  CHECK_EQ(MappedFile(dir.path("link")).size(), 10000u);
}

TEST("mapped_file: reading past the end is refused, also when the sum overflows") {
  TempDir dir;
  const MappedFile file(dir.write("data", kContent));
  std::vector<std::byte> out(2);
  for (const uint64_t offset : {uint64_t{9999}, uint64_t{10000}, UINT64_MAX, UINT64_MAX - 1})
    expect_error("offset " + std::to_string(offset), ErrorCode::kModelFormat, "passes the end",
                 [&] { file.read(offset, out); });
}

TEST("mapped_file: a file that shrinks after it was opened is an error, not a signal") {
  TempDir dir;
  const std::string path = dir.write("data", kContent);
  const MappedFile file(path);
  std::filesystem::resize_file(path, 5000);
  std::vector<std::byte> out(100);
  file.read(4900, out);
  expect_error("shrunk", ErrorCode::kModelFormat, "ends at byte 5000 of 10000",
               [&] { file.read(4950, out); });
}

TEST("mapped_file: what is no regular file is refused without blocking") {
  TempDir dir;
  // Without a writer, a blocking open of a FIFO would never return.
  CHECK_EQ(::mkfifo(dir.path("fifo").c_str(), 0600), 0);
  const auto open = [](const std::string& path) { return [path] { MappedFile file(path); }; };
  expect_error("FIFO", ErrorCode::kModelFormat, "is a FIFO", open(dir.path("fifo")));
  expect_error("directory", ErrorCode::kModelFormat, "is a directory", open(dir.path("")));
  expect_error("device", ErrorCode::kModelFormat, "is a device", open("/dev/zero"));
  expect_error("empty", ErrorCode::kModelFormat, "is empty", open(dir.write("empty", {})));
}

TEST("mapped_file: paths that cannot be opened name the reason") {
  TempDir dir;
  const auto open = [](const std::string& path) { return [path] { MappedFile file(path); }; };
  expect_error("missing", ErrorCode::kInvalidArg, "No such file", open(dir.path("missing")));
  expect_error("no path", ErrorCode::kInvalidArg, "path is empty", open(""));
  expect_error("NUL", ErrorCode::kInvalidArg, "NUL character",
               open(dir.write("data", kContent) + std::string("\0x", 2)));
  std::filesystem::create_symlink("loop", dir.path("loop"));
  expect_error("link loop", ErrorCode::kInvalidArg, "symbolic links", open(dir.path("loop")));
}
