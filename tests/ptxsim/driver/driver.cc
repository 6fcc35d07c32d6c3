// SPDX-License-Identifier: Apache-2.0
// Queues and captures; what every API call begins with; the report.
#include "driver/driver.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace maestrale::ptxsim {
namespace {

constexpr size_t kTraceLength = 65536;

uint64_t parse_bytes(const std::string& text) {
  size_t used = 0;
  const double value = std::stod(text, &used);
  const std::string unit = text.substr(used);
  const double scale = unit.empty()  ? 1
                       : unit == "k" ? 1024.0
                       : unit == "m" ? 1048576.0
                       : unit == "g" ? 1073741824.0
                                     : 0;
  if (scale == 0) throw std::invalid_argument("ptxsim: unknown unit in '" + text + "'");
  return uint64_t(value * scale);
}

// "3" or "3:700"
void parse_failure(const std::string& text, int& which, int& with) {
  const size_t colon = text.find(':');
  which = std::stoi(text.substr(0, colon));
  if (colon != text.npos) with = std::stoi(text.substr(colon + 1));
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n')
      out += "\\n";
    else if (static_cast<unsigned char>(c) >= 32)
      out += c;
  }
  return out + "\"";
}

void write_report_at_exit() {
  Driver& d = Driver::instance();
  if (d.settings.report_file.empty()) return;
  if (FILE* file = std::fopen(d.settings.report_file.c_str(), "w")) {
    std::fprintf(file, "%s\n", d.report().c_str());
    std::fclose(file);
  }
}

}  // namespace

Driver& Driver::instance() {
  static Driver* driver = new Driver;  // lives on: calls may come from destructors at exit
  return *driver;
}

Driver::Driver() {
  if (const char* text = std::getenv("MAESTRALE_PTXSIM")) configure(text);
  std::atexit(write_report_at_exit);
}

void Driver::configure(const std::string& text) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    begin = end + 1;
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals),
                      value = equals == item.npos ? "1" : item.substr(equals + 1);
    Options& o = settings.options;
    if (key == "cc") {
      std::string digits = value;
      if (const size_t dot = digits.find('.'); dot != digits.npos) digits.erase(dot, 1);
      settings.cc = std::stoi(digits);
    } else if (key == "memory")
      settings.memory = parse_bytes(value);
    else if (key == "sms")
      settings.sms = std::stoi(value);
    else if (key == "memclock")
      settings.memory_clock = std::stoi(value);
    else if (key == "buswidth")
      settings.bus_width = std::stoi(value);
    else if (key == "l2")
      settings.l2_cache = parse_bytes(value);
    else if (key == "seed")
      o.seed = std::stoull(value), random.seed(o.seed);
    else if (key == "driver")
      settings.driver_version = std::stoi(value);
    else if (key == "devices")
      settings.devices = std::stoi(value);
    else if (key == "eager")
      settings.eager = value != "0";
    else if (key == "races")
      o.check_races = value != "0";
    else if (key == "initcheck")
      o.check_uninitialised = value != "0";
    else if (key == "count")
      o.count = value != "0";
    else if (key == "perturb")
      o.perturb = value != "0";
    else if (key == "ctas")
      o.resident_ctas = std::max(1, std::stoi(value));
    else if (key == "async" && value == "lazy")
      o.async_copy = AsyncCopy::kLazy;
    else if (key == "async" && value == "eager")
      o.async_copy = AsyncCopy::kEager;
    else if (key == "async" && value == "random")
      o.async_copy = AsyncCopy::kRandom;
    else if (key == "mma" && value == "float")
      o.accumulate = Accumulate::kFloat;
    else if (key == "mma" && value == "double")
      o.accumulate = Accumulate::kDouble;
    else if (key == "mma" && value == "truncate")
      o.accumulate = Accumulate::kTruncate;
    else if (key == "fail_alloc")
      settings.fail_alloc = std::stoi(value);
    else if (key == "fail_module")
      parse_failure(value, settings.fail_module, settings.fail_module_with);
    else if (key == "fail_launch")
      parse_failure(value, settings.fail_launch, settings.fail_launch_with);
    else if (key == "report")
      settings.report_file = value;
    else if (key == "quiet")
      settings.quiet = value != "0";
    else
      throw std::invalid_argument("ptxsim: unknown setting '" + item + "'");
  }
}

