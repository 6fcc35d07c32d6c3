// SPDX-License-Identifier: Apache-2.0
// quantize_<form>, norm_quantize_<form>: activations to the records of tile_layout.h, eight bits with a scale
// for 256 or 32 columns, 14 bits with one for 32, or two halves, of x or of x / sqrt(mean(x^2) + eps) *
// weight (RMSNorm). A warp takes a unit. Grid of quantize (rows, ceil(units / 4)), block 128; of
// norm_quantize (rows), block 512. Columns behind the last are zeros. What is not finite stays so: as an
// infinite scale.
#pragma once

#include "dot.cuh"
#include "halves.cuh"

namespace maestrale::device {

enum class Form { kQ256, kQ32, kQ32Wide, kHalves };
template <Form form>
constexpr int kUnitBytes = form == Form::kHalves    ? kHalfRecordBytes
                           : form == Form::kQ32Wide ? 2 * kRecordBytes
                                                    : kRecordBytes;

__device__ inline float4 load_columns(const float* row, int at, int cols) {
  return at < cols ? *reinterpret_cast<const float4*>(row + at) : float4{};
}

template <int kLargest>
__device__ inline float scale_of(unsigned largest) {
  return largest < 0x7f800000 ? __uint_as_float(largest) / kLargest : __uint_as_float(0x7f800000);
}

// `largest` has the bits of the greatest absolute value, whose code is kLargest, of the lane's columns with
// one scale.
//
// The lane has the codes 8 l .. 8 l + 7 of the record: of tile l / 8 the columns 16 g + 4 (l % 8 / 2) .., g =
// 2 (l % 2) and one more. Lanes that differ in bits 1 and 2 share the 16 columns of a g.
template <Form form, int kLargest>
__device__ void put_record(const unsigned (&words)[2], unsigned largest, Byte* record, int lane) {
  int sums[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    sums[h] = __dp4a(int(words[h]), 0x01010101, 0);
    sums[h] += __shfl_xor_sync(0xffffffff, sums[h], 2);
    sums[h] += __shfl_xor_sync(0xffffffff, sums[h], 4);
  }
  *reinterpret_cast<uint2*>(record + 8 * lane) = {words[0], words[1]};
  if ((lane & 6) != 0) return;
  const int block = 2 * (lane >> 3) + (lane & 1);  // of 32 columns
  Byte* tail = record + kTail;
  const float scale = scale_of<kLargest>(largest);
  *reinterpret_cast<short*>(tail + 32 + 2 * block) = short(sums[0] + sums[1]);
  if (form == Form::kQ32) {
    *reinterpret_cast<float*>(tail + 4 * block) = scale;
  } else {
    *reinterpret_cast<unsigned*>(tail + 4 * block) = (sums[0] & 0xffff) | sums[1] << 16;
  }
  if (lane == 0) *reinterpret_cast<float4*>(tail + 48) = {form == Form::kQ256 ? scale : 0.0f, 0, 0, 0};
}

// Columns first_column() .. + 3 and 16 more.
__device__ inline void put_halves(const float (&v)[8], unsigned largest, Byte* record, int lane) {
  const int exponent = scale_exponent(largest);
  const float inverse = power_of_two(13 - exponent);
  Byte* to = record + 2 * (64 * (lane >> 3) + 32 * (lane & 1) + 4 * (lane >> 1 & 3));
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    unsigned upper[2], lower[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const float a = v[4 * h + 2 * k] * inverse, b = v[4 * h + 2 * k + 1] * inverse;
      upper[k] = pack_halves(a, b);
      lower[k] = pack_halves(__fsub_rn(a, half_bits(upper[k])), __fsub_rn(b, half_bits(upper[k] >> 16)));
    }
    *reinterpret_cast<uint2*>(to + 32 * h) = {upper[0], upper[1]};
    *reinterpret_cast<uint2*>(to + (kLowerHalves + 32 * h)) = {lower[0], lower[1]};
  }
  if (lane == 0) *reinterpret_cast<float*>(record + kHalfScale) = power_of_two(exponent - 13);
}

