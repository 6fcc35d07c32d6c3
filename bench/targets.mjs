// SPDX-License-Identifier: Apache-2.0
// What the project wants of bench/peers, and whether a row of its figures meets it.
//   ratio    to the other engine's figure in the same run, at least
//   percent  of what the machine allows, at least: what the kernels were designed for
//   most     in the metric's own unit

/** In the order of the tables. Of rates more is better, of all else less. */
export const TARGETS = {
  prefill_512: { title: 'prefill, 512 tokens', unit: 'tok/s', ratio: 3.9, percent: 68 },
  prefill_4096: { title: 'prefill, 4096 tokens', unit: 'tok/s', ratio: 3.9, percent: 62 },
  decode_1: { title: 'decode, 1 sequence', unit: 'tok/s', ratio: 1.45, percent: 97 },
  decode_1_at_4096: {
    title: 'decode, 1 sequence, at 4096',
    unit: 'tok/s',
    ratio: 1.7,
    percent: 95,
  },
  decode_8: { title: 'decode, 8 sequences, sum', unit: 'tok/s', ratio: 7.5, percent: 82 },
  decode_16: { title: 'decode, 16 sequences, sum', unit: 'tok/s', percent: 66 },
  ttft_16: { title: 'first token behind 16 tokens', unit: 'ms' },
  load: { title: 'load, file in page cache', unit: 'ms', most: 1500 },
  peak_memory: { title: 'peak memory, of the file size', unit: 'x', most: 1.15 },
  abandon_1000: { title: 'abandon a 1000-token prefill', unit: 'ms', most: 250 },
  loop_delay_p99_8: { title: 'event-loop delay, 8 sequences, p99', unit: 'ms', most: 1.5 },
  loop_delay_max_8: { title: 'event-loop delay, 8 sequences, max', unit: 'ms', most: 10 },
}

/**
 * A row of peers.csv against its target: `wanted` in words, `predicted` (the figure at the wanted percentage
 * of this machine's limit), `possible` (the ratio at 100 % of it) and `verdict`: 'met' or 'missed',
 * and whether the ratio is beyond this machine because even the limit would not do.
 */
export function assess(row) {
  const { ratio, percent, most } = TARGETS[row.metric] ?? {}
  const [ours, theirs, limit] = [row.ours, row.theirs, row.limit].map((text) =>
    text === '' || text === undefined ? undefined : Number(text),
  )
  const wanted = [
    ratio && `${ratio}x`,
    percent && `${percent} % of the limit`,
    most && `at most ${most}`,
  ].filter(Boolean)
  const predicted = limit && percent ? (limit * percent) / 100 : undefined
  const possible = limit && theirs && percent ? limit / theirs : undefined
  const met = [
    ratio === undefined || theirs === undefined || ours / theirs >= ratio,
    percent === undefined || limit === undefined || (100 * ours) / limit >= percent,
    most === undefined || ours <= most,
  ]
  const beyond = possible < ratio && !met[0]
  const others = met.slice(beyond ? 1 : 0).every(Boolean)
  const verdicts = [
    others ? (beyond ? '' : 'met') : 'missed',
    beyond ? 'ratio beyond this machine' : '',
  ]
  return {
    wanted: wanted.join(', '),
    predicted,
    possible,
    verdict: wanted.length === 0 ? '' : verdicts.filter(Boolean).join('; '),
  }
}
