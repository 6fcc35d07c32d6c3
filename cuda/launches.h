// SPDX-License-Identifier: Apache-2.0
// A stream and the kernel launches in it. Those of a step are put down first and made together; a step whose
// launches were all made before in the same order, with the same arguments, is one CUDA graph, which the
// driver starts in a few microseconds instead of some for each of its hundreds of kernels.
//
// The list of launches itself is what a graph is found by, so a graph can never be stale: when a buffer has
// moved, the batch has another size or a sequence has left between two layers, the list is another one. All
// that changes from one decoding step to the next (tokens, positions, page tables) lies in buffers on the
// device, so decoding steps of as many sequences share a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/driver.h"

namespace maestrale::cuda {

class Device;

struct Grid {
  int64_t x = 1, y = 1;
  int block = 1;  // threads
  int64_t z = 1;
};

constexpr size_t kMostArguments = 16;  // of a kernel

struct Argument {
  const void* data;
  size_t bytes;
};

class Launches {
 public:
  // In a new stream. Used by one thread at a time, beside others of the device.
  explicit Launches(const Device& device);
  ~Launches();
  Launches(const Launches&) = delete;
  Launches& operator=(const Launches&) = delete;

  // From now on launches are put down until flush(); without it they are made at once.
  void record() { recording_ = true; }
  void launch(Handle function, const Grid& grid, std::span<const Argument> arguments);
  // Makes what was put down. To be called before anything else is given to the stream that depends on it.
  void flush();
  // Waits for all that was given to the stream, what was only put down included.
  void synchronize();
  Handle stream() const { return stream_; }

 private:
  // A list of launches: for each a Head, then its arguments, each at a multiple of kAlign.
  using List = std::vector<std::byte>;
  struct Head;
  struct Graph {
    List list;
    Handle executable;
    uint64_t used;  // the flush that used it last
  };
  void launch_all(const List& list) const;
  Handle capture(const List& list) const;
  bool seen_before(const List& list);

  const Device& device_;
  Handle stream_ = nullptr;
  bool recording_ = false;
  List list_;
  std::vector<Graph> graphs_;
  std::vector<size_t> seen_;  // hashes of the latest lists without a graph
  uint64_t flushes_ = 0;
};

}  // namespace maestrale::cuda
