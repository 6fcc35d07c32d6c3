// SPDX-License-Identifier: Apache-2.0
// Writes a GGUF file with the shapes, the storage mix and the vocabulary of Mistral 7B v0.1 and random
// weights, for measurements that need the real sizes and not the real text.
//     node bench/synthetic/make-7b.mjs --out 7b-q4_k_m.gguf [--type q4_k_m] [--layers 32] [--seed 1]
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { readGgufHeader } from '../../scripts/gguf/reader.mjs'
import { tensorBytes, tensorType } from '../../scripts/gguf/types.mjs'
import { value, writeGguf } from '../../scripts/gguf/writer.mjs'
import { Random, randomBlocks } from './blocks.mjs'

const DIM = 4096
const HIDDEN = 14336
const HEAD_DIM = 128
const N_HEADS = 32
const N_KV_HEADS = 8
const VOCAB = 32000
const DEVIATION = 0.02 // of the weights, as Mistral's are initialised
// Random blocks are drawn once per type and repeated from random places. 32 MiB is far more than any
// cache holds, and no two tensors are alike.
const POOL_BYTES = 32 * 2 ** 20
const VOCABULARY = fileURLToPath(
  new URL('../../tests/vectors/tokenizers/vocab-only-v0.1.gguf', import.meta.url),
)

// Which layers a K mix gives more bits: the first and last eighth and every third in between.
const moreBits = (layer, n) =>
  layer < Math.floor(n / 8) ||
  layer >= Math.floor((7 * n) / 8) ||
  (layer - Math.floor(n / 8)) % 3 === 2

const uniform = (type) => ({ fileType: FILE_TYPES[type], choose: () => type })
const FILE_TYPES = { f16: 1, bf16: 32, q8_0: 7, q6_k: 18 }

// choose(tensor, layer, number of layers) -> storage type, as in the published files of that name.
const MIXES = {
  f16: uniform('f16'),
  bf16: uniform('bf16'),
  q8_0: uniform('q8_0'),
  q6_k: uniform('q6_k'),
  q4_0: { fileType: 2, choose: (tensor) => (tensor === 'output' ? 'q6_k' : 'q4_0') },
  q4_k_m: {
    fileType: 15,
    choose: (tensor, layer, n) => {
      if (tensor === 'output') return 'q6_k'
      return (tensor === 'attn_v' || tensor === 'ffn_down') && moreBits(layer, n) ? 'q6_k' : 'q4_k'
    },
  },
  q5_k_m: {
    fileType: 17,
    choose: (tensor, layer, n) => {
      if (tensor === 'output') return 'q6_k'
      return (tensor === 'attn_v' || tensor === 'ffn_down') && moreBits(layer, n) ? 'q6_k' : 'q5_k'
    },
  },
  q3_k_m: {
    fileType: 12,
    choose: (tensor, layer, n) => {
      if (tensor === 'output') return 'q6_k'
      if (tensor === 'attn_v') return layer < 2 ? 'q5_k' : 'q4_k'
      if (tensor === 'ffn_down') return layer < Math.floor(n / 16) ? 'q5_k' : 'q4_k'
      return tensor === 'attn_output' ? 'q4_k' : 'q3_k'
    },
  },
  q2_k: {
    fileType: 10,
    choose: (tensor) => {
      if (tensor === 'output') return 'q6_k'
      if (tensor === 'attn_v') return 'q4_k'
      return tensor === 'ffn_down' || tensor === 'attn_output' ? 'q3_k' : 'q2_k'
    },
  },
  iq4_xs: {
    fileType: 30,
    choose: (tensor, layer, n) => {
      if (tensor === 'output') return 'q6_k'
      const five = tensor === 'attn_v' || (tensor === 'ffn_down' && layer < Math.floor(n / 8))
      return five ? 'q5_k' : 'iq4_xs'
    },
  },
}

/** Yields `bytes` bytes of random blocks, in pieces of a shared pool. */
class BlockPool {
  #pools = new Map()
  #random

