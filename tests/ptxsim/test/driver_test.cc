// SPDX-License-Identifier: Apache-2.0
// The driver library, loaded by path as the runtime loads it: arguments, asynchrony, captures, graphs,
// faults, injected failures, leaks.
#include <dlfcn.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace maestrale::ptxsim::test {
namespace {

class Library {
 public:
  Library() : handle_(dlopen(PTXSIM_DRIVER, RTLD_NOW | RTLD_LOCAL)) { CHECK(handle_ != nullptr); }
  template <class... Args>
  int call(const char* name, Args... args) const {
    return find<int (*)(Args...)>(name)(args...);
  }
  std::string text(const char* name) const { return find<const char* (*)()>(name)(); }

 private:
  template <class F>
  F find(const char* name) const {
    void* p = dlsym(handle_, name);
    if (!p) maestrale::test::fail(__FILE__, __LINE__, std::string("no entry point ") + name);
    return reinterpret_cast<F>(p);
  }
  void* handle_;
};

const char* const kModule =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".visible .entry add(.param .u64 x, .param .u32 by, .param .u32 n)\n{\n.reg .b64 %p, %o;\n.reg .b32 %t, "
    "%b, %c, %n;\n.reg .pred %q;\n"
    "ld.param.u64 %p, [x];\nld.param.u32 %b, [by];\nld.param.u32 %n, [n];\nmov.u32 %t, %tid.x;\nmov.u32 %c, "
    "%ctaid.x;\n"
    "shl.b32 %c, %c, 5;\nadd.u32 %t, %t, %c;\nsetp.ge.u32 %q, %t, %n;\n@%q ret;\nmul.wide.u32 %o, %t, "
    "4;\nadd.s64 %p, %p, %o;\n"
    "ld.global.u32 %t, [%p];\nadd.u32 %t, %t, %b;\nst.global.u32 [%p], %t;\nret;\n}\n";

// A context with the module of `add`; each test case runs in a process of its own.
struct Device {
  Library cuda;
  void* module = nullptr;
  void* add = nullptr;

