// SPDX-License-Identifier: Apache-2.0
// Names what a KV page holds: SHA-256 over the name of the page before it and the page's own tokens, so
// a name stands for the whole text from position 0. Keys and values of a position depend on all earlier
// tokens (through the layers, also beyond the window), and a user who could make two texts collide could
// read another user's cache; hence a cryptographic hash (FIPS 180-4).
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

#include "backend/batch.h"

namespace maestrale {

struct PageKey {
  std::array<uint32_t, 8> words{};
  bool operator==(const PageKey&) const = default;
};

struct PageKeyHash {
  size_t operator()(const PageKey& key) const { return size_t(uint64_t(key.words[0]) << 32 | key.words[1]); }
};

namespace sha256 {

inline constexpr std::array<uint32_t, 8> kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
inline constexpr std::array<uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// Absorbs one block of 16 big-endian words.
inline void compress(std::array<uint32_t, 8>& state, const uint32_t* block) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; ++i) w[i] = block[i];
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<uint32_t, 8> worked = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state[i] += worked[i];
}

// Digest of `words`, each taken as 4 big-endian bytes.
inline std::array<uint32_t, 8> digest(std::span<const uint32_t> words) {
  std::array<uint32_t, 8> state = kInitial;
  std::array<uint32_t, 16> block{};
  size_t filled = 0;
  const auto put = [&](uint32_t word) {
    block[filled++] = word;
    if (filled == 16) compress(state, block.data()), filled = 0;
  };
  for (const uint32_t word : words) put(word);
  put(0x80000000);
  while (filled != 14) put(0);
  const uint64_t bits = uint64_t(words.size()) * 32;
  put(uint32_t(bits >> 32));
  put(uint32_t(bits));
  return state;
}

}  // namespace sha256

// What stands before the first page of a text. Nobody finds a text whose digest is one of these.
inline PageKey root_page_key(uint64_t root) {
  return {{0, 0, 0, 0, 0, 0, uint32_t(root >> 32), uint32_t(root)}};
}

// The key of a page from the key of the page before it (the root for the first page) and its tokens
// (kPagePositions of them).
inline PageKey next_page_key(const PageKey& before, std::span<const int32_t> tokens) {
  std::array<uint32_t, 8 + kPagePositions> words;
  for (size_t i = 0; i < 8; ++i) words[i] = before.words[i];
  for (size_t i = 0; i < size_t(kPagePositions); ++i) words[8 + i] = uint32_t(tokens[i]);
  return {sha256::digest(words)};
}

}  // namespace maestrale
