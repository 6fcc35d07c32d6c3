// SPDX-License-Identifier: Apache-2.0
// Builds lib/ twice: dist/esm (the API and the command line) and dist/cjs (the API alone, because
// Node 20 cannot require() an ES module). Each gets a package.json that says which of the two it is.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')

function build(format, type) {
  const folder = join(root, 'dist', format)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const project = join(root, `tsconfig.${format}.json`)
  const run = spawnSync(process.execPath, [compiler, '-p', project], { cwd: root, stdio: 'inherit' })
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify({ type })}\n`)
  return run.status ?? 1
}

process.exitCode = build('esm', 'module') || build('cjs', 'commonjs')
if (process.exitCode === 0) chmodSync(join(root, 'dist', 'esm', 'cli', 'main.js'), 0o755)
