// SPDX-License-Identifier: Apache-2.0
// Writes a PEFT adapter with random values for all seven projections of a model.
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

import { Random } from './blocks.mjs'

const DTYPE_BYTES = { BF16: 2, F32: 4 }

/** `info` is that of the loaded model, `dtype` 'BF16' or 'F32'. */
export function writeAdapter(directory, info, { rank = 16, dtype = 'BF16', seed = 1 } = {}) {
  const q = info.nHeads * info.headDim
  const kv = info.nKvHeads * info.headDim
  const modules = [
    ['self_attn.q_proj', q, info.dim],
    ['self_attn.k_proj', kv, info.dim],
    ['self_attn.v_proj', kv, info.dim],
    ['self_attn.o_proj', info.dim, q],
    ['mlp.gate_proj', info.hiddenDim, info.dim],
    ['mlp.up_proj', info.hiddenDim, info.dim],
    ['mlp.down_proj', info.dim, info.hiddenDim],
  ]
  const header = {}
  let offset = 0
  const add = (name, shape) => {
    const bytes = shape[0] * shape[1] * DTYPE_BYTES[dtype]
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  for (let layer = 0; layer < info.nLayers; layer++) {
    for (const [name, rows, cols] of modules) {
      const module = `base_model.model.model.layers.${layer}.${name}`
      add(`${module}.lora_A.weight`, [rank, cols])
      add(`${module}.lora_B.weight`, [rows, rank])
    }
  }
  mkdirSync(directory, { recursive: true })
  const config = {
    peft_type: 'LORA',
    r: rank,
    lora_alpha: rank,
    target_modules: modules.map(([name]) => name.split('.')[1]),
  }
  writeFileSync(join(directory, 'adapter_config.json'), JSON.stringify(config))
  const file = openSync(join(directory, 'adapter_model.safetensors'), 'w')
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeSync(file, length)
  writeSync(file, text)
  // The same megabyte over and over: what is measured is moving values, whatever they are.
  const random = new Random(seed)
  const values = Float32Array.from({ length: 2 ** 18 }, () => 0.01 * random.normal())
  const bits = new Uint32Array(values.buffer)
  const piece = Buffer.from(
    dtype === 'F32' ? values.buffer : Uint16Array.from(bits, (word) => word >>> 16).buffer,
  )
  for (let written = 0; written < offset; written += piece.length) {
    writeSync(file, piece, 0, Math.min(piece.length, offset - written))
  }
  closeSync(file)
}
