// SPDX-License-Identifier: Apache-2.0
// f16 matrix products of a warp: fragments from shared memory, mma, and copies into shared memory that run
// beside the arithmetic. Compute capability 7.5 has mma of half the depth, and copies through registers.
#pragma once

#include <cuda_fp16.h>

namespace maestrale::device {

__device__ inline unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices: lane i gives the address of row i % 8 of matrix i / 8 and gets elements
// (lane / 4, 2 * (lane % 4) + {0, 1}) of each; transposed: of its transpose.
__device__ inline void ldmatrix(unsigned (&r)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_transposed(unsigned (&r)[4], const __half* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += a * b for a of 16 x 16 and b of 16 x 8 halves, sums in binary32.
//   a[q]: row lane / 4 + 8 * (q & 1), columns 2 * (lane % 4) + {0, 1} + 8 * (q >> 1)
//   b[q]: column lane / 4, rows 2 * (lane % 4) + {0, 1} + 8 * q
//   c[q]: row lane / 4 + 8 * (q >> 1), column 2 * (lane % 4) + (q & 1)
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
#pragma unroll
  for (int h = 0; h < 2; ++h)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * h]), "r"(a[2 * h + 1]), "r"(h == 0 ? b0 : b1));
#endif
}

// Two floats as halves, `low` in the lower half.
__device__ inline unsigned pack_halves(float low, float high) {
  const __half2 packed = __floats2half2_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&packed);
}

#if __CUDA_ARCH__ >= 800
constexpr int kCopiesInFlight = 4;
#else
constexpr int kCopiesInFlight = 2;  // registers
#endif

// 16 bytes to shared memory, zeros where `inside` is false; there when copies_landed() has been followed by a
// barrier.
__device__ inline void copy16(void* to, const void* from, bool inside) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
#else
  *reinterpret_cast<uint4*>(to) = inside ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
#endif
}
// Ends a group of copies.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits for this thread's groups but for the latest one.
__device__ inline void copies_landed() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

}  // namespace maestrale::device
