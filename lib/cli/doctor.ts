// SPDX-License-Identifier: Apache-2.0
// maestrale doctor: what this machine offers, and whether the package works on it. Each line is a check of
// CHECKS; a new one, of another device, is one more entry there.
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { packageRoot } from '#addon'

import { loadModel } from '../index.js'
import type { NativeMachine } from '../native/binding.js'
import { loadBinding } from '../native/load.js'
import { checkCuda, checkGpuMemory, checkGpuModel } from './doctor-cuda.js'
import { DEFAULT_PROMPT, modelPath } from './options.js'
import { bytes, styled } from './terminal.js'

const EXAMPLES = `
Exit status: 1 when something does not work, 0 otherwise; a missing GPU is no failure.

Examples:
  maestrale doctor
  maestrale doctor --json | jq '.checks[] | select(.status != "ok")'`

/** `'warn'`: it works, but slowly or not for everything; `'none'`: not there, and not needed. */
type Status = 'ok' | 'warn' | 'fail' | 'none'

export interface Finding {
  status: Status
  /** One line for a reader. */
  text: string
  /** Figures for a program. */
  [figure: string]: unknown
}

export interface Context {
  /** Absent when the addon does not load. */
  machine?: NativeMachine
}

interface Check {
  name: string
  /** It asks the addon, so it is left out when that does not load. */
  native?: boolean
  run(context: Context): Finding | Promise<Finding>
}

/** A 7B model in Q4_K_M: bytes that every token reads, and that memory must hold. */
export const USUAL_MODEL = 4.37e9

const CHECKS: readonly Check[] = [
  { name: 'package', run: checkPackage },
  { name: 'machine', run: checkMachine },
  { name: 'addon', run: checkAddon },
  { name: 'threads', native: true, run: checkThreads },
  { name: 'memory', native: true, run: checkMemory },
  { name: 'bandwidth', native: true, run: checkBandwidth },
  { name: 'kernels', native: true, run: checkKernels },
  { name: 'self-check', native: true, run: checkModel },
  { name: 'cuda', native: true, run: checkCuda },
  { name: 'cuda-check', native: true, run: checkGpuModel },
  { name: 'cuda-memory', native: true, run: checkGpuMemory },
]

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .summary('check this machine')
    .description('Says what this machine offers and whether maestrale works on it.')
    .option('--json', 'print everything as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(doctor)
}

async function doctor(flags: { json?: boolean }): Promise<void> {
  const context: Context = {}
  const checks: ({ name: string } & Finding)[] = []
  for (const check of CHECKS) {
    if (check.native && !context.machine) continue
    const finding = { name: check.name, ...(await attempt(check, context)) }
    checks.push(finding)
    if (!flags.json) process.stdout.write(describe(finding))
  }
  const ok = checks.every(({ status }) => status !== 'fail')
  if (flags.json) process.stdout.write(`${JSON.stringify({ ok, checks })}\n`)
  if (!ok) process.exitCode = 1
}

async function attempt(check: Check, context: Context): Promise<Finding> {
  try {
    return await check.run(context)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? { code: error.code } : {}
    return { status: 'fail', text: error instanceof Error ? error.message : String(error), ...code }
  }
}

function describe({ name, status, text }: { name: string } & Finding): string {
  const colour = { ok: 'green', warn: 'yellow', fail: 'red', none: 'dim' } as const
  return `${styled(colour[status], status.padEnd(5))}${name.padEnd(12)}${text}\n`
}

function checkPackage(): Finding {
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'))
  const node = process.versions.node
  return { status: 'ok', text: `maestrale ${version}, Node ${node}`, version, node }
}

function checkMachine(): Finding {
  const { platform, arch } = process
  const cpu = cpus()[0]?.model.trim() || 'unknown processor'
  const known = platform === 'linux' && arch === 'x64'
  const text = `${cpu}, ${platform}-${arch} ${release()}`
  return { status: known ? 'ok' : 'warn', text, cpu, platform, arch }
}

async function checkAddon(context: Context): Promise<Finding> {
  context.machine = await loadBinding().examineMachine()
  return { status: 'ok', text: 'the native part loads' }
}

/** The first line of a file of the system, undefined where there is none. */
function firstLine(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').split('\n')[0]
  } catch {
    return undefined
  }
}

