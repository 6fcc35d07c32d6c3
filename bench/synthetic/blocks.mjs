// SPDX-License-Identifier: Apache-2.0
// Random blocks of every quantised type whose values are spread like trained weights: mean 0 and a
// chosen standard deviation, so that activations stay finite and ordinary through any number of layers.
//
// The quants are random bits. A block's mean would not vanish by itself (unsigned nibbles average 7.5,
// signed ones -0.5) and a common mean grows from layer to layer, so each type cancels it: through its
// minimum (w = d * sc * (q - middle)) or through a random sign of its scale.

/** xorshift128: reproducible and fast enough to fill hundreds of megabytes. */
export class Random {
  #s = new Uint32Array(4)

  constructor(seed) {
    for (let i = 0; i < 4; i++) this.#s[i] = Math.imul(seed + i + 1, 0x9e3779b9) | 1
    for (let i = 0; i < 16; i++) this.next()
  }

  /** A uniform 32-bit integer. */
  next() {
    const s = this.#s
    let t = s[0]
    t ^= t << 11
    t ^= t >>> 8
    s[0] = s[1]
    s[1] = s[2]
    s[2] = s[3]
    s[3] = s[3] ^ (s[3] >>> 19) ^ t
    return s[3]
  }

  /** An integer from `low` to `high`, both included; the ranges here are tiny, so the modulo is fair enough. */
  between(low, high) {
    return low + (this.next() % (high - low + 1))
  }

  sign() {
    return this.next() & 1 ? 1 : -1
  }

  normal() {
    const u = (this.next() + 1) / 4294967297
    return Math.sqrt(-2 * Math.log(u)) * Math.cos((2 * Math.PI * this.next()) / 4294967296)
  }
}

const f32 = new Float32Array(1)
const f32Bits = new Uint32Array(f32.buffer)

/** IEEE binary16 of a finite number below 65504, rounded to nearest even. */
export function toF16(x) {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0
  const magnitude = Math.abs(x)
  if (magnitude < 2 ** -14) return sign | roundEven(magnitude * 2 ** 24)
  const exponent = Math.floor(Math.log2(magnitude))
  return sign | (((exponent + 15) << 10) + roundEven((magnitude / 2 ** exponent - 1) * 1024))
}

function roundEven(x) {
  const floor = Math.floor(x)
  const rest = x - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

export function toBf16(x) {
  f32[0] = x
  return (f32Bits[0] + 0x7fff + ((f32Bits[0] >>> 16) & 1)) >>> 16
}

const IQ4_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
const rms = (values) => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length)
const range = (low, high) => Array.from({ length: high - low + 1 }, (_, i) => low + i)
const centred = (n) => range(0, n - 1).map((q) => q - (n - 1) / 2)

const setF16 = (block, offset, x) => {
  const bits = toF16(x)
  block[offset] = bits & 255
  block[offset + 1] = bits >> 8
}

// Eight 6-bit scales and eight equal 6-bit minima in 12 bytes, as Q4_K and Q5_K pack them.
function packScalesAndMinima(block, offset, scales) {
  for (let s = 0; s < 4; s++) {
    const high = scales[s + 4]
    block[offset + s] = scales[s] | ((high >> 4) << 6)
    block[offset + s + 4] = scales[s] | ((high >> 4) << 6)
    block[offset + s + 8] = (high & 15) | ((high & 15) << 4)
  }
}

// Q4_K and Q5_K: w = d * sc * q - dmin * m with m = sc and dmin = d * middle.
function kWithMinimum(levels) {
  const perScale = rms(centred(levels)) * rms(range(32, 63))
  return (block, random, deviation) => {
    const d = deviation / perScale
    setF16(block, 0, d)
    setF16(block, 2, (d * (levels - 1)) / 2)
    packScalesAndMinima(
      block,
      4,
      Array.from({ length: 8 }, () => random.between(32, 63)),
    )
  }
}

// 32-item types: one scale in front, of random sign. `values` are the integers that it multiplies.
function signedScale(values) {
  const perScale = rms(values)
  return (block, random, deviation) => setF16(block, 0, (random.sign() * deviation) / perScale)
}

// Each entry sets the scales of a block that already holds random bytes.
const SET_SCALES = {
  q4_0: signedScale(range(-8, 7)),
  q8_0: signedScale(range(-128, 127)),
  q4_k: kWithMinimum(16),
  q5_k: kWithMinimum(32),
  q2_k(block, random, deviation) {
    const d = deviation / (rms(centred(4)) * rms(range(8, 15)))
    for (let i = 0; i < 16; i++) block[i] = random.between(8, 15) * 0x11
    setF16(block, 80, d)
    setF16(block, 82, d * 1.5)
  },
  q3_k(block, random, deviation) {
    const d = deviation / (rms(range(-4, 3)) * rms(range(12, 31)))
    const scales = Array.from({ length: 16 }, () => 32 + random.sign() * random.between(12, 31))
    for (let i = 0; i < 8; i++) block[96 + i] = (scales[i] & 15) | ((scales[i + 8] & 15) << 4)
    for (let i = 0; i < 4; i++)
      block[104 + i] =
        (scales[i] >> 4) |
        ((scales[i + 4] >> 4) << 2) |
        ((scales[i + 8] >> 4) << 4) |
        ((scales[i + 12] >> 4) << 6)
    setF16(block, 108, d)
  },
  q6_k(block, random, deviation) {
    for (let i = 0; i < 16; i++) block[192 + i] = (random.sign() * random.between(64, 127)) & 255
    setF16(block, 208, deviation / (rms(range(-32, 31)) * rms(range(64, 127))))
  },
  iq4_xs(block, random, deviation) {
    let high = 0
    block.fill(0, 4, 8)
    for (let i = 0; i < 8; i++) {
      const scale = 32 + random.sign() * random.between(12, 31)
      high |= (scale >> 4) << (2 * i)
      block[4 + (i >> 1)] |= (scale & 15) << (4 * (i & 1))
    }
    setF16(block, 0, deviation / (rms(IQ4_VALUES) * rms(range(12, 31))))
    block[2] = high & 255
    block[3] = high >> 8
  },
}

/** `count` random blocks of `bytesPerBlock` bytes, as one Buffer. */
export function randomBlocks(type, bytesPerBlock, count, deviation, random) {
  const bytes = Buffer.alloc(count * bytesPerBlock)
  if (type === 'f16' || type === 'bf16') {
    const convert = type === 'f16' ? toF16 : toBf16
    const half = Uint16Array.from({ length: 32768 }, () => convert(random.normal() * deviation))
    const table = Uint16Array.of(...half, ...half.map((bits) => bits ^ 0x8000)) // each value and its negative
    for (let i = 0; i < count; i++) bytes.writeUInt16LE(table[random.next() & 65535], 2 * i)
    return bytes
  }
  const setScales = SET_SCALES[type]
  if (!setScales) throw new Error(`no random blocks for type '${type}'`)
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  for (let i = 0; i < words.length; i++) words[i] = random.next()
  for (let i = 0; i < count; i++)
    setScales(bytes.subarray(i * bytesPerBlock, (i + 1) * bytesPerBlock), random, deviation)
  return bytes
}
