// SPDX-License-Identifier: Apache-2.0
// Checks that every C++ file is formatted as .clang-format says (--fix formats them). Uses the
// clang-format of package.json, so that all machines agree.
import { execFileSync, spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const tracked = execFileSync('git', ['ls-files', '-z', '*.cc', '*.h', '*.cu', '*.cuh'], {
  cwd: root,
})
const files = tracked.toString().split('\0').filter(Boolean)
const mode = process.argv.includes('--fix') ? ['-i'] : ['--dry-run', '-Werror', '--ferror-limit=1']
const script = join(root, 'node_modules', 'clang-format', 'index.js')
const run = spawnSync(process.execPath, [script, ...mode, ...files], {
  cwd: root,
  stdio: 'inherit',
})
if (run.status !== 0) console.error('format: run "npm run format"')
process.exitCode = run.status ?? 1