  explicit Device(const char* settings = "cc=80,quiet") {
    CHECK_EQ(cuda.call("ptxsim_configure", settings), 0);
    void* context = nullptr;
    CHECK_EQ(cuda.call("cuInit", 0u), 0);
    CHECK_EQ(cuda.call("cuDevicePrimaryCtxRetain", &context, 0), 0);
    CHECK_EQ(cuda.call("cuCtxSetCurrent", context), 0);
    CHECK_EQ(cuda.call("cuModuleLoadDataEx", &module, kModule, 0u, (int*)nullptr, (void**)nullptr), 0);
    CHECK_EQ(cuda.call("cuModuleGetFunction", &add, module, "add"), 0);
  }
  uint64_t alloc(size_t bytes) {
    uint64_t p = 0;
    CHECK_EQ(cuda.call("cuMemAlloc_v2", &p, bytes), 0);
    return p;
  }
  int launch(uint64_t x, uint32_t by, uint32_t n, void* stream = nullptr, unsigned block = 32) {
    void* params[] = {&x, &by, &n};
    return cuda.call("cuLaunchKernel", add, (n + 31) / 32, 1u, 1u, block, 1u, 1u, 0u, stream, (void**)params,
                     (void**)nullptr);
  }
  void* stream(unsigned flags = 1) {
    void* s = nullptr;
    CHECK_EQ(cuda.call("cuStreamCreate", &s, flags), 0);
    return s;
  }
};

TEST("ptxsim driver: initialisation comes first, then a context") {
  Library cuda;
  int n = 0;
  uint64_t p = 0;
  CHECK_EQ(cuda.call("cuDeviceGetCount", &n), 3);
  CHECK_EQ(cuda.call("cuInit", 0u), 0);
  CHECK_EQ(cuda.call("cuDeviceGetCount", &n), 0);
  CHECK_EQ(n, 1);
  CHECK_EQ(cuda.call("cuMemAlloc_v2", &p, size_t(4)), 201);
  const char* name = nullptr;
  CHECK_EQ(cuda.call("cuGetErrorName", 700, &name), 0);
  CHECK_EQ(std::string(name), "CUDA_ERROR_ILLEGAL_ADDRESS");
  void* f = nullptr;
  int status = -1;
  CHECK_EQ(cuda.call("cuGetProcAddress_v2", "cuMemAlloc", &f, 11000, uint64_t(0), &status), 0);
  CHECK(f != nullptr);
  CHECK_EQ(cuda.call("cuGetProcAddress_v2", "cuNothing", &f, 11000, uint64_t(0), &status), 500);
}

TEST("ptxsim driver: a device without GPUs") {
  Library cuda;
  CHECK_EQ(cuda.call("ptxsim_configure", "devices=0"), 0);
  CHECK_EQ(cuda.call("cuInit", 0u), 100);
  CHECK_EQ(cuda.call("ptxsim_configure", "nonsense=1"), 1);
}

TEST("ptxsim driver: copies and launches in stream order") {
  Device d;
  const uint64_t p = d.alloc(400);
  std::vector<uint32_t> in(100, 5), out(100);
  void* s = d.stream();
  CHECK_EQ(d.cuda.call("cuMemcpyHtoDAsync_v2", p, (const void*)in.data(), size_t(400), s), 0);
  in.assign(100, 9);  // pageable: was read at the call
  CHECK_EQ(d.launch(p, 7, 100, s), 0);
  CHECK_EQ(d.launch(p, 100, 50, s), 0);
  CHECK_EQ(d.cuda.call("cuMemcpyDtoHAsync_v2", (void*)out.data(), p, size_t(400), s), 0);
  CHECK_EQ(out[0], 112u);
  CHECK_EQ(out[99], 12u);
}

TEST("ptxsim driver: work is deferred, pinned memory is read and written late") {
  Device d;
  const uint64_t p = d.alloc(128);
  void* pinned = nullptr;
  CHECK_EQ(d.cuda.call("cuMemAllocHost_v2", &pinned, size_t(256)), 0);
  uint32_t* in = static_cast<uint32_t*>(pinned);
  uint32_t* out = in + 32;
  for (int i = 0; i < 32; ++i) in[i] = 1, out[i] = 1;
  void* s = d.stream();
  CHECK_EQ(d.cuda.call("cuMemcpyHtoDAsync_v2", p, (const void*)in, size_t(128), s), 0);
  for (int i = 0; i < 32; ++i) in[i] = 2;  // a race of the host, which shows
  CHECK_EQ(d.launch(p, 10, 32, s), 0);
  CHECK_EQ(d.cuda.call("cuMemcpyDtoHAsync_v2", (void*)out, p, size_t(128), s), 0);
  CHECK_EQ(out[0], 0xdbdbdbdbu);
  CHECK_EQ(d.cuda.call("cuStreamSynchronize", s), 0);
  CHECK_EQ(out[31], 12u);
}

TEST("ptxsim driver: events order streams; without one the order is random") {
  int orders[2] = {0, 0};
  Device d;
  const uint64_t p = d.alloc(128);
  void *a = d.stream(), *b = d.stream();
  void* event = nullptr;
  CHECK_EQ(d.cuda.call("cuEventCreate", &event, 2u), 0);
  for (int round = 0; round < 32; ++round) {
    const bool ordered = round % 2;
    CHECK_EQ(d.cuda.call("cuMemsetD32Async", p, 1u, size_t(32), a), 0);
    if (ordered) {
      CHECK_EQ(d.cuda.call("cuEventRecord", event, a), 0);
      CHECK_EQ(d.cuda.call("cuStreamWaitEvent", b, event, 0u), 0);
    }
    CHECK_EQ(d.cuda.call("cuMemsetD32Async", p, 2u, size_t(32), b), 0);
    CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 0);
    uint32_t value = 0;
    CHECK_EQ(d.cuda.call("cuMemcpyDtoH_v2", (void*)&value, p, size_t(4)), 0);
    if (ordered)
      CHECK_EQ(value, 2u);
    else
      ++orders[value - 1];
  }
  CHECK(orders[0] > 0 && orders[1] > 0);
}

