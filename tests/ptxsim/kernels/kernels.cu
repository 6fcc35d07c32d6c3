// SPDX-License-Identifier: Apache-2.0
// Small kernels that use what the engine's kernels use; the .ptx files beside this one are made from it
// by make_ptx.sh. The sizes are chosen by the tests so that no boundary test is idle.
#include <cuda_fp16.h>

#include <cstdint>

// out[block] = sum of x[block * n, +n): a loop with another trip count per thread, shuffles, shared memory.
extern "C" __global__ void __launch_bounds__(128) row_sum(const float* x, float* out, int n) {
  __shared__ float partial[4];
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

// Prefix sums of 128 integers behind a first one (Hillis and Steele 1986), two buffers, a barrier a step; the
// last sum comes first, so that the last barrier matters too.
extern "C" __global__ void __launch_bounds__(128) scan(const int* x, int* out) {
  __shared__ int buffer[2][128];
  const int t = threadIdx.x;
  int from = 0;
  buffer[0][t] = t > 0 ? x[blockIdx.x * 128 + t - 1] : blockIdx.x + 3;
  __syncthreads();
  for (int step = 1; step < 128; step *= 2) {
    buffer[1 - from][t] = buffer[from][t] + (t >= step ? buffer[from][t - step] : 0);
    from = 1 - from;
    __syncthreads();
  }
  out[blockIdx.x * 128 + t] = buffer[from][127 - t];
}

// y[row] = sum over 4 * words int8 products: one warp a row.
extern "C" __global__ void __launch_bounds__(64)
    dot_int8(const int* a, const int* x, int* y, int words, int rows) {
  const int row = blockIdx.x * 2 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  int sum = 0;
  for (int i = lane; i < words; i += 32) sum = __dp4a(a[row * words + i], x[i], sum);
  for (int o = 16; o; o >>= 1) sum += __shfl_down_sync(~0u, sum, o);
  if (lane == 0) y[row] = sum;
}

// Transposes 32 x 32 tiles through shared memory.
extern "C" __global__ void __launch_bounds__(256)
    transpose(const uint32_t* x, uint32_t* y, int rows, int cols) {
  __shared__ uint32_t tile[32][33];
  const int c = blockIdx.x * 32 + threadIdx.x, r0 = blockIdx.y * 32;
  for (int r = threadIdx.y; r < 32; r += 8)
    if (c < cols && r0 + r < rows) tile[r][threadIdx.x] = x[(r0 + r) * cols + c];
  __syncthreads();
  const int rc = r0 + threadIdx.x;
  for (int r = threadIdx.y; r < 32; r += 8)
    if (rc < rows && blockIdx.x * 32 + r < cols) y[(blockIdx.x * 32 + r) * rows + rc] = tile[threadIdx.x][r];
}

// The sum of all blocks by the block that comes last.
extern "C" __global__ void __launch_bounds__(64)
    last_block(const int* x, int* partial, unsigned* done, int* out) {
  __shared__ int sums[2];
  __shared__ bool last;
  int sum = x[blockIdx.x * 64 + threadIdx.x];
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sums[0] + sums[1];
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    int total = 0;
    for (unsigned i = 0; i < gridDim.x; ++i) total += ((volatile int*)partial)[i];
    *out = total;
  }
}

#if __CUDA_ARCH__ >= 800
// c (16 x 8, f32) = a (16 x k, f16) * b (8 x k, f16) transposed, by one warp: tiles of 16 columns through two
// stages of cp.async, ldmatrix and mma.
extern "C" __global__ void __launch_bounds__(32) gemm(const __half* a, const __half* b, float* c, int k) {
  __shared__ __align__(16) __half tile[2][24][16];
  const int lane = threadIdx.x;
  const auto copy = [&](int stage, int k0) {
    for (int i = lane; i < 48; i += 32) {
      const int row = i / 2, part = i % 2 * 8;
      const __half* from = (row < 16 ? a + row * k : b + (row - 16) * k) + k0 + part;
      const uint32_t to = uint32_t(__cvta_generic_to_shared(&tile[stage][row][part]));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  float d[4] = {0, 0, 0, 0};
  copy(0, 0);
  for (int k0 = 0, stage = 0; k0 < k; k0 += 16, stage ^= 1) {
    if (k0 + 16 < k) {
      copy(stage ^ 1, k0 + 16);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncwarp();
    uint32_t f[4], g[2];
    const uint32_t at = uint32_t(__cvta_generic_to_shared(&tile[stage][lane % 16][lane / 16 * 8]));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                 : "r"(at));
    const uint32_t bt = uint32_t(__cvta_generic_to_shared(&tile[stage][16 + lane % 8][lane / 8 % 2 * 8]));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(g[0]), "=r"(g[1])
                 : "r"(bt));
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(g[0]), "r"(g[1]));
    __syncwarp();
  }
  for (int q = 0; q < 4; ++q) c[(lane / 4 + q / 2 * 8) * 8 + lane % 4 * 2 + q % 2] = d[q];
}
#endif

// Integer work without memory, to measure the simulator's speed.
extern "C" __global__ void __launch_bounds__(256) spin_int(uint32_t* out, int n) {
  uint32_t x = threadIdx.x + 1, y = blockIdx.x + 7;
#pragma unroll 8
  for (int i = 0; i < n; ++i) {
    x = x * 1664525u + y;
    y ^= x >> 7;
    x += (y & 0xff) << 3;
    y = max(y, x ^ 0x5bd1e995u);
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = x ^ y;
}
