// SPDX-License-Identifier: Apache-2.0
// From measured values to published figures: statistics, the machine's limits, targets, CSV files.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { appendCsv, readCsv, root } from '../../bench/common.mjs'
import { decodeLimit, modelCost, prefillLimit, quantizedCost } from '../../bench/limits.mjs'
import { parseMachineTicks, parseProcessTicks, percentElsewhere } from '../../bench/measure.mjs'
import {
  adapterCost,
  compareTurns,
  median,
  percentile,
  rate,
  rateTogether,
} from '../../bench/statistics.mjs'
import { assess } from '../../bench/targets.mjs'

describe('statistics', () => {
  test('percentiles are values that occurred', () => {
    const values = [5, 1, 4, 2, 3]
    expect(median(values)).toBe(3)
    expect(median([4, 1, 2, 3])).toBe(2)
    expect(percentile(values, 99)).toBe(5)
    expect(percentile(values, 0)).toBe(1)
    expect(values[0]).toBe(5)
    expect(() => median([])).toThrow('no values')
  })

  test('a rate counts the tokens after the first', () => {
    expect(rate([100, 200, 300])).toBe(10)
  })

  test('a rate together counts the time in which all stream', () => {
    // From 100 (the last to begin) to 300 (the first to end): 2 + 2 tokens in 200 ms.
    expect(
      rateTogether([
        [0, 100, 200, 300],
        [100, 200, 300, 400],
      ]),
    ).toBe(20)
    // A step of 100 ms whose tokens arrive a millisecond apart.
    expect(
      rateTogether([
        [0, 100, 200, 300],
        [1, 101, 201, 301],
        [2, 102, 202, 302],
      ]),
    ).toBeCloseTo(30)
    expect(() =>
      rateTogether([
        [0, 10],
        [20, 30],
      ]),
    ).toThrow('never streamed')
  })
})

test('sides that take turns are compared within a turn', () => {
  // The machine is half as fast in the second turn and slower still in the third: the ratio stays.
  const turns = [
    { ours: 30, theirs: 10, limit: 40 },
    { ours: 15, theirs: 5, limit: 20 },
    { ours: 12, theirs: 6, limit: 12 },
  ]
  expect(compareTurns(turns)).toEqual({ ours: 15, theirs: 6, limit: 20, ratio: 3, share: 0.75 })
  expect(compareTurns([{ ours: 2 }])).toEqual({
    ours: 2,
    theirs: undefined,
    limit: undefined,
    ratio: undefined,
    share: undefined,
  })
})

test('the cost of an adapter is against the runs around it', () => {
  // The machine slows down by half meanwhile: the adapter costs a tenth all the time.
  const without = [100, 110, 120, 130, 140, 150]
  const withIt = [115.5, 126.5, 137.5, 148.5, 159.5]
  const cost = adapterCost(withIt, without)
  expect(cost.middle).toBeCloseTo(10)
  expect([cost.low, cost.high].map(Math.round)).toEqual([10, 10])
  expect(cost.noise).toBeCloseTo(100 / 12, 1)
  expect(adapterCost([100, 120, 110, 130], [100, 100, 100, 100, 100])).toMatchObject({
    middle: expect.closeTo(10),
    low: expect.closeTo(0),
    high: expect.closeTo(20),
    noise: 0,
  })
})

describe('limits', () => {
  const config = { nLayers: 1, nHeads: 4, nKvHeads: 2, headDim: 8, slidingWindow: 100 }
  const tensors = [
    { name: 'token_embd.weight', shape: [10, 1000], bytes: 5000 },
    { name: 'blk.0.attn_norm.weight', shape: [10], bytes: 40 },
    { name: 'blk.0.ffn_up.weight', shape: [10, 30], bytes: 200 },
    { name: 'output.weight', shape: [10, 20], bytes: 100 },
  ]
  const cost = modelCost({ tensors, config })
  test('quantised, the layers take the bits of their type', () => {
    expect(cost.outputBytes).toBe(100)
    expect(quantizedCost(cost, 'nf4').bytes).toBeCloseTo((300 * 4.25) / 8 + 100)
    expect(() => quantizedCost(cost, 'q9')).toThrow('q9')
  })

  const slowMemory = { readGBs: 1e-9, int8Gmacs: 1e9 }
  const slowCores = { readGBs: 1e9, int8Gmacs: 1e-9, attentionGmacs: 1e9 }

  test('a step reads all matrices but the embedding', () => {
    expect(cost).toMatchObject({ macs: 500, outputMacs: 200, bytes: 300 })
  })

  test('decoding is bound by memory or arithmetic', () => {
    // Keys and values: 10 positions * 2 heads * 8 * 2 * 2 bytes.
    expect(decodeLimit(cost, slowMemory, 1, 10)).toBeCloseTo(1 / (300 + 640))
    expect(decodeLimit(cost, slowMemory, 4, 10)).toBeCloseTo(4 / (300 + 4 * 640))
    expect(decodeLimit(cost, slowCores, 4, 10)).toBeCloseTo(1 / 500)
  })

  test('nothing is read beyond the window', () => {
    expect(decodeLimit(cost, slowMemory, 1, 5000)).toBeCloseTo(1 / (300 + 6400))
  })

  test('a prompt needs the output matrix once and sees half a window while it fills', () => {
    expect(prefillLimit(cost, slowCores, 50)).toBeCloseTo(1 / 300)
    const slowAttention = { readGBs: 1e9, int8Gmacs: 1e9, attentionGmacs: 1e-9 }
    expect(prefillLimit(cost, slowAttention, 50)).toBeCloseTo(1 / (64 * 25))
    expect(prefillLimit(cost, slowAttention, 100)).toBeCloseTo(1 / (64 * 50))
    // 100 of 200 queries see 50 keys on average and 100 see 100.
    expect(prefillLimit(cost, slowAttention, 200)).toBeCloseTo(1 / (64 * 75))
  })

  test('attention multiplies half as fast as the matrices', () => {
    const slow = { readGBs: 1e9, int8Gmacs: 1e-9 }
    expect(1 / prefillLimit(cost, slow, 50)).toBeCloseTo(300 + 2 * 64 * 25)
    expect(1 / decodeLimit(cost, slow, 1, 10)).toBeCloseTo(500 + 2 * 32 * 2 * 10)
  })
})

