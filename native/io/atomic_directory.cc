// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_directory.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <span>
#include <system_error>

#include "base/error.h"
#include "io/atomic_file.h"

namespace maestrale {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const char* verb, const std::string& path, const std::error_code& reason) {
  throw Error(ErrorCode::kInvalidArg,
              "cannot " + std::string(verb) + " the directory '" + path + "': " + reason.message());
}

// "merged/" and "merged" are one directory, but only the second has a name to put a suffix to.
std::string without_slash(const std::string& path) {
  const fs::path whole(path);
  return (whole.has_filename() ? whole : whole.parent_path()).string();
}

void require_free(const std::string& path) {
  std::error_code absent, unreadable;
  if (!fs::exists(path, absent)) return;
  if (fs::is_directory(path, absent) && fs::is_empty(path, unreadable)) return;
  throw Error(ErrorCode::kInvalidArg, "'" + path + "' is there already; name a directory that is to be made");
}

}  // namespace

AtomicDirectory::AtomicDirectory(const std::string& path)
    : path_(without_slash(path)), temporary_(temporary_name(path_)) {
  require_free(path_);
  std::error_code error;
  if (!fs::create_directory(temporary_, error)) fail("create", path_, error);
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;  // a destructor must not throw
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::write(std::string_view name, std::string_view contents) const {
  AtomicFile out(file(name));
  out.write(std::as_bytes(std::span(contents)));
  out.commit();
}

void AtomicDirectory::commit() {
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    fail("rename to", path_, {errno, std::generic_category()});
  committed_ = true;
  sync_directory_of(path_);
}

}  // namespace maestrale
