// SPDX-License-Identifier: Apache-2.0
// Builds lib/ twice: dist/esm (the API and the command line) and dist/cjs (the API alone, because
// Node 20 cannot require() an ES module).
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
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
const cjs = join(root, 'dist', 'cjs')
// CommonJS, although the package is not.
writeFileSync(join(cjs, 'package.json'), `${JSON.stringify({ type: 'commonjs' })}\n`)
// '#addon' leads to addon.mjs in the whole package, and Node asks dist/cjs/package.json for no other way.
copyFileSync(join(root, 'lib', 'native', 'addon.cjs'), join(cjs, 'native', 'addon.cjs'))
for (const name of readdirSync(cjs, { recursive: true }).filter((file) => file.endsWith('.js'))) {
  const file = join(cjs, name)
  const code = readFileSync(file, 'utf8')
  const addon = relative(dirname(file), join(cjs, 'native', 'addon.cjs')).replace(/^(?!\.)/, './')
  const changed = code.replaceAll('require("#addon")', `require("${addon}")`)
  if (changed !== code) writeFileSync(file, changed)
}
