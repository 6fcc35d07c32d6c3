// SPDX-License-Identifier: Apache-2.0
// A new directory that takes its name when all of its files are complete and on disk.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace maestrale {

class AtomicDirectory {
 public:
  // Files go to a directory beside `path`, which is removed with them unless commit() succeeds. Throws
  // Error{kInvalidArg} when it cannot be created, and when `path` is there and no empty directory: what is in
  // one is never replaced.
  explicit AtomicDirectory(const std::string& path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  // Where to write the file of that name.
  std::string file(std::string_view name) const { return temporary_ + "/" + std::string(name); }
  // Writes a whole file.
  void write(std::string_view name, std::string_view contents) const;
  // Throws Error{kInvalidArg} with the system's reason.
  void commit();

 private:
  const std::string path_, temporary_;
  bool committed_ = false;
};

}  // namespace maestrale