TEST("ptxsim driver: wrong arguments of launches and copies") {
  Device d;
  const uint64_t p = d.alloc(128);
  CHECK_EQ(d.launch(p, 1, 32, nullptr, 2048), 1);
  CHECK_EQ(d.launch(p, 1, 0), 1);
  uint32_t word = 0;
  CHECK_EQ(d.cuda.call("cuMemcpyHtoD_v2", p + 100, (const void*)&word, size_t(32)), 1);
  CHECK_EQ(d.cuda.call("cuMemFree_v2", p + 4), 1);
  CHECK_EQ(d.cuda.call("cuMemFree_v2", p), 0);
  CHECK_EQ(d.cuda.call("cuMemFree_v2", p), 1);
  CHECK_EQ(d.cuda.call("cuMemcpyHtoD_v2", p, (const void*)&word, size_t(4)), 1);
  CHECK_EQ(d.cuda.call("cuStreamSynchronize", (void*)0x1234), 400);
  void* f = nullptr;
  CHECK_EQ(d.cuda.call("cuModuleGetFunction", &f, d.module, "sub"), 500);
  struct {
    uint64_t x;
    uint32_t by, n;
  } packed{0, 1, 1};
  size_t size = sizeof packed - 4;
  void* extra[] = {(void*)1, &packed, (void*)2, &size, nullptr};
  CHECK_EQ(d.cuda.call("cuLaunchKernel", d.add, 1u, 1u, 1u, 32u, 1u, 1u, 0u, (void*)nullptr, (void**)nullptr,
                       (void**)extra),
           1);
  size_t offset = 0, bytes = 0;
  CHECK_EQ(d.cuda.call("cuFuncGetParamInfo", d.add, size_t(2), &offset, &bytes), 0);
  CHECK_EQ(offset, 12u);
  CHECK_EQ(bytes, 4u);
  CHECK_EQ(d.cuda.call("cuFuncSetAttribute", d.add, 8, 200 << 10), 1);
  CHECK_EQ(d.cuda.call("cuFuncSetAttribute", d.add, 8, 160 << 10), 0);
}

TEST("ptxsim driver: modules that cannot be loaded say why") {
  Device d("cc=80,driver=11000,quiet");
  char log[256];
  int options[] = {5, 6};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  void* m = nullptr;
  const auto load = [&](const std::string& text) {
    return d.cuda.call("cuModuleLoadDataEx", &m, text.c_str(), 2u, (int*)options, (void**)values);
  };
  CHECK_EQ(
      load(".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\nfoo.b32 1;\nret;\n}\n"),
      218);
  CHECK_EQ(std::string(log), "line 5: unknown opcode 'foo'");
  CHECK_EQ(load(".version 8.0\n.target sm_80\n.address_size 64\n"), 222);
  CHECK_EQ(load(".version 7.0\n.target sm_90\n.address_size 64\n"), 218);
  CHECK_EQ(load("\x7f"
                "ELF"),
           209);
}

TEST("ptxsim driver: a fault is sticky and named") {
  Device d;
  const uint64_t p = d.alloc(128);
  CHECK_EQ(d.cuda.call("cuMemsetD32_v2", p, 0u, size_t(32)), 0);
  CHECK_EQ(d.launch(p, 1, 40), 0);  // deferred: the call itself succeeds
  CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 700);
  CHECK_EQ(d.launch(p, 1, 32), 700);
  const std::string report = d.cuda.text("ptxsim_report");
  CHECK(report.find("add, line 20, block (1,0,0), thread (0,0,0): reads 4 bytes") != report.npos);
}

TEST("ptxsim driver: an error stays in its context, whose memory goes with it") {
  Device d;
  const uint64_t p = d.alloc(128);
  void *own = nullptr, *primary = nullptr;
  CHECK_EQ(d.cuda.call("cuCtxGetCurrent", &primary), 0);
  CHECK_EQ(d.cuda.call("cuCtxCreate_v2", &own, 0u, 0), 0);
  CHECK_EQ(d.launch(p, 1, 32), 400);  // a function of the other context
  void *module = nullptr, *add = nullptr;
  CHECK_EQ(d.cuda.call("cuModuleLoadData", &module, kModule), 0);
  CHECK_EQ(d.cuda.call("cuModuleGetFunction", &add, module, "add"), 0);
  std::swap(add, d.add);
  const uint64_t q = d.alloc(64);
  CHECK_EQ(d.launch(q, 1, 32), 0);
  CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 700);
  CHECK_EQ(d.cuda.call("cuMemFree_v2", q), 700);
  std::swap(add, d.add);
  CHECK_EQ(d.cuda.call("cuCtxSetCurrent", primary), 0);
  CHECK_EQ(d.cuda.call("cuMemsetD32_v2", p, 0u, size_t(32)), 0);
  CHECK_EQ(d.launch(p, 1, 32), 0);
  CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 0);
  CHECK_EQ(d.cuda.call("cuCtxDestroy_v2", own), 0);
  CHECK_EQ(d.cuda.call("cuCtxDestroy_v2", own), 201);
  CHECK_EQ(d.cuda.call("cuCtxSetCurrent", own), 201);
  // A healthy context that ends with memory in it has leaked it.
  CHECK_EQ(d.cuda.call("cuCtxCreate_v2", &own, 0u, 0), 0);
  d.alloc(32);
  CHECK_EQ(d.cuda.call("cuCtxDestroy_v2", own), 0);
  const std::string report = d.cuda.text("ptxsim_report");
  CHECK(report.find("\"allocations\":1,\"bytes\":128,\"modules\":1,") != report.npos);
  CHECK(report.find("\"contexts\":1,\"abandoned\":1}") != report.npos);
}

