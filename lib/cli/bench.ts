// SPDX-License-Identifier: Apache-2.0
// maestrale bench: prefill and decode speed, latencies and event-loop delay, from token ids, through the
// public API. Every repeat runs `concurrency` requests at the same time, each with a prompt of its own.
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import type { Command } from 'commander'

import type { Generation, Model, Result } from '../index.js'
import {
  addLoadOptions,
  type LoadFlags,
  loadForCommand,
  MINI,
  MODEL_HELP,
  number,
  SPECULATE,
} from './options.js'
import { bytes, UsageError } from './terminal.js'

const EXAMPLES = `
decodeTokensPerSecond is the sum over the concurrent sequences, prompts excluded.
Latencies are measured where the text arrives, on the JavaScript thread.

Examples:
  maestrale bench --model mistral-7b.Q4_K_M.gguf --prompt 512 --gen 32 --json
  maestrale bench --model mistral-7b.Q4_K_M.gguf --concurrency 8 --threads 2 --repeats 5`

interface BenchFlags extends LoadFlags {
  model?: string
  prompt: number
  gen: number
  concurrency: number
  repeats: number
  speculate?: boolean
  json?: boolean
}

/** Milliseconds at percentiles. */
interface Percentiles {
  p50: number
  p99: number
}

interface Report {
  model: string
  device: string
  isa: string
  threads: number
  loadMs: number
  prompt: number
  gen: number
  concurrency: number
  prefillTokensPerSecond: number
  decodeTokensPerSecond: number
  totalTokensPerSecond: number
  ttftMs: Percentiles
  itlMs: Percentiles & { max: number }
  peakRssBytes: number
  eventLoopDelayMs: Percentiles & { max: number }
  repeats: number
}

