// SPDX-License-Identifier: Apache-2.0
// Runs the tests of the GPU simulator case by case, each in a process of its own. The binary is built
// with the native tests where nvcc is found, or with -DMAESTRALE_PTXSIM=ON; without it nothing is run.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const binary = fileURLToPath(new URL('../build/ptxsim_tests', import.meta.url))
const isBuilt = existsSync(binary)
const cases = isBuilt
  ? execFileSync(binary, ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean)
  : []

describe.skipIf(!isBuilt)('ptxsim', () => {
  test('the binary lists its cases', () => {
    expect(cases.length).toBeGreaterThan(0)
    expect(new Set(cases).size).toBe(cases.length)
  })

  test.concurrent.each(cases)('%s', async (name) => {
    const run = await promisify(execFile)(binary, [name]).catch((error) => error)
    expect(run.stderr, run.message).toBe('')
    expect(run.stdout).toMatch(/^[1-9]\d* passed, 0 failed\n/m)
  })
})