describe('CPU time of others', () => {
  test('ticks come from the right fields', () => {
    expect(parseMachineTicks('cpu  1 2 3 40 5 6 7 8 0 0\ncpu0 9 9 9 9\n')).toEqual({
      all: 72,
      busy: 27,
    })
    const stat = `77 (a (name) b) S ${Array.from({ length: 40 }, (_, i) => i).join(' ')}`
    // utime, stime, cutime, cstime are fields 14 to 17 of proc_pid_stat(5).
    expect(parseProcessTicks(stat)).toBe(10 + 11 + 12 + 13)
  })

  test('what is busy and not ours is elsewhere', () => {
    const at = (all, busy, ours) => ({ machine: { all, busy }, ours })
    expect(percentElsewhere(at(100, 50, 10), at(300, 200, 110))).toBe(25)
    expect(percentElsewhere(at(100, 50, 10), at(300, 100, 70))).toBe(0)
  })
})

describe('targets', () => {
  const row = (metric, figures) => ({ metric, theirs: '', limit: '', ...figures })

  test('met, missed, and beyond the machine', () => {
    expect(assess(row('decode_1', { ours: '9.8', theirs: '6', limit: '10' })).verdict).toBe('met')
    expect(assess(row('decode_1', { ours: '9.6', theirs: '6', limit: '10' })).verdict).toBe(
      'missed',
    )
    expect(assess(row('decode_1', { ours: '9.8', theirs: '7', limit: '10' }))).toMatchObject({
      verdict: 'ratio beyond this machine',
      predicted: 9.7,
    })
    expect(assess(row('decode_1', { ours: '9', theirs: '7', limit: '10' })).verdict).toBe(
      'missed; ratio beyond this machine',
    )
    expect(assess(row('load', { ours: '1501', theirs: '9000' })).verdict).toBe('missed')
    expect(assess(row('load', { ours: '1500', theirs: '9000' })).verdict).toBe('met')
  })

  test('a figure without a target is not judged', () => {
    expect(assess(row('ttft_16', { ours: '5', theirs: '1' }))).toMatchObject({
      wanted: '',
      verdict: '',
    })
    expect(assess(row('probe_readGBs', { ours: '5' })).verdict).toBe('')
  })
})

describe('CSV', () => {
  let folder
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'figures-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  test('what is written is read again', () => {
    const path = join(folder, 'new', 'figures.csv')
    const rows = [
      { name: 'plain', text: 'a,b', last: '1' },
      { name: 'say "hi", twice', text: '', last: '' },
    ]
    appendCsv(path, ['name', 'text', 'last'], rows.slice(0, 1))
    appendCsv(path, ['name', 'text', 'last'], rows.slice(1))
    expect(readCsv(path)).toEqual(rows)
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(4)
  })

  test('other columns are refused, and no file is no rows', () => {
    const path = join(folder, 'figures.csv')
    appendCsv(path, ['a', 'b'], [{ a: 1, b: 2 }])
    expect(() => appendCsv(path, ['a', 'c'], [{ a: 1 }])).toThrow('other columns')
    expect(readCsv(join(folder, 'none.csv'))).toEqual([])
  })
})

describe('GPUs', () => {
  const results = join(root, 'bench', 'results')

  test('what their data sheets allow is called a projection, and is what their memory takes', () => {
    const rows = readCsv(join(results, 'cuda-projection.csv'))
    expect(rows.length).toBeGreaterThan(20)
    for (const { kind, memory_gb_s, gigabytes_read, step_ms_at_least } of rows) {
      expect(kind).toBe('projected; not measured')
      const milliseconds = (1000 * Number(gigabytes_read)) / Number(memory_gb_s)
      expect(Number(step_ms_at_least) / milliseconds).toBeCloseTo(1, 2)
    }
  })

  // A device's `isa` is its architecture; a row of the simulated one would look like a measurement.
  test('no measured figure is of one, since none has been at hand', () => {
    const files = readdirSync(results).filter((name) => !name.startsWith('cuda-'))
    const devices = files.flatMap((name) => readCsv(join(results, name)).map(({ isa }) => isa))
    expect(devices.length).toBeGreaterThan(100)
    expect(devices.filter((isa) => isa.startsWith('sm_'))).toEqual([])
  })
})
