// SPDX-License-Identifier: Apache-2.0
#include "cuda/launches.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <string_view>

#include "base/integer.h"
#include "cuda/device.h"

namespace maestrale::cuda {
namespace {

constexpr size_t kAlign = 16;  // of arguments
// Decoding steps of up to 16 sequences whose longest one has its keys divided in up to 32 parts, by powers of
// two, have 96 lists. A graph holds some memory of the device.
constexpr size_t kMostGraphs = 128;
constexpr size_t kRemembered = 128;  // lists without a graph
constexpr unsigned kNonBlockingStream = 1;
constexpr int kThreadLocal = 1;  // CUstreamCaptureMode: other threads may do what they like

size_t padded(size_t bytes) { return round_up(bytes, kAlign); }

}  // namespace

struct Launches::Head {
  Handle function;
  unsigned x, y, z, block;
  uint32_t n_arguments;
  uint32_t bytes[kMostArguments];
};

Launches::Launches(const Device& device) : device_(device) {
  device_.make_current();
  MAESTRALE_CU(device_, cuStreamCreate, &stream_, kNonBlockingStream);
}

Launches::~Launches() {
  device_.driver().cuCtxSetCurrent(device_.context());
  for (const Graph& graph : graphs_) device_.driver().cuGraphExecDestroy(graph.executable);
  device_.driver().cuStreamDestroy_v2(stream_);
}

void Launches::synchronize() {
  flush();
  MAESTRALE_CU(device_, cuStreamSynchronize, stream_);
}

void Launches::launch(Handle function, const Grid& grid, std::span<const Argument> arguments) {
  if (!recording_) {
    void* pointers[kMostArguments];
    for (size_t i = 0; i < arguments.size(); ++i) pointers[i] = const_cast<void*>(arguments[i].data);
    MAESTRALE_CU(device_, cuLaunchKernel, function, unsigned(grid.x), unsigned(grid.y), unsigned(grid.z),
                 unsigned(grid.block), 1, 1, 0, stream_, pointers, nullptr);
    return;
  }
  Head head{function,
            unsigned(grid.x),
            unsigned(grid.y),
            unsigned(grid.z),
            unsigned(grid.block),
            uint32_t(arguments.size()),
            {}};
  size_t at = list_.size() + padded(sizeof head), end = at;
  for (size_t i = 0; i < arguments.size(); ++i) {
    head.bytes[i] = uint32_t(arguments[i].bytes);
    end += padded(arguments[i].bytes);
  }
  list_.resize(end);
  std::memcpy(list_.data() + at - padded(sizeof head), &head, sizeof head);
  for (const Argument& argument : arguments) {
    std::memcpy(list_.data() + at, argument.data, argument.bytes);
    at += padded(argument.bytes);
  }
}

void Launches::launch_all(const List& list) const {
  for (size_t at = 0; at < list.size();) {
    Head head;
    std::memcpy(&head, list.data() + at, sizeof head);
    at += padded(sizeof head);
    void* pointers[kMostArguments];
    for (uint32_t i = 0; i < head.n_arguments; ++i) {
      pointers[i] = const_cast<std::byte*>(list.data()) + at;
      at += padded(head.bytes[i]);
    }
    MAESTRALE_CU(device_, cuLaunchKernel, head.function, head.x, head.y, head.z, head.block, 1, 1, 0, stream_,
                 pointers, nullptr);
  }
}

Handle Launches::capture(const List& list) const {
  const Driver& driver = device_.driver();
  Handle graph = nullptr, executable = nullptr;
  MAESTRALE_CU(device_, cuStreamBeginCapture_v2, stream_, kThreadLocal);
  try {
    launch_all(list);
  } catch (...) {
    driver.cuStreamEndCapture(stream_, &graph);
    throw;
  }
  MAESTRALE_CU(device_, cuStreamEndCapture, stream_, &graph);
  const int result = driver.cuGraphInstantiateWithFlags != nullptr
                         ? driver.cuGraphInstantiateWithFlags(&executable, graph, 0)
                         : driver.cuGraphInstantiate_v2(&executable, graph, nullptr, nullptr, 0);
  driver.cuGraphDestroy(graph);
  check(driver, result, "cuGraphInstantiate");
  return executable;
}

bool Launches::seen_before(const List& list) {
  const size_t hash =
      std::hash<std::string_view>()({reinterpret_cast<const char*>(list.data()), list.size()});
  const auto found = std::find(seen_.begin(), seen_.end(), hash);
  if (found != seen_.end()) {
    seen_.erase(found);
    return true;
  }
  if (seen_.size() == kRemembered) seen_.erase(seen_.begin());
  seen_.push_back(hash);
  return false;
}

void Launches::flush() {
  recording_ = false;
  if (list_.empty()) return;
  List list;
  std::swap(list, list_);  // empty whatever happens
  ++flushes_;
  auto graph = std::find_if(graphs_.begin(), graphs_.end(), [&](const Graph& g) { return g.list == list; });
  if (graph == graphs_.end() && seen_before(list)) {
    if (graphs_.size() == kMostGraphs) {
      const auto oldest = std::min_element(graphs_.begin(), graphs_.end(),
                                           [](const Graph& a, const Graph& b) { return a.used < b.used; });
      device_.driver().cuGraphExecDestroy(oldest->executable);
      graphs_.erase(oldest);
    }
    const Handle executable = capture(list);
    graph = graphs_.insert(graphs_.end(), {list, executable, flushes_});
  }
  if (graph == graphs_.end()) return launch_all(list);
  graph->used = flushes_;
  MAESTRALE_CU(device_, cuGraphLaunch, graph->executable, stream_);
}

}  // namespace maestrale::cuda
