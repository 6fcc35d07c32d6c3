// SPDX-License-Identifier: Apache-2.0
// The PTX that ships: the oldest drivers accept it, and ptxas makes of it what the committed table says.
import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const file = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url))
const isBuilt = existsSync(file('build/kernels_80.ptx'))
const hasPtxas = (process.env.PATH ?? '').split(delimiter).some((d) => existsSync(join(d, 'ptxas')))

describe.skipIf(!isBuilt)('cuda kernels', () => {
  test.each([
    ['75', '6.5'],
    ['80', '7.0'],
  ])(
    'the PTX for %s is of version %s and without what the simulator or old GPUs do badly',
    (arch, version) => {
      const text = readFileSync(file(`build/kernels_${arch}.ptx`), 'utf8')
      expect(text.match(/^\.version .*/m)?.[0]).toBe(`.version ${version}`)
      expect(text.match(/^\.target .*/m)?.[0]).toBe(`.target sm_${arch}`)
      const entries = text.match(/^\.visible \.entry /gm)?.length ?? 0
      expect(entries).toBeGreaterThan(0)
      expect(text.match(/^\.maxntid /gm)?.length).toBe(entries)
      // Local memory, generic addresses (a lost cvta.to), lanes that happen to be active.
      const unwanted =
        /^\s+(@!?%p\d+ )?((ld|st)\.local|(ld|st)(\.v\d)?\.[busf]\d+|activemask)\b.*/gm
      expect(text.match(unwanted) ?? []).toEqual([])
      // Double precision, which the sums of a draw have on every device, and nothing else.
      for (const kernel of text.split('.visible .entry ').slice(1)) {
        const name = kernel.slice(0, kernel.indexOf('('))
        const draws = name === 'draw_token'
        expect(/\.f64\b/.test(kernel), name).toBe(draws)
        // Nor anything that is one rounding where the host has two: what says no rounding may be fused by ptxas.
        if (draws) expect(kernel.match(/^.*\b(fma|mul\.f\d+)\b.*/gm) ?? []).toEqual([])
      }
    },
  )

  test.each([
    ['75', /never/],
    ['80', /^(matmul_tile|(split_)?attention)_/],
  ])('for sm_%s one row takes dp4a, more take tensor cores', (arch, copiesBeside) => {
    const text = readFileSync(file(`build/kernels_${arch}.ptx`), 'utf8')
    const seen = new Set<string>()
    for (const kernel of text.split('.visible .entry ').slice(1)) {
      const name = kernel.slice(0, kernel.indexOf('('))
      expect(/\bcp\.async\b/.test(kernel), name).toBe(copiesBeside.test(name))
      const kind = /^(matmul_(?:row|few|many|most|tile)|(?:split_)?attention)_/.exec(name)?.[1]
      if (!kind) continue
      seen.add(kind)
      const mma = kernel.match(/\bmma\.\S+/)?.[0]
      const operands = kind.endsWith('attention') || name.endsWith('f16') ? 'f16.f16' : 's8.s8'
      if (kind === 'matmul_row')
        expect([mma, /\bdp4a\b/.test(kernel)], name).toEqual([undefined, true])
      else expect(mma, name).toContain(operands)
    }
    expect(seen.size).toBe(7)
  })

  test.skipIf(!hasPtxas)(
    'ptxas spills nothing and needs no more registers than the committed table',
    async () => {
      const run = await promisify(execFile)(process.execPath, [
        file('scripts/check/ptxas.mjs'),
      ]).catch((error) => error)
      expect(run.stderr, run.message).toBe('')
    },
    900_000,
  )
})
