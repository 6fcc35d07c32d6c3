// SPDX-License-Identifier: Apache-2.0
// The state of the simulated driver: one device, its contexts, modules, streams with their queues,
// captures and graphs. Asynchronous work waits in queues; it runs when somebody synchronises,
// in a random order that streams and events permit. One lock guards everything.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "driver/results.h"
#include "exec/cta.h"
#include "exec/decoder.h"

namespace maestrale::ptxsim {

// From MAESTRALE_PTXSIM or ptxsim_configure: "cc=8.6,memory=8g,sms=82,seed=7,...".
struct Settings {
  int cc = 80;  // 75, 80, 86, 89, 90, 100, 120
  uint64_t memory = uint64_t{8} << 30;
  int sms = 16;
  int memory_clock = 7'000'000;           // kHz; below 0 the attribute is not there
  int bus_width = 256;                    // bits
  uint64_t l2_cache = uint64_t{4} << 20;  // bytes
  int driver_version = 13000;
  int devices = 1;
  bool eager = false;  // run at once instead of at the next synchronisation
  Options options;
  int fail_alloc = 0;   // this allocation (1 = the next) runs out of memory
  int fail_module = 0;  // this module load fails
  int fail_module_with = kInvalidPtx;
  int fail_launch = 0;  // this kernel launch fails when it runs, and the context is lost
  int fail_launch_with = kLaunchFailed;
  std::string report_file;  // written when the process ends
  bool quiet = false;       // no fault texts on stderr
};

struct Context;
// The one that the calling thread works in, or nullptr.
Context*& current_context();

struct ModuleState {
  Context* context = current_context();
  Module source;
  std::map<std::string, uint64_t> variables;
  std::map<std::string, uint64_t> variable_bytes;
  std::map<std::string, std::unique_ptr<struct FunctionState>> functions;
};

struct FunctionState {
  ModuleState* module;
  Program program;
  int max_dynamic_shared = 48 << 10;  // less the static part
};

// Whether a recorded event has come to pass.
struct Completion {
  bool done = false;
  double milliseconds = 0;  // when
};

struct Task {
  uint64_t sequence = 0;
  std::function<bool()> run;              // true when finished, false to be called again
  std::shared_ptr<Completion> waits_for;  // not before this
};

struct GraphNode {
  std::function<void()> run;
  std::vector<size_t> after;
};

struct Graph {
  Context* context = current_context();
  std::vector<GraphNode> nodes;
};

struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  struct Stream* origin = nullptr;
  bool invalidated = false;
  int mode = 0;  // 0 global, 1 thread-local, 2 relaxed
  std::thread::id thread = std::this_thread::get_id();
  std::set<Stream*> streams;
};

struct Stream {
  Context* context = current_context();
  bool blocking = true;  // orders itself with the legacy stream
  std::deque<Task> queue;
  Capture* capture = nullptr;
  std::set<size_t> last;  // captured nodes the next one comes after
};

struct EventState {
  Context* context = current_context();
  bool timing = true;
  std::shared_ptr<Completion> completion;  // of the latest record; nullptr: never recorded
  Capture* capture = nullptr;              // recorded while capturing
  std::set<size_t> nodes;
};

struct GraphExec {
  Graph graph;
  Context* context = current_context();
};

// What is made in a context goes with it, and an error in its work stays its own.
struct Context {
  Context() { legacy.context = this; }
  int sticky = kSuccess;
  Stream legacy;
};

class Driver {
 public:
  static Driver& instance();

  std::recursive_mutex lock;
  Settings settings;
  bool initialized = false;
  std::unique_ptr<Context> primary;
  int primary_references = 0;
  std::set<Context*> contexts;  // alive: the primary one while it is retained, and created ones
  Context* running = nullptr;   // whose work is being executed
  uint64_t abandoned = 0;       // objects that a healthy context still owned when it ended
  std::string last_fault;
  std::mt19937_64 random{1};
  std::unique_ptr<DeviceMemory> memory;
  std::set<ModuleState*> modules;
  std::set<FunctionState*> functions;
  std::set<Stream*> streams;  // created ones; the legacy stream is not among them
  std::set<EventState*> events;
  std::set<Graph*> graphs;
  std::map<Graph*, std::shared_ptr<Graph>> graph_owners;
  std::set<GraphExec*> graph_execs;
  std::set<Capture*> captures;
  std::map<uint64_t, Context*> allocations;  // from cuMemAlloc
  std::map<uintptr_t, size_t> pinned;        // host memory: begin -> bytes
  std::map<void*, Context*> host_allocations;
  std::map<std::string, Counters> counters;
  std::map<std::string, uint64_t> calls;
  uint64_t bytes_to_host = 0;      // of copies that have run
  std::vector<std::string> trace;  // the latest calls
  std::string output;              // of printf

  void configure(const std::string& text);  // throws std::invalid_argument
  std::unique_ptr<Context> open_context();
  // Ends the work of a context and frees what it owns.
  void close_context(Context& context);
  void unload(ModuleState* module);

  // The stream of a handle; nullptr when it is none. 0, 1 and 2 are the legacy and per-thread streams.
  Stream* stream(void* handle);
  // Puts work on a stream, or captures it. Returns a Result.
  int enqueue(Stream& s, std::function<void()> work);
  int enqueue_task(Stream& s, Task task);
  void run_until(const std::function<bool()>& done);
  void run_some();
  bool idle() const;
  // Fails (and spoils the capture) when this thread may not do unsafe work now.
  int refuse_in_capture();
  // [address, address + bytes) lies in one live allocation.
  bool valid_range(uint64_t address, uint64_t bytes) const;
  bool is_pinned(const void* p, size_t bytes) const;
  void fail(int result, const std::string& text);
  std::string report() const;
  double now_ms() const;

 private:
  Driver();
  bool runnable(const Stream& s) const;
  bool run_one();
  uint64_t next_sequence_ = 0;
};

int& thread_capture_mode();
int& calls_of_thread();
// kSuccess when there is such a device.
int check_device(int device);

// Runs `body` as API call `name`: lock, trace, initialisation, context and sticky error checks.
enum Need : int { kNothing = 0, kInit = 1, kContext = 2 };
int enter(const char* name, Need need, const std::function<int()>& body);

#define PTXSIM_API extern "C" __attribute__((visibility("default"))) int

}  // namespace maestrale::ptxsim
