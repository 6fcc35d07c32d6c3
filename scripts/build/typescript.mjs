// SPDX-License-Identifier: Apache-2.0
// Builds lib/ twice: dist/esm (the API and the command line) and dist/cjs (the API alone, because
// Node 20 cannot require() an ES module).
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc')

/** Compiles tsconfig.<format>.json to dist/<format>; ends the process when that fails. */
function compile(format) {
  rmSync(join(root, 'dist', format), { recursive: true, force: true })
  const project = join(root, `tsconfig.${format}.json`)
  const run = spawnSync(process.execPath, [compiler, '-p', project], {
    cwd: root,
    stdio: 'inherit',
  })
  if (run.status !== 0) process.exit(run.status ?? 1)
}

compile('esm')
chmodSync(join(root, 'dist', 'esm', 'cli', 'main.js'), 0o755)

compile('cjs')
// A package of its own, as Node sees it: CommonJS, and with its own way to the addon.
const scope = { type: 'commonjs', imports: { '#addon': './native/addon.cjs' } }
writeFileSync(join(root, 'dist', 'cjs', 'package.json'), `${JSON.stringify(scope)}\n`)
copyFileSync(
  join(root, 'lib', 'native', 'addon.cjs'),
  join(root, 'dist', 'cjs', 'native', 'addon.cjs'),
)
