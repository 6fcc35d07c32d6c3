// SPDX-License-Identifier: Apache-2.0
// Checks the objects of the built core, after the native build. The generic ones hold no AVX code, so the
// addon starts on any x86-64. Those of one instruction set export their kernel table (or one product) and otherwise only
// instances of templates over their own vector type, so nothing compiled for an instruction set can be
// linked where other code expects a function of its own. Those over vector registers hold the prefetches that
// decoding lives on: GCC has dropped them without a word before.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MAX_PER_OBJECT = 3 // problems shown

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const folder = join(root, 'build', 'CMakeFiles', 'maestrale_core.dir', 'native')
// Mangled: a `const Kernels kNameKernels` or a `void gemm_name(const GemmJob&)`, and the namespace of a vector type.
const TABLE = /^_ZN9maestrale\d+(k\w+KernelsE|gemm_\w+ERKNS_7GemmJobE)$/
const VECTOR_TYPE = /\d(simd_[a-z0-9]+?)1V/g
// ymm, zmm and mask registers, and three-operand instructions on xmm.
const AVX = /%[yz]mm\d|%k[0-7]\b|\tv[a-z][a-z0-9]+ .*%xmm|\tvzero(upper|all)\b/

function output(program, ...args) {
  const run = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 30 })
  if (run.error || run.status !== 0) {
    throw new Error(`${program} failed: ${run.error?.message ?? run.stderr.trim()}`)
  }
  return run.stdout
}

function exportedSymbols(path) {
  const lines = output('nm', '--defined-only', '--extern-only', '--format=posix', path).split('\n')
  return lines.filter(Boolean).map((line) => line.split(' ')[0])
}

/** What is wrong with the exports of an instruction set's object; `owners`: vector type -> its object. */
function exportProblems(path, owners) {
  const object = basename(path)
  const symbols = exportedSymbols(path)
  const tables = symbols.filter((symbol) => TABLE.test(symbol))
  const found =
    tables.length === 1 ? [] : [`${object} exports ${tables.length} kernel tables, not 1`]
  for (const symbol of symbols.filter((name) => !TABLE.test(name))) {
    const types = new Set([...symbol.matchAll(VECTOR_TYPE)].map((match) => match[1]))
    if (types.size === 0)
      found.push(`${object} exports ${symbol}, which other objects may define too`)
    for (const type of types) {
      if (!owners.has(type)) owners.set(type, object)
      if (owners.get(type) !== object) {
        found.push(`${object} exports ${symbol}, as ${owners.get(type)} may`)
      }
    }
  }
  if (!object.startsWith('isa_scalar') && !code(path).includes('\tprefetch')) {
    found.push(`${object} holds no prefetch`)
  }
  return found
}

const code = (path) => output('objdump', '-d', '--no-show-raw-insn', path)

function codeProblems(path) {
  const line = code(path)
    .split('\n')
    .find((text) => AVX.test(text))
  return line ? [`${basename(path)} holds AVX code: ${line.trim().replace(/\s+/g, ' ')}`] : []
}

if (process.arch !== 'x64') {
  console.log('objects: nothing to check on this architecture')
} else if (!existsSync(folder)) {
  console.error('objects: nothing is built yet; run "npm run build" first')
  process.exitCode = 1
} else {
  const objects = readdirSync(folder, { recursive: true })
    .filter((path) => path.endsWith('.o'))
    .map((path) => join(folder, path))
  const special = objects.filter((path) => basename(path).startsWith('isa_'))
  const owners = new Map()
  const found = special.length === 0 ? [['no object of an instruction set is built']] : []
  for (const path of objects) {
    found.push(special.includes(path) ? exportProblems(path, owners) : codeProblems(path))
  }
  for (const problem of found.flatMap((list) => list.slice(0, MAX_PER_OBJECT))) {
    console.error(`objects: ${problem}`)
    process.exitCode = 1
  }
}
