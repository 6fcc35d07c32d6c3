// SPDX-License-Identifier: Apache-2.0
// How far the distributions of one model are from those of another. All logarithms are natural.

/** Log-probabilities of one row of logits. */
export function logSoftmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b))
  const total = logits.reduce((sum, value) => sum + Math.exp(value - most), 0)
  const shift = most + Math.log(total)
  return Float64Array.from(logits, (value) => value - shift)
}

/** Rows of logits [n, vocabSize] as log-probabilities. */
export function logProbabilities(logits, vocabSize) {
  return Array.from({ length: logits.length / vocabSize }, (_, i) =>
    logSoftmax(logits.subarray(i * vocabSize, (i + 1) * vocabSize)),
  )
}

/** Kullback-Leibler divergence of q from p in nats, both log-probabilities. */
export function klDivergence(p, q) {
  return p.reduce((sum, logP, i) => sum + Math.exp(logP) * (logP - q[i]), 0)
}

export function argmax(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0)
}

/** exp of the negative mean log-probability of tokens[1..] under the rows before them. */
export function perplexity(rows, tokens) {
  let sum = 0
  for (let i = 1; i < tokens.length; i++) sum += rows[i - 1][tokens[i]]
  return Math.exp(-sum / (tokens.length - 1))
}