/** CPUs that a cgroup v2 quota allows: the file says 'QUOTA PERIOD', in microseconds. */
function cgroupQuota(): number | undefined {
  const [quota, period] = (firstLine('/sys/fs/cgroup/cpu.max') ?? '').split(' ').map(Number)
  return quota && period ? quota / period : undefined
}

function checkThreads({ machine }: Context): Finding {
  const threads = machine?.threads ?? 0
  const online = cpus().length
  const affinity = availableParallelism()
  const quota = cgroupQuota()
  const limits = [
    `${online} CPUs`,
    ...(affinity < online ? [`affinity allows ${affinity}`] : []),
    ...(quota !== undefined ? [`cgroup allows ${quota}`] : []),
  ]
  const text = `${threads} ${threads === 1 ? 'thread' : 'threads'} by default (${limits.join(', ')})`
  // More threads than the quota has time for are all stopped together, again and again.
  const uneven = quota !== undefined && quota < threads
  return {
    status: uneven ? 'warn' : 'ok',
    text,
    threads,
    online,
    affinity,
    ...(quota ? { quota } : {}),
  }
}

function checkMemory({ machine }: Context): Finding {
  const available = machine?.availableMemory ?? freemem()
  const total = totalmem()
  const enough = available > 1.15 * USUAL_MODEL
  const text = `${bytes(available)} of ${bytes(total)} can be used${
    enough ? '' : `, too little for a 7B model in Q4_K_M (${bytes(USUAL_MODEL)})`
  }`
  return { status: enough ? 'ok' : 'warn', text, available, total }
}

function checkBandwidth({ machine }: Context): Finding {
  const bytesPerSecond = machine?.readBandwidth ?? 0
  const tokens = bytesPerSecond / USUAL_MODEL
  const text = `${bytes(bytesPerSecond)}/s read from memory: at most ${tokens.toPrecision(3)} tokens/s for one text by a 7B model in Q4_K_M`
  return { status: bytesPerSecond > 0 ? 'ok' : 'warn', text, bytesPerSecond }
}

function checkKernels({ machine }: Context): Finding {
  const isas = machine?.isas ?? []
  const forced = process.env.MAESTRALE_ISA
  const known =
    forced === undefined || isas.includes(forced) || machine?.namedIsas.includes(forced) === true
  const fast = (forced ?? isas[0]) !== 'scalar'
  const text = forced
    ? `MAESTRALE_ISA is ${forced}${known ? '' : ', which this machine does not run'} (${isas.join(', ')})`
    : `${isas[0]} (of ${isas.join(', ')})${fast ? '' : ': without AVX2 it is very slow'}`
  return {
    status: !known ? 'fail' : fast ? 'ok' : 'warn',
    text,
    isas,
    ...(forced ? { forced } : {}),
  }
}

/** The small model with every kernel table: the same bits, all of them numbers. */
async function checkModel({ machine }: Context): Promise<Finding> {
  const path = await modelPath(undefined)
  const forced = process.env.MAESTRALE_ISA
  const isas = machine?.isas ?? []
  const started = performance.now()
  let text = ''
  let expected: Float32Array | undefined
  try {
    for (const isa of isas) {
      process.env.MAESTRALE_ISA = isa
      await using model = await loadModel(path, { device: 'cpu' })
      const logits = await model.logits(model.tokenizer.encode(DEFAULT_PROMPT))
      expected ??= logits
      if (!logits.every(Number.isFinite)) throw new Error(`the kernels of ${isa} give no numbers`)
      if (Buffer.compare(asBytes(logits), asBytes(expected)) !== 0) {
        throw new Error(`the kernels of ${isa} give other bits than those of ${isas[0]}`)
      }
      text ||= (await model.generate(DEFAULT_PROMPT, { maxNewTokens: 8, temperature: 0 })).text
    }
  } finally {
    if (forced === undefined) delete process.env.MAESTRALE_ISA
    else process.env.MAESTRALE_ISA = forced
  }
  const ms = Math.round(performance.now() - started)
  const shown = `the small model gives the same bits with ${isas.length} kernel tables, ${ms} ms`
  return { status: 'ok', text: shown, isas, ms, generated: text }
}

function asBytes(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}
