// SPDX-License-Identifier: Apache-2.0
// What the commands share: colours and progress only where somebody looks at a terminal, numbers and
// sizes in words, and failures as one sentence with an exit status.
import { styleText } from 'node:util'
import type { Command } from 'commander'

export const EXIT_FAILURE = 1
export const EXIT_USAGE = 2

type Style = Parameters<typeof styleText>[0]

/** `text` in `style` when `stream` is a terminal that wants colours (NO_COLOR, TERM=dumb). */
export function styled(
  style: Style,
  text: string,
  stream: NodeJS.WriteStream = process.stdout,
): string {
  const wanted = stream.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
  return wanted ? styleText(style, text) : text
}

/** 4.37 GB, 512 bytes */
export function bytes(count: number): string {
  const units = ['kB', 'MB', 'GB', 'TB']
  let [value, unit] = [count, 'bytes']
  for (const next of units) {
    if (value < 1000) break
    value /= 1000
    unit = next
  }
  return unit === 'bytes' ? `${count} bytes` : `${value.toPrecision(3)} ${unit}`
}

/** 7.24 billion, 6.6 million */
export function amount(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toPrecision(3)} billion`
  if (count >= 1e6) return `${(count / 1e6).toPrecision(3)} million`
  return String(count)
}

/** A progress bar on stderr, when stderr is a terminal; it wipes itself out at the end. */
export class ProgressBar {
  readonly #label: string
  readonly #stream = process.stderr
  #shown = ''

  constructor(label: string) {
    this.#label = label
  }

  readonly update = ({ loaded, total }: { loaded: number; total: number }): void => {
    if (!this.#stream.isTTY || total === 0) return
    const done = Math.min(1, loaded / total)
    const width = Math.max(10, Math.min(40, (this.#stream.columns ?? 80) - this.#label.length - 30))
    const filled = Math.round(done * width)
    const bar = '#'.repeat(filled) + '.'.repeat(width - filled)
    const percent = `${Math.floor(done * 100)} %`
    const line = `${this.#label} [${bar}] ${percent} of ${bytes(total)}`
    if (line === this.#shown) return
    this.#shown = line
    this.#stream.write(`\r\x1b[K${line}`)
  }

  end(): void {
    if (this.#shown) this.#stream.write('\r\x1b[K')
    this.#shown = ''
  }
}

/**
 * Runs `work` with a signal that is aborted by whatever asks this process to end; when `work` has cleaned up, the
 * process ends as it was asked to.
 */
async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  const controller = new AbortController()
  let asked: NodeJS.Signals | undefined
  const onSignal = (name: NodeJS.Signals) => {
    asked ??= name
    controller.abort()
  }
  for (const name of signals) process.on(name, onSignal)
  try {
    return await work(controller.signal)
  } finally {
    for (const name of signals) process.off(name, onSignal)
    if (asked) process.kill(process.pid, asked)
  }
}

/** The same with a progress bar, which `work` moves. */
export async function withProgress<T>(
  label: string,
  work: (options: { onProgress: ProgressBar['update']; signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  const bar = new ProgressBar(label)
  return await interruptible(async (signal) => {
    try {
      return await work({ onProgress: bar.update, signal })
    } finally {
      bar.end()
    }
  })
}

/** A wrong command line: exit status 2. */
export class UsageError extends Error {}

/** "slidingWindow must be ..." of the library as the `command` calls that option: "--sliding-window must be ...". */
function inOptionsOf(command: Command | undefined, message: string): string {
  const [, name, rest] = /^(\w+)( must be [\s\S]*)$/.exec(message) ?? []
  const option = command?.options.find((known) => known.attributeName() === name)
  return option?.long ? option.long + rest : message
}

/** Says what went wrong with `command`, in one sentence on stderr, and sets the exit status. */
export function reportFailure(error: unknown, command?: Command): void {
  const message = inOptionsOf(command, error instanceof Error ? error.message : String(error))
  process.stderr.write(`${styled('red', 'maestrale:', process.stderr)} ${message}\n`)
  const misuse =
    error instanceof UsageError ||
    (error instanceof Error && 'code' in error && error.code === 'ERR_INVALID_ARG')
  process.exitCode = misuse ? EXIT_USAGE : EXIT_FAILURE
}

/** A reader that leaves (`maestrale run | head`) ends the program quietly, as it ends cat. */
export function endQuietlyWhenReaderLeaves(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0)
      throw error
    })
  }
}