  constructor(seed) {
    this.#random = new Random(seed)
  }

  *take(type, bytes) {
    const { bytesPerBlock } = tensorType(type)
    const count = Math.floor(POOL_BYTES / bytesPerBlock)
    if (!this.#pools.has(type))
      this.#pools.set(type, randomBlocks(type, bytesPerBlock, count, DEVIATION, this.#random))
    const pool = this.#pools.get(type)
    for (let left = bytes; left > 0; ) {
      const start = (this.#random.next() % count) * bytesPerBlock
      const piece = pool.subarray(start, Math.min(pool.length, start + left))
      yield piece
      left -= piece.length
    }
  }

  // Norm weights: around 1, never 0.
  norm(n) {
    const values = Float32Array.from(
      { length: n },
      () => 1 + 0.1 * Math.tanh(this.#random.normal()),
    )
    return new Uint8Array(values.buffer)
  }
}

function* modelTensors(mix, nLayers, pool) {
  const matrix = (name, tensor, layer, cols, rows) => {
    const type = mix.choose(tensor, layer, nLayers)
    const shape = [cols, rows]
    return { name: `${name}.weight`, type, shape, data: pool.take(type, tensorBytes(type, shape)) }
  }
  const norm = (name) => ({
    name: `${name}.weight`,
    type: 'f32',
    shape: [DIM],
    data: [pool.norm(DIM)],
  })
  const kv = N_KV_HEADS * HEAD_DIM
  yield matrix('token_embd', 'token_embd', 0, DIM, VOCAB)
  for (let layer = 0; layer < nLayers; layer++) {
    const inBlock = (tensor, cols, rows) =>
      matrix(`blk.${layer}.${tensor}`, tensor, layer, cols, rows)
    yield inBlock('attn_q', DIM, N_HEADS * HEAD_DIM)
    yield inBlock('attn_k', DIM, kv)
    yield inBlock('attn_v', DIM, kv)
    yield inBlock('attn_output', N_HEADS * HEAD_DIM, DIM)
    yield inBlock('ffn_gate', DIM, HIDDEN)
    yield inBlock('ffn_up', DIM, HIDDEN)
    yield inBlock('ffn_down', HIDDEN, DIM)
    yield norm(`blk.${layer}.attn_norm`)
    yield norm(`blk.${layer}.ffn_norm`)
  }
  yield norm('output_norm')
  yield matrix('output', 'output', 0, DIM, VOCAB)
}

const { values: options } = parseArgs({
  options: {
    out: { type: 'string' },
    type: { type: 'string', default: 'q4_k_m' },
    layers: { type: 'string', default: '32' },
    seed: { type: 'string', default: '1' },
  },
})
const mix = MIXES[options.type]
const nLayers = Number(options.layers)
if (!options.out || !mix || !Number.isInteger(nLayers) || nLayers < 1 || nLayers > 512) {
  console.error(
    `usage: make-7b.mjs --out PATH [--type ${Object.keys(MIXES).join('|')}] [--layers 1..512] [--seed N]`,
  )
  process.exit(2)
}
const started = performance.now()
const { metadata } = readGgufHeader(VOCABULARY)
metadata['general.name'] = value('string', `synthetic-7b-${options.type}`)
metadata['llama.block_count'] = value('u32', nLayers)
metadata['general.file_type'] = value('u32', mix.fileType)
metadata['general.quantization_version'] = value('u32', 2)
// Said explicitly, so that a file of fewer layers has Mistral's window too.
metadata['llama.attention.sliding_window'] = value('u32', 4096)
const tensors = [...modelTensors(mix, nLayers, new BlockPool(Number(options.seed)))]
const bytes = writeGguf(options.out, { metadata, tensors })
console.log(
  `${options.out}: ${bytes} bytes, ${tensors.length} tensors, ${((performance.now() - started) / 1000).toFixed(1)} s`,
)
