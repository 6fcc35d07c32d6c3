// SPDX-License-Identifier: Apache-2.0
// Writes the hand-made seeds of the GGUF corpus; the other files there were found by the fuzzer.
//     node tests/fuzz/make-seeds.mjs tests/fuzz/corpus/gguf
import { join } from 'node:path'

import { array, value, writeGguf } from '../../scripts/gguf/writer.mjs'

const [directory] = process.argv.slice(2)
if (!directory) {
  console.error('usage: node tests/fuzz/make-seeds.mjs DIRECTORY')
  process.exit(2)
}
const write = (name, model) => writeGguf(join(directory, name), model)

const hyperparameters = {
  'general.architecture': value('string', 'llama'),
  'llama.context_length': value('u32', 128),
  'llama.embedding_length': value('u32', 32),
  'llama.block_count': value('u32', 1),
  'llama.feed_forward_length': value('u32', 48),
  'llama.rope.dimension_count': value('u32', 16),
  'llama.attention.head_count': value('u32', 2),
  'llama.attention.head_count_kv': value('u32', 1),
  'llama.attention.layer_norm_rms_epsilon': value('f32', 1e-5),
}
const bytePieces = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
)
const pieces = ['<unk>', '<s>', '</s>', ...bytePieces, '\u2581', 'a', 'b', 'ab', '\u2581a']
const vocabulary = {
  'tokenizer.ggml.model': value('string', 'llama'),
  'tokenizer.ggml.tokens': array('string', pieces),
  'tokenizer.ggml.scores': array(
    'f32',
    pieces.map((_, id) => -id),
  ),
  'tokenizer.ggml.token_type': array(
    'i32',
    pieces.map((_, id) => [2, 3, 3][id] ?? (id < 259 ? 6 : 1)),
  ),
  'tokenizer.ggml.bos_token_id': value('u32', 1),
  'tokenizer.ggml.eos_token_id': value('u32', 2),
  'tokenizer.ggml.unknown_token_id': value('u32', 0),
  'tokenizer.ggml.add_bos_token': value('bool', true),
  'tokenizer.chat_template': value('string', '{{ bos_token }}'),
}

write('empty', {})
write('hyperparameters-v2', {
  version: 2,
  metadata: { ...hyperparameters, 'llama.vocab_size': value('u32', 8) },
})
write('vocabulary', { metadata: { ...hyperparameters, ...vocabulary } })
write('values', {
  metadata: {
    u8: value('u8', 255),
    i8: value('i8', -1),
    u16: value('u16', 1),
    i16: value('i16', -1),
    i32: value('i32', -1),
    u64: value('u64', 1),
    i64: value('i64', -1),
    f64: value('f64', 0.5),
    no: value('bool', false),
    bools: array('bool', [true, false]),
    doubles: array('f64', [1, 2]),
    bytes: array('u8', [1, 2, 3]),
    shorts: array('i16', [-1, 1]),
    longs: array('u64', [1]),
    texts: array('string', ['', 'x']),
    none: array('i32', []),
  },
})
write('tensors', {
  alignment: 8,
  metadata: { ...hyperparameters, 'llama.vocab_size': value('u32', 4) },
  tensors: [
    { name: 'token_embd.weight', type: 'q8_0', shape: [32, 4], data: [new Uint8Array(136)] },
    { name: 'output_norm.weight', type: 'f32', shape: [32], data: [new Uint8Array(128)] },
    { name: 'cube', type: 'f16', shape: [2, 3, 2, 1], data: [new Uint8Array(24)] },
  ],
})