TEST("ptxsim driver: memory freed while work is queued") {
  Device d;
  const uint64_t p = d.alloc(128);
  void* s = d.stream();
  CHECK_EQ(d.cuda.call("cuMemsetD32Async", p, 0u, size_t(32), s), 0);
  CHECK_EQ(d.launch(p, 1, 32, s), 0);
  CHECK_EQ(d.cuda.call("cuMemFree_v2", p), 0);
  CHECK_EQ(d.cuda.call("cuStreamSynchronize", s), 700);
}

TEST("ptxsim driver: injected failures") {
  Device d("cc=80,quiet,memory=1m");
  uint64_t p = 0;
  void* m = nullptr;
  CHECK_EQ(d.cuda.call("cuMemAlloc_v2", &p, size_t(2) << 20), 2);
  CHECK_EQ(d.cuda.call("ptxsim_configure", "fail_alloc=2,fail_module=1:209,fail_launch=2:719"), 0);
  CHECK_EQ(d.cuda.call("cuMemAlloc_v2", &p, size_t(128)), 0);
  CHECK_EQ(d.cuda.call("cuMemAlloc_v2", &p, size_t(128)), 2);
  CHECK_EQ(d.cuda.call("cuMemAlloc_v2", &p, size_t(128)), 0);
  CHECK_EQ(d.cuda.call("cuModuleLoadData", &m, kModule), 209);
  CHECK_EQ(d.cuda.call("cuModuleLoadData", &m, kModule), 0);
  CHECK_EQ(d.cuda.call("cuMemsetD32_v2", p, 0u, size_t(32)), 0);
  CHECK_EQ(d.launch(p, 1, 32), 0);
  CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 0);
  CHECK_EQ(d.launch(p, 1, 32), 0);
  CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 719);
  CHECK_EQ(d.cuda.call("cuMemAlloc_v2", &p, size_t(128)), 719);
}

TEST("ptxsim driver: a captured graph runs again and again, with the parameters of its capture") {
  Device d;
  const uint64_t p = d.alloc(128);
  CHECK_EQ(d.cuda.call("cuMemsetD32_v2", p, 0u, size_t(32)), 0);
  void *a = d.stream(), *b = d.stream(), *graph = nullptr, *exec = nullptr, *fork = nullptr, *back = nullptr;
  CHECK_EQ(d.cuda.call("cuEventCreate", &fork, 2u), 0);
  CHECK_EQ(d.cuda.call("cuEventCreate", &back, 2u), 0);
  CHECK_EQ(d.cuda.call("cuStreamBeginCapture_v2", a, 1), 0);
  CHECK_EQ(d.launch(p, 1, 32, a), 0);
  CHECK_EQ(d.cuda.call("cuEventRecord", fork, a), 0);
  CHECK_EQ(d.cuda.call("cuStreamWaitEvent", b, fork, 0u), 0);
  CHECK_EQ(d.launch(p, 10, 16, b), 0);
  CHECK_EQ(d.cuda.call("cuEventRecord", back, b), 0);
  CHECK_EQ(d.cuda.call("cuStreamWaitEvent", a, back, 0u), 0);
  CHECK_EQ(d.launch(p, 100, 8, a), 0);
  CHECK_EQ(d.cuda.call("cuStreamEndCapture", a, &graph), 0);
  size_t nodes = 0;
  CHECK_EQ(d.cuda.call("cuGraphGetNodes", graph, (void**)nullptr, &nodes), 0);
  CHECK_EQ(nodes, 3u);
  CHECK_EQ(d.cuda.call("cuGraphInstantiateWithFlags", &exec, graph, 0ull), 0);
  CHECK_EQ(d.cuda.call("cuGraphDestroy", graph), 0);
  uint32_t out[32];
  CHECK_EQ(d.cuda.call("cuMemcpyDtoH_v2", (void*)out, p, size_t(128)), 0);
  CHECK_EQ(out[0], 0u);  // capturing runs nothing
  for (int i = 0; i < 3; ++i) CHECK_EQ(d.cuda.call("cuGraphLaunch", exec, a), 0);
  CHECK_EQ(d.cuda.call("cuStreamSynchronize", a), 0);
  CHECK_EQ(d.cuda.call("cuMemcpyDtoH_v2", (void*)out, p, size_t(128)), 0);
  CHECK_EQ(out[0], 333u);
  CHECK_EQ(out[10], 33u);
  CHECK_EQ(out[31], 3u);
}

