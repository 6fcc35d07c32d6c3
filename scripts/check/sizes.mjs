// SPDX-License-Identifier: Apache-2.0
// Fails when a source file has grown past 600 lines: by then it holds more than one idea.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MAX_LINES = 600

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const kinds = ['h', 'cc', 'cu', 'cuh', 'ts', 'mts', 'mjs', 'cjs'].map((ending) => `*.${ending}`)
const tracked = execFileSync('git', ['ls-files', '-z', ...kinds], { cwd: root })
const files = tracked.toString().split('\0').filter(Boolean)

for (const file of files) {
  const lines = readFileSync(join(root, file), 'utf8').split('\n').length - 1
  if (lines > MAX_LINES) {
    console.error(`${file}: ${lines} lines, but at most ${MAX_LINES} are allowed`)
    process.exitCode = 1
  }
}