std::unique_ptr<Context> Driver::open_context() {
  if (contexts.empty()) memory = std::make_unique<DeviceMemory>(settings.memory);
  auto context = std::make_unique<Context>();
  contexts.insert(context.get());
  return context;
}

void Driver::close_context(Context& context) {
  const auto owned = [&](const auto* object) { return object->context == &context; };
  run_until([&] {
    return context.legacy.queue.empty() && std::all_of(streams.begin(), streams.end(), [&](const Stream* s) {
             return !owned(s) || s->queue.empty();
           });
  });
  const auto found = [&] { abandoned += context.sticky == kSuccess; };
  const auto destroy = [&](auto& objects, auto end) {
    for (auto at = objects.begin(); at != objects.end();) {
      const auto object = *at++;
      if (owned(object)) found(), end(object);
    }
  };
  destroy(modules, [&](ModuleState* m) { unload(m); });
  destroy(streams, [&](Stream* s) { streams.erase(s), delete s; });
  destroy(events, [&](EventState* e) { events.erase(e), delete e; });
  destroy(graph_execs, [&](GraphExec* e) { graph_execs.erase(e), delete e; });
  destroy(graphs, [&](Graph* g) { graphs.erase(g), graph_owners.erase(g); });
  std::erase_if(allocations, [&](const auto& entry) {
    return entry.second == &context && (found(), memory->release(entry.first));
  });
  std::erase_if(host_allocations, [&](const auto& entry) {
    if (entry.second != &context) return false;
    found();
    pinned.erase(reinterpret_cast<uintptr_t>(entry.first));
    std::free(entry.first);
    return true;
  });
  contexts.erase(&context);
}

void Driver::unload(ModuleState* m) {
  for (const auto& [name, at] : m->variables) memory->release(at);
  for (const auto& [name, f] : m->functions) functions.erase(f.get());
  modules.erase(m);
  delete m;
}

