// SPDX-License-Identifier: Apache-2.0
// Assembles the PTX that ships for every generation of GPUs and holds it to bench/results/cuda-registers.csv:
//   - nothing is spilled to local memory, nowhere;
//   - no kernel needs more registers or shared memory, or fits fewer warps on a multiprocessor, than the file says.
// `--update` writes the file anew. Registers are those of one ptxas; with another one only spills are checked.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { devNull } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const root = fileURLToPath(new URL('../..', import.meta.url))
const figures = join(root, 'bench', 'results', 'cuda-registers.csv')

// Per multiprocessor: warps, blocks, bytes of shared memory, and of those what a block takes beside its own. From
// the table of compute capabilities in NVIDIA's programming guide; all have 65,536 registers, given out to warps by 256.
const architectures = {
  75: { warps: 32, blocks: 16, shared: 65_536, reserved: 0 },
  80: { warps: 64, blocks: 32, shared: 167_936, reserved: 1024 },
  86: { warps: 48, blocks: 16, shared: 102_400, reserved: 1024 },
  89: { warps: 48, blocks: 24, shared: 102_400, reserved: 1024 },
  90: { warps: 64, blocks: 32, shared: 233_472, reserved: 1024 },
  100: { warps: 64, blocks: 32, shared: 233_472, reserved: 1024 },
  120: { warps: 48, blocks: 24, shared: 102_400, reserved: 1024 },
}
const names = Object.keys(architectures)

const ptxFile = (arch) => join(root, 'build', `kernels_${arch === '75' ? 75 : 80}.ptx`)

/** What ptxas says of every kernel: { kernel: { registers, shared, spilled } }. */
async function assemble(arch) {
  const { stderr } = await promisify(execFile)(
    'ptxas',
    ['-v', `-arch=sm_${arch}`, ptxFile(arch), '-o', devNull],
    { maxBuffer: 1 << 26 },
  )
  const kernels = {}
  for (const part of stderr.split("Compiling entry function '").slice(1)) {
    const name = part.slice(0, part.indexOf("'"))
    const number = (pattern) => Number(part.match(pattern)?.[1] ?? 0)
    kernels[name] = {
      registers: number(/Used (\d+) registers/),
      shared: number(/(\d+) bytes smem/),
      spilled: number(/(\d+) bytes stack frame/),
    }
  }
  return kernels
}

/** Threads of a block, from .maxntid. */
function blockSizes() {
  const text = readFileSync(ptxFile('80'), 'utf8')
  const sizes = {}
  for (const [, name, threads] of text.matchAll(/\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)/g))
    sizes[name] = Number(threads)
  return sizes
}

/** Warps that fit on a multiprocessor at once. */
function occupancy(arch, threads, { registers, shared }) {
  const limit = architectures[arch]
  const warps = Math.ceil(threads / 32)
  const warpRegisters = Math.ceil((registers * 32) / 256) * 256
  const blocks = Math.min(
    limit.blocks,
    Math.floor(limit.warps / warps),
    Math.floor(Math.floor(65_536 / warpRegisters) / warps),
    Math.floor(limit.shared / (shared + limit.reserved || 1)),
  )
  return blocks * warps
}

const release = execFileSync('ptxas', ['--version'], { encoding: 'utf8' }).match(/V[\d.]+/)[0]
const columns = [
  'kernel',
  'threads',
  'shared_bytes',
  ...names.map((arch) => `registers_${arch}`),
  ...names.map((arch) => `warps_${arch}`),
]

const compiled = {}
const queue = [...names]
await Promise.all(
  [1, 2].map(async () => {
    for (let arch = queue.shift(); arch !== undefined; arch = queue.shift())
      compiled[arch] = await assemble(arch)
  }),
)

const threads = blockSizes()
const rows = new Map()
const problems = []
for (const kernel of Object.keys(compiled[80]).sort()) {
  const of = (arch) => compiled[arch][kernel]
  if (threads[kernel] === undefined) problems.push(`${kernel} does not state its block size`)
  for (const arch of names)
    if (of(arch).spilled > 0)
      problems.push(`${kernel} keeps ${of(arch).spilled} bytes in local memory on sm_${arch}`)
  rows.set(kernel, [
    threads[kernel],
    Math.max(...names.map((arch) => of(arch).shared)),
    ...names.map((arch) => of(arch).registers),
    ...names.map((arch) => occupancy(arch, threads[kernel], of(arch))),
  ])
}

if (process.argv.includes('--update')) {
  const lines = [...rows].map(([kernel, values]) => [kernel, ...values].join(','))
  writeFileSync(figures, `# ptxas ${release}\n${columns.join(',')}\n${lines.join('\n')}\n`)
} else if (existsSync(figures)) {
  const [title, , ...lines] = readFileSync(figures, 'utf8').trimEnd().split('\n')
  const committed = new Map(lines.map((line) => [line.split(',')[0], line.split(',').slice(1)]))
  if (!title.includes(release)) {
    console.log(`ptxas: registers are not compared, the table is that of ${title.slice(2)}`)
  } else {
    for (const [kernel, values] of rows) {
      const want = committed.get(kernel)
      if (want === undefined) problems.push(`${kernel} is not in bench/results/cuda-registers.csv`)
      else
        values.forEach((value, i) => {
          const column = columns[i + 1]
          const worse = column.startsWith('warps') ? value < want[i] : value > want[i]
          if (worse && column !== 'threads')
            problems.push(`${kernel}: ${column} was ${want[i]}, is ${value}`)
        })
    }
    for (const kernel of committed.keys())
      if (!rows.has(kernel)) problems.push(`${kernel} is in the table only`)
  }
}
for (const problem of problems) console.error(`ptxas: ${problem}`)
if (problems.length > 0)
  console.error('ptxas: "npm run check:ptxas -- --update" writes the table anew')
process.exitCode = problems.length > 0 ? 1 : 0