TEST("ptxsim driver: what a capture forbids") {
  Device d;
  const uint64_t p = d.alloc(128);
  uint64_t q = 0;
  void *a = d.stream(), *b = d.stream(), *graph = nullptr, *event = nullptr;
  CHECK_EQ(d.cuda.call("cuEventCreate", &event, 2u), 0);
  const auto begin = [&] { CHECK_EQ(d.cuda.call("cuStreamBeginCapture_v2", a, 0), 0); };
  const auto end = [&] { return d.cuda.call("cuStreamEndCapture", a, &graph); };
  CHECK_EQ(d.cuda.call("cuStreamBeginCapture_v2", (void*)nullptr, 0), 900);
  begin();
  CHECK_EQ(d.cuda.call("cuMemAlloc_v2", &q, size_t(8)), 900);
  CHECK_EQ(d.launch(p, 1, 32, a), 901);
  CHECK_EQ(end(), 901);
  begin();
  CHECK_EQ(d.cuda.call("cuStreamSynchronize", a), 900);
  CHECK_EQ(end(), 901);
  begin();
  CHECK_EQ(d.cuda.call("cuEventRecord", event, a), 0);
  CHECK_EQ(d.cuda.call("cuStreamWaitEvent", b, event, 0u), 0);
  CHECK_EQ(d.launch(p, 1, 32, b), 0);
  CHECK_EQ(end(), 904);
  void* blocking = d.stream(0);
  CHECK_EQ(d.cuda.call("cuStreamBeginCapture_v2", blocking, 0), 0);
  CHECK_EQ(d.launch(p, 1, 32), 906);
  CHECK_EQ(d.cuda.call("cuStreamEndCapture", blocking, &graph), 901);
  int status = -1;
  CHECK_EQ(d.cuda.call("cuStreamIsCapturing", a, &status), 0);
  CHECK_EQ(status, 0);
}

TEST("ptxsim driver: counters, calls and leaks are reported") {
  Device d;
  const uint64_t p = d.alloc(4096), q = d.alloc(64);
  CHECK_EQ(d.cuda.call("cuMemsetD32_v2", p, 0u, size_t(1024)), 0);
  CHECK_EQ(d.launch(p, 1, 1024), 0);
  CHECK_EQ(d.cuda.call("cuCtxSynchronize"), 0);
  char back[96];
  CHECK_EQ(d.cuda.call("cuMemcpyDtoH_v2", static_cast<void*>(back), p, sizeof back), 0);
  CHECK_EQ(d.cuda.call("cuMemFree_v2", q), 0);
  const std::string r = d.cuda.text("ptxsim_report");
  for (const char* part : {"\"launches\":1", "\"threadInstructions\":14336", "\"sectorsRequested\":256",
                           "\"uniqueReadSectors\":128", "\"uniqueWrittenSectors\":128",
                           "\"cuLaunchKernel\":1", "\"bytesToHost\":96", "\"allocations\":1,\"bytes\":4096"})
    if (r.find(part) == r.npos)
      maestrale::test::fail(__FILE__, __LINE__, std::string(part) + " is not in " + r);
}

TEST("ptxsim driver: calls are counted by thread") {
  Device d;
  const int before = d.cuda.call("ptxsim_calls_of_thread");
  int of_other = -1;
  std::jthread([&] {
    d.cuda.call("cuInit", 0u);
    of_other = d.cuda.call("ptxsim_calls_of_thread");
  }).join();
  CHECK_EQ(of_other, 1);
  CHECK_EQ(d.cuda.call("ptxsim_calls_of_thread"), before);
  d.alloc(64);
  CHECK_EQ(d.cuda.call("ptxsim_calls_of_thread"), before + 1);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
