// SPDX-License-Identifier: Apache-2.0
// What a machine allows, from its probe (kernels/probe.cc) and the shapes of a model. Tokens per second.

/**
 * Work of a model as `maestrale inspect --json` describes it: multiply-adds of a token in all matrices but
 * the embedding (`macs`), of them those of the output matrix, which a prompt needs once (`outputMacs`), and
 * the bytes that a step reads (`bytes`).
 */
export function modelCost({ tensors, config }) {
  const cost = { macs: 0, outputMacs: 0, bytes: 0, outputBytes: 0, ...config }
  for (const { name, shape, bytes } of tensors) {
    if (shape.length < 2 || name === 'token_embd.weight') continue
    const macs = shape.reduce((product, size) => product * size, 1)
    cost.macs += macs
    cost.bytes += bytes
    if (name === 'output.weight') {
      cost.outputMacs += macs
      cost.outputBytes += bytes
    }
  }
  return cost
}

// Bits of a weight in memory.
const BITS = {
  nf4: 4.25,
  fp4: 4.25,
  q4_0: 4.5,
  q4_k: 4.5,
  q5_k: 5.5,
  q6_k: 6.5625,
  q8_0: 8.5,
  bf16: 16,
}

/**
 * The cost of a model whose layers are quantised to `type` while it is loaded. Of the output matrix, which is of
 * another type then, it takes what the file has: let that be in Q6_K, or for NF4 and FP4 in anything.
 */
export function quantizedCost(cost, type) {
  if (!BITS[type]) throw new Error(`how many bits a weight has in ${type} is not known here`)
  const layers = ((cost.macs - cost.outputMacs) * BITS[type]) / 8
  return { ...cost, bytes: layers + cost.outputBytes }
}

// Attention multiplies in int16 here, half as many a cycle as int8; a GPU's projection says what it does.
const attentionGmacs = (probe) => probe.attentionGmacs ?? probe.int8Gmacs / 2

// Multiply-adds of attention for one query over `keys` keys: scores and their weighted sum.
const attentionMacs = ({ nLayers, nHeads, headDim }, keys) => nLayers * nHeads * headDim * 2 * keys

/** n sequences in one step, each behind `context` positions whose keys and values take 16 bits. */
export function decodeLimit(cost, probe, n, context) {
  const keys = Math.min(context, cost.slidingWindow || context)
  const kvBytes = keys * cost.nLayers * cost.nKvHeads * cost.headDim * 4
  const memory = (cost.bytes + n * kvBytes) / (probe.readGBs * 1e9)
  const compute =
    (n * cost.macs) / (probe.int8Gmacs * 1e9) +
    (n * attentionMacs(cost, keys)) / (attentionGmacs(probe) * 1e9)
  return n / Math.max(memory, compute)
}

/** A prompt of n tokens: int8 in the matrices, int16 in attention. */
export function prefillLimit(cost, probe, n) {
  const window = Math.min(n, cost.slidingWindow || n)
  // A query sees half a window on average until the window is full, and all of it from there on.
  const keys = window - (window * window) / (2 * n)
  const seconds =
    (cost.macs - cost.outputMacs) / (probe.int8Gmacs * 1e9) +
    attentionMacs(cost, keys) / (attentionGmacs(probe) * 1e9)
  return 1 / seconds
}