// Unit `unit` of row `row`; all records begin at `records`.
template <Form form>
__device__ void quantize_unit(float4 (&x)[2], Byte* records, int row, int units, int unit, int lane) {
  Byte* record = records + ((long long)row * units + unit) * kUnitBytes<form>;
  const float v[8] = {x[0].x, x[0].y, x[0].z, x[0].w, x[1].x, x[1].y, x[1].z, x[1].w};
  unsigned largest = 0;  // as unsigned numbers, infinity and NaN are greater than all others
#pragma unroll
  for (int i = 0; i < 8; ++i) largest = max(largest, __float_as_uint(fabsf(v[i])));
  largest = max(largest, __shfl_xor_sync(0xffffffff, largest, 2));
  largest = max(largest, __shfl_xor_sync(0xffffffff, largest, 4));
  if (form == Form::kQ256 || form == Form::kHalves)
#pragma unroll
    for (int step = 1; step < 32; step = step == 1 ? 8 : 2 * step)
      largest = max(largest, __shfl_xor_sync(0xffffffff, largest, step));
  if constexpr (form == Form::kHalves) return put_halves(v, largest, record, lane);
  constexpr int kLargest = form == Form::kQ32Wide ? 8191 : 127;
  const float top = __uint_as_float(largest);
  const float factor = top > 1e-30f ? kLargest / top : 0.0f;
  unsigned words[2] = {}, low[2] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int code = __float2int_rn(v[i] * factor), shift = 8 * (i & 3);
    if constexpr (form == Form::kQ32Wide) {
      const int high = (code + 64) >> 7;
      words[i >> 2] |= (high & 255) << shift;
      low[i >> 2] |= (code - 128 * high & 255) << shift;
    } else {
      words[i >> 2] |= (code & 255) << shift;
    }
  }
  if constexpr (form == Form::kQ32Wide) {
    put_record<Form::kQ32, kLargest>(words, largest, record, lane);
    put_record<Form::kQ32, kLargest>(low, largest, record + kRecordBytes, lane);
  } else {
    put_record<form, kLargest>(words, largest, record, lane);
    if (form == Form::kQ256 && row < kScalesBytes / 4 && lane == 0)
      reinterpret_cast<float*>(records - kScalesBytes * (unit + 1))[row] = scale_of<kLargest>(largest);
  }
}

__device__ inline int first_column(int unit, int lane) {
  return kUnitCols * unit + 64 * (lane >> 3) + 32 * (lane & 1) + 4 * (lane >> 1 & 3);
}

template <Form form>
__device__ void quantize(const float* x, Byte* records, int cols, int units) {
  const int unit = 4 * blockIdx.y + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (unit >= units) return;
  const float* row = x + (long long)blockIdx.x * cols;
  const int at = first_column(unit, lane);
  float4 v[2] = {load_columns(row, at, cols), load_columns(row, at + 16, cols)};
  quantize_unit<form>(v, records, blockIdx.x, units, unit, lane);
}

// The square root's argument is summed in an order that depends on the number of columns only.
template <Form form>
__device__ void norm_quantize(const float* x, const float* weight, Byte* records, int cols, int units,
                              float eps) {
  __shared__ float sums[16];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const float* row = x + (long long)blockIdx.x * cols;
  float sum = 0;
  for (int at = 4 * threadIdx.x; at < cols; at += 4 * 512) {
    const float4 v = *reinterpret_cast<const float4*>(row + at);
    sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
  }
  sum = warp_sum(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  const float mean = warp_sum(lane < 16 ? sums[lane] : 0.0f) / float(cols);
  const float scale = 1.0f / sqrtf(mean + eps);
  for (int unit = warp; unit < units; unit += 16) {
    const int at = first_column(unit, lane);
    float4 v[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float4 w = load_columns(weight, at + 16 * h, cols);
      v[h] = load_columns(row, at + 16 * h, cols);
      v[h] = {v[h].x * scale * w.x, v[h].y * scale * w.y, v[h].z * scale * w.z, v[h].w * scale * w.w};
    }
    quantize_unit<form>(v, records, blockIdx.x, units, unit, lane);
  }
}

}  // namespace maestrale::device

#define MAESTRALE_QUANTIZE(form, name)                                                                     \
  extern "C" __global__ void __launch_bounds__(128)                                                        \
      quantize_##name(const float* x, unsigned char* records, int cols, int units) {                       \
    maestrale::device::quantize<maestrale::device::Form::form>(x, records, cols, units);                   \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(512) norm_quantize_##name(                                  \
      const float* x, const float* weight, unsigned char* records, int cols, int units, float eps) {       \
    maestrale::device::norm_quantize<maestrale::device::Form::form>(x, weight, records, cols, units, eps); \
  }
MAESTRALE_QUANTIZE(kQ256, q256)
MAESTRALE_QUANTIZE(kQ32, q32)
MAESTRALE_QUANTIZE(kQ32Wide, q32_wide)
MAESTRALE_QUANTIZE(kHalves, halves)