export function addBenchCommand(program: Command): void {
  const command = program
    .command('bench')
    .summary('measure speed and latency')
    .description('Measures a model on this machine.')
    .option('--model <model>', MODEL_HELP, MINI)
    .option('--prompt <n>', 'tokens of each prompt', number, 512)
    .option('--gen <n>', 'tokens to generate for each prompt', number, 32)
    .option('--concurrency <n>', 'requests at the same time', number, 1)
    .option('--repeats <n>', 'measurements, after one that warms up', number, 3)
    .option('--speculate', SPECULATE)
    .option('--json', 'print one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(bench)
  addLoadOptions(command)
}

async function bench(flags: BenchFlags): Promise<void> {
  for (const name of ['prompt', 'gen', 'concurrency', 'repeats'] as const) {
    if (!Number.isInteger(flags[name]) || flags[name] < 1) {
      throw new UsageError(`--${name} must be an integer of at least 1; received ${flags[name]}`)
    }
  }
  const started = performance.now()
  const model = await loadForCommand(flags.model, {
    ...flags,
    contextLength: flags.contextLength ?? flags.prompt + flags.gen,
    maxSequences: Math.max(16, flags.concurrency),
  })
  const loadMs = performance.now() - started
  try {
    const report = await measure(model, flags, loadMs)
    process.stdout.write(flags.json ? `${JSON.stringify(report)}\n` : describe(report))
  } finally {
    await model.dispose()
  }
}

/** What one request looked like from JavaScript; times in milliseconds. */
interface Observation {
  start: number
  /** When tokens arrived, and how many. */
  arrivals: { time: number; count: number }[]
  result: Result
}

async function measure(model: Model, flags: BenchFlags, loadMs: number): Promise<Report> {
  await round(model, flags, 0)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const rounds: Observation[][] = []
  for (let repeat = 1; repeat <= flags.repeats; repeat++) {
    rounds.push(await round(model, flags, repeat))
  }
  delay.disable()
  const all = rounds.flat()
  const rates = rounds.map((observations) => speeds(observations))
  const ttft = all.map((one) => firstToken(one) - one.start)
  const gaps = all.flatMap(gapsOf)
  const { info } = model
  // The histogram holds how late a 1 ms timer fired, the millisecond itself included.
  const late = (nanoseconds: number) => round3(Math.max(0, nanoseconds / 1e6 - 1))
  return {
    model: info.name,
    device: info.device,
    isa: info.isa,
    threads: info.threads,
    loadMs: round3(loadMs),
    prompt: flags.prompt,
    gen: flags.gen,
    concurrency: flags.concurrency,
    prefillTokensPerSecond: round3(
      percentile(
        rates.map((rate) => rate.prefill),
        50,
      ),
    ),
    decodeTokensPerSecond: round3(
      percentile(
        rates.map((rate) => rate.decode),
        50,
      ),
    ),
    totalTokensPerSecond: round3(
      percentile(
        rates.map((rate) => rate.total),
        50,
      ),
    ),
    ttftMs: { p50: round3(percentile(ttft, 50)), p99: round3(percentile(ttft, 99)) },
    itlMs: {
      p50: round3(percentile(gaps, 50)),
      p99: round3(percentile(gaps, 99)),
      max: round3(percentile(gaps, 100)),
    },
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    eventLoopDelayMs: {
      p50: late(delay.percentile(50)),
      p99: late(delay.percentile(99)),
      max: late(delay.max),
    },
    repeats: flags.repeats,
  }
}

/** `concurrency` requests at once. Prompts differ in every round, so no prefix is ever reused. */
function round(model: Model, flags: BenchFlags, repeat: number): Promise<Observation[]> {
  return Promise.all(
    Array.from({ length: flags.concurrency }, (_, i) => {
      const start = performance.now()
      const run = model.generate(
        promptTokens(model, flags.prompt, repeat * flags.concurrency + i),
        {
          maxNewTokens: flags.gen,
          temperature: 0,
          repetitionPenalty: 1,
          speculation: flags.speculate ?? false,
          ...(flags.adapter === undefined ? {} : { adapter: flags.adapter }),
          // Every request must run to its full length to be comparable.
          logitBias: { [model.tokenizer.eosId]: -Infinity },
        },
      )
      return observe(run, start)
    }),
  )
}

async function observe(run: Generation, start: number): Promise<Observation> {
  const arrivals: { time: number; count: number }[] = []
  for await (const { tokens } of run) {
    if (tokens.length > 0) arrivals.push({ time: performance.now(), count: tokens.length })
  }
  return { start, arrivals, result: await run }
}

function firstToken({ arrivals, start }: Observation): number {
  return arrivals[0]?.time ?? start
}

/** Milliseconds between tokens; tokens that arrive together share their gap. */
function gapsOf({ arrivals }: Observation): number[] {
  return arrivals.slice(1).map(({ time, count }, i) => (time - (arrivals[i]?.time ?? time)) / count)
}

/** Tokens per second of one round: prefill until every request has its first token, decode from there. */
function speeds(observations: Observation[]): { prefill: number; decode: number; total: number } {
  const start = Math.min(...observations.map((one) => one.start))
  const prefilled = Math.max(...observations.map(firstToken))
  const arrivals = observations.flatMap((one) => one.arrivals)
  const end = Math.max(...arrivals.map((arrival) => arrival.time))
  const decoded = arrivals.filter((arrival) => arrival.time > prefilled)
  const prompt = observations.reduce((sum, one) => sum + one.result.usage.promptTokens, 0)
  return {
    prefill: perSecond(prompt, prefilled - start),
    decode: perSecond(total(decoded), end - prefilled),
    total: perSecond(prompt + total(arrivals), end - start),
  }
}

function total(arrivals: readonly { count: number }[]): number {
  return arrivals.reduce((sum, arrival) => sum + arrival.count, 0)
}

function perSecond(count: number, milliseconds: number): number {
  return milliseconds > 0 ? (count / milliseconds) * 1000 : 0
}

/** Token ids that any vocabulary has and no tokenizer needs, the same on every machine. */
function promptTokens(model: Model, length: number, salt: number): Uint32Array {
  const { vocabSize, bosId, eosId } = model.tokenizer
  const tokens = new Uint32Array(length)
  let state = (salt + 1) * 2654435761
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const token = 3 + ((state >>> 8) % (vocabSize - 3))
    tokens[i] = token === eosId ? bosId : token
  }
  tokens[0] = bosId
  return tokens
}

function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const rank = Math.ceil((percent / 100) * sorted.length) - 1
  return sorted[Math.max(0, rank)] ?? 0
}

function round3(value: number): number {
  return Math.round(value * 1000) / 1000
}

function describe(report: Report): string {
  const { ttftMs, itlMs, eventLoopDelayMs: delay } = report
  return `${report.model}, ${report.device} (${report.isa}), ${report.threads} threads
${report.concurrency} x (${report.prompt} prompt + ${report.gen} generated) tokens, median of ${report.repeats}

load               ${report.loadMs.toFixed(0)} ms
prefill            ${report.prefillTokensPerSecond.toFixed(1)} tokens/s
decode             ${report.decodeTokensPerSecond.toFixed(1)} tokens/s
first token        ${ttftMs.p50.toFixed(1)} ms, p99 ${ttftMs.p99.toFixed(1)} ms
between tokens     ${itlMs.p50.toFixed(2)} ms, p99 ${itlMs.p99.toFixed(2)} ms, max ${itlMs.max.toFixed(2)} ms
event-loop delay   ${delay.p50.toFixed(2)} ms, p99 ${delay.p99.toFixed(2)} ms, max ${delay.max.toFixed(2)} ms
peak memory        ${bytes(report.peakRssBytes)}
`
}
