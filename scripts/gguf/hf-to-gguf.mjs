// SPDX-License-Identifier: Apache-2.0
// Converts a Hugging Face directory (config.json, model.safetensors in bfloat16, one file) to GGUF in
// BF16, for the test models.     node scripts/gguf/hf-to-gguf.mjs DIRECTORY OUT.gguf
//
// Weights are moved, never rounded: matrices stay bfloat16, norms widen to float32 as GGUF readers
// expect. Unlike most converters it keeps the sliding window. The vocabulary is a placeholder: three
// control tokens, the 256 bytes and unused fillers, enough to load the file and to run token ids.
import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { array, value, writeGguf } from './writer.mjs'

const LAYER_NAMES = {
  'input_layernorm.weight': 'attn_norm.weight',
  'self_attn.q_proj.weight': 'attn_q.weight',
  'self_attn.k_proj.weight': 'attn_k.weight',
  'self_attn.v_proj.weight': 'attn_v.weight',
  'self_attn.o_proj.weight': 'attn_output.weight',
  'post_attention_layernorm.weight': 'ffn_norm.weight',
  'mlp.gate_proj.weight': 'ffn_gate.weight',
  'mlp.up_proj.weight': 'ffn_up.weight',
  'mlp.down_proj.weight': 'ffn_down.weight',
}
const TOP_NAMES = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
}

/** Tensors of a safetensors file: name -> { shape, bytes }, all of dtype BF16. */
function readSafetensors(path) {
  const file = readFileSync(path)
  const headerBytes = Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes))
  const tensors = new Map()
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue
    if (entry.dtype !== 'BF16')
      throw new Error(`${name} is ${entry.dtype}, but only BF16 is converted`)
    const [begin, end] = entry.data_offsets.map((offset) => offset + 8 + headerBytes)
    tensors.set(name, { shape: entry.shape, bytes: file.subarray(begin, end) })
  }
  return tensors
}

function ggufName(name) {
  const layer = /^model\.layers\.(\d+)\.(.+)$/.exec(name)
  const mapped = layer
    ? LAYER_NAMES[layer[2]] && `blk.${layer[1]}.${LAYER_NAMES[layer[2]]}`
    : TOP_NAMES[name]
  if (!mapped) throw new Error(`no GGUF name for tensor '${name}'`)
  return mapped
}

/**
 * Reorders the rows of a Q or K matrix from Hugging Face's RoPE layout, which rotates row m of a head
 * with row m + headDim / 2, to GGUF's, which rotates neighbours: row h*D + 2m + s comes from h*D + s*D/2 + m.
 */
function interleaveRows(bytes, nRows, headDim) {
  const rowBytes = bytes.length / nRows
  const out = Buffer.alloc(bytes.length)
  for (let row = 0; row < nRows; row++) {
    const inHead = row % headDim
    const source = row - inHead + (inHead % 2) * (headDim / 2) + (inHead >> 1)
    bytes.copy(out, row * rowBytes, source * rowBytes, (source + 1) * rowBytes)
  }
  return out
}

// bfloat16 is the upper half of a float32.
function widen(bytes) {
  const out = Buffer.alloc(bytes.length * 2)
  for (let i = 0; i < bytes.length; i += 2) bytes.copy(out, i * 2 + 2, i, i + 2)
  return out
}

function placeholderVocabulary(size) {
  const tokens = ['<unk>', '<s>', '</s>']
  const types = [2, 3, 3] // unknown, control, control
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
    types.push(6) // byte
  }
  while (tokens.length < size) {
    tokens.push(`[UNUSED${tokens.length}]`)
    types.push(5) // unused
  }
  return {
    'tokenizer.ggml.model': value('string', 'llama'),
    'tokenizer.ggml.tokens': array('string', tokens),
    'tokenizer.ggml.scores': array(
      'f32',
      tokens.map(() => 0),
    ),
    'tokenizer.ggml.token_type': array('i32', types),
    'tokenizer.ggml.bos_token_id': value('u32', 1),
    'tokenizer.ggml.eos_token_id': value('u32', 2),
    'tokenizer.ggml.unknown_token_id': value('u32', 0),
  }
}

export function convert(directory, out) {
  const config = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8'))
  const headDim = config.head_dim ?? config.hidden_size / config.num_attention_heads
  const metadata = {
    'general.architecture': value('string', 'llama'),
    'general.name': value('string', basename(directory)),
    'llama.context_length': value('u32', config.max_position_embeddings),
    'llama.embedding_length': value('u32', config.hidden_size),
    'llama.block_count': value('u32', config.num_hidden_layers),
    'llama.feed_forward_length': value('u32', config.intermediate_size),
    'llama.rope.dimension_count': value('u32', headDim),
    'llama.attention.head_count': value('u32', config.num_attention_heads),
    'llama.attention.head_count_kv': value('u32', config.num_key_value_heads),
    'llama.attention.layer_norm_rms_epsilon': value('f32', config.rms_norm_eps),
    'llama.rope.freq_base': value('f32', config.rope_theta),
    'llama.vocab_size': value('u32', config.vocab_size),
    'llama.attention.key_length': value('u32', headDim),
    'llama.attention.value_length': value('u32', headDim),
    'general.file_type': value('u32', 32), // mostly BF16
    ...placeholderVocabulary(config.vocab_size),
  }
  // null means full attention, which GGUF expresses by the absence of the key.
  if (config.sliding_window)
    metadata['llama.attention.sliding_window'] = value('u32', config.sliding_window)

  const tensors = []
  for (const [hfName, { shape, bytes }] of readSafetensors(join(directory, 'model.safetensors'))) {
    const name = ggufName(hfName)
    const rotated = name.endsWith('attn_q.weight') || name.endsWith('attn_k.weight')
    const norm = shape.length === 1
    const data = rotated ? interleaveRows(bytes, shape[0], headDim) : norm ? widen(bytes) : bytes
    tensors.push({ name, type: norm ? 'f32' : 'bf16', shape: shape.toReversed(), data: [data] })
  }
  return writeGguf(out, { metadata, tensors })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [directory, out] = process.argv.slice(2)
  if (!out) {
    console.error('usage: node scripts/gguf/hf-to-gguf.mjs DIRECTORY OUT.gguf')
    process.exit(2)
  }
  console.log(`${out}: ${convert(directory, out)} bytes`)
}
