// SPDX-License-Identifier: Apache-2.0
// Runs the native test binary case by case, each in a process of its own, so that a crash is the
// failure of one case. `npm run build:tests` builds the binary.
import { execFile, execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const binary = fileURLToPath(new URL('../build/maestrale_tests', import.meta.url))
const cases = execFileSync(binary, ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean)

test('native: the binary lists its cases', () => {
  expect(cases.length).toBeGreaterThan(0)
  expect(new Set(cases).size).toBe(cases.length)
})

test.concurrent.each(cases)('%s', async (name) => {
  const run = await promisify(execFile)(binary, [name]).catch((error) => error)
  expect(run.stderr, run.message).toBe('')
  expect(run.stdout).toMatch(/^[1-9]\d* passed, 0 failed\n$/)
})