double Driver::now_ms() const {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Stream* Driver::stream(void* handle) {
  if (reinterpret_cast<uintptr_t>(handle) <= 2) return &current_context()->legacy;
  Stream* s = static_cast<Stream*>(handle);
  return streams.count(s) && s->context == current_context() ? s : nullptr;
}

bool Driver::runnable(const Stream& s) const {
  if (s.queue.empty()) return false;
  const Task& t = s.queue.front();
  if (t.waits_for && !t.waits_for->done) return false;
  // The legacy stream waits for all earlier work of blocking streams, and they for its.
  const auto earlier = [&](const Stream& other) {
    return !other.queue.empty() && other.queue.front().sequence < t.sequence;
  };
  if (&s == &s.context->legacy) {
    for (const Stream* other : streams)
      if (other->context == s.context && other->blocking && earlier(*other)) return false;
    return true;
  }
  return !s.blocking || !earlier(s.context->legacy);
}

bool Driver::run_one() {
  Stream* chosen = nullptr;
  uint64_t ready = 0;
  const auto offer = [&](Stream& s) {
    if (runnable(s) && random() % ++ready == 0) chosen = &s;
  };
  for (Context* context : contexts) offer(context->legacy);
  for (Stream* s : streams) offer(*s);
  if (!chosen) return false;
  Task& task = chosen->queue.front();
  bool finished = true;
  running = chosen->context;
  if (running->sticky == kSuccess && task.run) finished = task.run();
  if (finished) chosen->queue.pop_front();
  return true;
}

void Driver::run_until(const std::function<bool()>& done) {
  while (!done() && run_one()) {
  }
}

void Driver::run_some() {
  for (uint64_t n = random() % 4; n > 0 && run_one(); --n) {
  }
}

bool Driver::idle() const {
  for (const Context* context : contexts)
    if (!context->legacy.queue.empty()) return false;
  for (const Stream* s : streams)
    if (!s->queue.empty()) return false;
  return true;
}

int Driver::enqueue_task(Stream& s, Task task) {
  task.sequence = next_sequence_++;
  s.queue.push_back(std::move(task));
  if (settings.eager) run_until([this] { return idle(); });
  return kSuccess;
}

int Driver::enqueue(Stream& s, std::function<void()> work) {
  if (Capture* c = s.capture) {
    if (c->invalidated) return kCaptureInvalidated;
    c->graph->nodes.push_back({std::move(work), {s.last.begin(), s.last.end()}});
    s.last = {c->graph->nodes.size() - 1};
    return kSuccess;
  }
  if (&s == &s.context->legacy)
    for (const Stream* other : streams)
      if (other->context == s.context && other->blocking && other->capture) {
        other->capture->invalidated = true;
        return kCaptureImplicit;
      }
  return enqueue_task(s, {0, [work = std::move(work)] { return work(), true; }, nullptr});
}

int Driver::refuse_in_capture() {
  int result = kSuccess;
  for (Capture* c : captures) {
    const bool own = c->thread == std::this_thread::get_id();
    if (thread_capture_mode() == 2 || c->mode == 2 || (!own && (c->mode == 1 || thread_capture_mode() == 1)))
      continue;
    c->invalidated = true;
    result = kCaptureUnsupported;
  }
  return result;
}

bool Driver::valid_range(uint64_t address, uint64_t bytes) const {
  const Allocation* a = memory ? memory->find(address) : nullptr;
  return a && bytes <= a->end() - address;
}

bool Driver::is_pinned(const void* p, size_t bytes) const {
  const uintptr_t at = reinterpret_cast<uintptr_t>(p);
  auto after = pinned.upper_bound(at);
  if (after == pinned.begin()) return false;
  --after;
  return at + bytes <= after->first + after->second;
}

void Driver::fail(int result, const std::string& text) {
  running->sticky = result;
  last_fault = text;
  if (!settings.quiet) std::fprintf(stderr, "ptxsim: %s\n", text.c_str());
}

std::string Driver::report() const {
  std::string out = "{\"kernels\":{";
  bool first = true;
  for (const auto& [name, c] : counters) {
    out += (first ? "" : ",") + quoted(name) + ":" + c.json();
    first = false;
  }
  out += "},\"calls\":{";
  first = true;
  for (const auto& [name, n] : calls) {
    out += (first ? "" : ",") + quoted(name) + ":" + std::to_string(n);
    first = false;
  }
  uint64_t leaked = 0, leaked_bytes = 0;
  if (memory)
    for (const auto& [begin, a] : memory->allocations())
      if (!a.freed && !a.is_module) ++leaked, leaked_bytes += a.bytes;
  const auto count = [](const char* name, size_t n) {
    return ",\"" + std::string(name) + "\":" + std::to_string(n);
  };
  out += "},\"bytesToHost\":" + std::to_string(bytes_to_host) +
         ",\"leaks\":{\"allocations\":" + std::to_string(leaked) + count("bytes", leaked_bytes) +
         count("modules", modules.size()) + count("streams", streams.size()) +
         count("events", events.size()) + count("graphs", graphs.size()) +
         count("graphExecs", graph_execs.size()) + count("hostAllocations", host_allocations.size()) +
         count("contexts", contexts.size()) + count("abandoned", abandoned) +
         "},\"lastFault\":" + quoted(last_fault) + ",\"output\":" + quoted(output) + "}";
  return out;
}

Context*& current_context() {
  thread_local Context* context = nullptr;
  return context;
}

int& thread_capture_mode() {
  thread_local int mode = 0;
  return mode;
}

int& calls_of_thread() {
  thread_local int calls = 0;
  return calls;
}

int enter(const char* name, Need need, const std::function<int()>& body) {
  try {
    Driver& d = Driver::instance();
    const std::lock_guard<std::recursive_mutex> guard(d.lock);
    ++d.calls[name];
    ++calls_of_thread();
    if (d.trace.size() >= kTraceLength) d.trace.erase(d.trace.begin(), d.trace.begin() + kTraceLength / 2);
    d.trace.emplace_back(name);
    if (need != kNothing && !d.initialized) return kNotInitialized;
    if (need == kContext) {
      if (d.contexts.count(current_context()) == 0) return kInvalidContext;
      if (const int sticky = current_context()->sticky) return sticky;
    }
    const int result = body();
    const bool lost = need == kContext && current_context()->sticky != kSuccess;
    return result == kSuccess && lost ? current_context()->sticky : result;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ptxsim: %s: %s\n", name, error.what());
    return kUnknown;
  }
}

}  // namespace maestrale::ptxsim
