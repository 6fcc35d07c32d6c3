// SPDX-License-Identifier: Apache-2.0
// Stream capture and graphs. A captured call keeps its parameters; a launched graph runs its nodes one
// by one in a random order that its edges permit, interleaved with other streams.
#include <algorithm>

#include "driver/driver.h"

using namespace maestrale::ptxsim;

namespace {

Driver& driver() { return Driver::instance(); }

Graph* graph_of(void* handle) {
  Graph* g = static_cast<Graph*>(handle);
  return driver().graphs.count(g) ? g : nullptr;
}

void end(Capture* c) {
  for (Stream* s : c->streams) {
    s->capture = nullptr;
    s->last.clear();
  }
  for (EventState* e : driver().events)
    if (e->capture == c) e->capture = nullptr, e->nodes.clear();
  driver().captures.erase(c);
  delete c;
}

// Every node comes, along some edges, before the last of the stream that began the capture.
bool is_joined(const Capture& c) {
  if (c.streams.size() <= 1) return true;
  std::set<size_t> reached(c.origin->last.begin(), c.origin->last.end());
  std::vector<size_t> open(reached.begin(), reached.end());
  while (!open.empty()) {
    const size_t n = open.back();
    open.pop_back();
    for (const size_t before : c.graph->nodes[n].after)
      if (reached.insert(before).second) open.push_back(before);
  }
  return reached.size() == c.graph->nodes.size();
}

int instantiate(void** exec, void* graph) {
  Graph* g = graph_of(graph);
  if (!exec || !g) return kInvalidValue;
  if (const int bad = driver().refuse_in_capture()) return bad;
  GraphExec* e = new GraphExec{*g, current_context()};
  driver().graph_execs.insert(e);
  *exec = e;
  return kSuccess;
}

// A run of a graph: one node per call.
struct Replay {
  Graph graph;
  std::vector<bool> done;
  size_t left;

  bool step() {
    std::vector<size_t> ready;
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const auto& after = graph.nodes[n].after;
      if (!done[n] && std::all_of(after.begin(), after.end(), [&](size_t a) { return bool(done[a]); }))
        ready.push_back(n);
    }
    if (ready.empty()) return true;
    const size_t n = ready[driver().random() % ready.size()];
    done[n] = true;
    graph.nodes[n].run();
    return --left == 0;
  }
};

}  // namespace

PTXSIM_API cuStreamBeginCapture_v2(void* stream, int mode) {
  return enter("cuStreamBeginCapture_v2", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s) return kInvalidHandle;
    if (mode < 0 || mode > 2) return kInvalidValue;
    if (s == &s->context->legacy) return kCaptureUnsupported;
    if (s->capture) return kCaptureInvalidated;
    Capture* c = new Capture;
    c->origin = s;
    c->mode = mode;
    c->streams.insert(s);
    s->capture = c;
    s->last.clear();
    driver().captures.insert(c);
    return kSuccess;
  });
}

PTXSIM_API cuStreamEndCapture(void* stream, void** graph) {
  return enter("cuStreamEndCapture", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s) return kInvalidHandle;
    if (!graph) return kInvalidValue;
    *graph = nullptr;
    if (!s->capture) return kInvalidValue;
    Capture* c = s->capture;
    if (c->origin != s) return kCaptureUnmatched;
    int result = c->invalidated ? kCaptureInvalidated : !is_joined(*c) ? kCaptureUnjoined : kSuccess;
    if (result == kSuccess) {
      Graph* g = c->graph.get();
      driver().graphs.insert(g);
      driver().graph_owners[g] = c->graph;
      *graph = g;
    }
    end(c);
    return result;
  });
}

PTXSIM_API cuStreamIsCapturing(void* stream, int* status) {
  return enter("cuStreamIsCapturing", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s) return kInvalidHandle;
    if (!status) return kInvalidValue;
    *status = !s->capture ? 0 : s->capture->invalidated ? 2 : 1;
    return kSuccess;
  });
}

PTXSIM_API cuThreadExchangeStreamCaptureMode(int* mode) {
  return enter("cuThreadExchangeStreamCaptureMode", kInit, [&]() -> int {
    if (!mode || *mode < 0 || *mode > 2) return kInvalidValue;
    std::swap(*mode, thread_capture_mode());
    return kSuccess;
  });
}

PTXSIM_API cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
  return enter("cuGraphInstantiateWithFlags", kContext, [&] { return instantiate(exec, graph); });
}
PTXSIM_API cuGraphInstantiate_v2(void** exec, void* graph, void**, char*, size_t) {
  return enter("cuGraphInstantiate_v2", kContext, [&] { return instantiate(exec, graph); });
}

PTXSIM_API cuGraphLaunch(void* exec, void* stream) {
  return enter("cuGraphLaunch", kContext, [&]() -> int {
    GraphExec* e = static_cast<GraphExec*>(exec);
    Stream* s = driver().stream(stream);
    if (!driver().graph_execs.count(e) || !s) return kInvalidHandle;
    if (s->capture) return kCaptureUnsupported;  // child graphs are not simulated
    auto replay = std::make_shared<Replay>(
        Replay{e->graph, std::vector<bool>(e->graph.nodes.size()), e->graph.nodes.size()});
    return driver().enqueue_task(*s, {0, [replay] { return replay->step(); }, nullptr});
  });
}

PTXSIM_API cuGraphUpload(void* exec, void* stream) {
  return enter("cuGraphUpload", kContext, [&]() -> int {
    return driver().graph_execs.count(static_cast<GraphExec*>(exec)) && driver().stream(stream)
               ? kSuccess
               : kInvalidHandle;
  });
}

PTXSIM_API cuGraphExecDestroy(void* exec) {
  return enter("cuGraphExecDestroy", kContext, [&]() -> int {
    GraphExec* e = static_cast<GraphExec*>(exec);
    if (driver().graph_execs.erase(e) == 0) return kInvalidHandle;
    delete e;
    return kSuccess;
  });
}

PTXSIM_API cuGraphDestroy(void* graph) {
  return enter("cuGraphDestroy", kContext, [&]() -> int {
    Graph* g = graph_of(graph);
    if (!g) return kInvalidHandle;
    driver().graphs.erase(g);
    driver().graph_owners.erase(g);
    return kSuccess;
  });
}

PTXSIM_API cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
  return enter("cuGraphGetNodes", kContext, [&]() -> int {
    Graph* g = graph_of(graph);
    if (!g) return kInvalidHandle;
    if (!count) return kInvalidValue;
    if (nodes)
      for (size_t i = 0; i < std::min(*count, g->nodes.size()); ++i) nodes[i] = &g->nodes[i];
    *count = g->nodes.size();
    return kSuccess;
  });
}
