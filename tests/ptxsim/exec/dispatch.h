// SPDX-License-Identifier: Apache-2.0
// From a PTX type to the C++ type of a handler, and the three shapes of lane-wise operations.
#pragma once

#include "exec/decoder.h"
#include "exec/warp.h"

namespace maestrale::ptxsim {

// F::run<T> for 16, 32 and 64-bit integers; nullptr for other types.
template <class F>
Handler integer_handler(Type type) {
  switch (type) {
    case Type::kU16: return F::template run<uint16_t>;
    case Type::kS16: return F::template run<int16_t>;
    case Type::kU32: return F::template run<uint32_t>;
    case Type::kS32: return F::template run<int32_t>;
    case Type::kU64: return F::template run<uint64_t>;
    case Type::kS64: return F::template run<int64_t>;
    default: return nullptr;
  }
}

// Without 64 bits: for operations that double the width.
template <class F>
Handler narrow_handler(Type type) {
  switch (type) {
    case Type::kU16: return F::template run<uint16_t>;
    case Type::kS16: return F::template run<int16_t>;
    case Type::kU32: return F::template run<uint32_t>;
    case Type::kS32: return F::template run<int32_t>;
    default: return nullptr;
  }
}

// For operations that only see bits.
template <class F>
Handler bits_handler(int bytes) {
  switch (bytes) {
    case 2: return F::template run<uint16_t>;
    case 4: return F::template run<uint32_t>;
    case 8: return F::template run<uint64_t>;
    default: return nullptr;
  }
}

template <class D, class A, class F>
void unary_op(Warp& w, const Op& op, uint32_t mask, F f) {
  const A* a = w.reg<A>(op.src[0]);
  lanes(w.reg<D>(op.dst), mask, [=](int i) { return D(f(a[i])); });
}

template <class D, class A, class B, class F>
void binary_op(Warp& w, const Op& op, uint32_t mask, F f) {
  const A* a = w.reg<A>(op.src[0]);
  const B* b = w.reg<B>(op.src[1]);
  lanes(w.reg<D>(op.dst), mask, [=](int i) { return D(f(a[i], b[i])); });
}

template <class D, class A, class B, class C, class F>
void ternary_op(Warp& w, const Op& op, uint32_t mask, F f) {
  const A* a = w.reg<A>(op.src[0]);
  const B* b = w.reg<B>(op.src[1]);
  const C* c = w.reg<C>(op.src[2]);
  lanes(w.reg<D>(op.dst), mask, [=](int i) { return D(f(a[i], b[i], c[i])); });
}

// The floating-point sides of opcodes that integers have too (float_ops.cc).
void decode_float_add(Decoder&, const Instruction&, Op&);
void decode_float_sub(Decoder&, const Instruction&, Op&);
void decode_float_mul(Decoder&, const Instruction&, Op&);
void decode_float_div(Decoder&, const Instruction&, Op&);
void decode_float_min(Decoder&, const Instruction&, Op&);
void decode_float_max(Decoder&, const Instruction&, Op&);
void decode_float_neg(Decoder&, const Instruction&, Op&);
void decode_float_abs(Decoder&, const Instruction&, Op&);
void decode_float_fma(Decoder&, const Instruction&, Op&);
// And of those, the halves (half_ops.cc); true when the instruction was one.
bool decode_half(Decoder&, const Instruction&, Op&);

}  // namespace maestrale::ptxsim
