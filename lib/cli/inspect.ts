// SPDX-License-Identifier: Apache-2.0
// maestrale inspect: what a GGUF file or a checkpoint directory holds, without loading it.
import type { Command } from 'commander'

import { fromNative } from '../errors.js'
import type { NativeInspection } from '../native/binding.js'
import { loadBinding } from '../native/load.js'
import { isMini, MINI, MODEL_HELP, modelPath } from './options.js'
import { amount, bytes, styled } from './terminal.js'

const EXAMPLES = `
Examples:
  maestrale inspect mistral-7b-instruct-v0.1.Q4_K_M.gguf
  maestrale inspect model.gguf --tensors
  maestrale inspect model.gguf --json | jq '.tensors | length'`

const MAX_VALUE = 60

interface InspectFlags {
  json?: boolean
  tensors?: boolean
}

export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .summary('show what a model file holds')
    .description(
      'Shows the metadata and tensors of a GGUF file or a checkpoint directory, and the version and window found in it.',
    )
    .argument('[model]', MODEL_HELP, MINI)
    .option('--tensors', 'list every tensor')
    .option('--json', 'print everything as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(inspect)
}

async function inspect(file: string, flags: InspectFlags): Promise<void> {
  const path = await modelPath(file)
  const found = await loadBinding()
    .inspect(path)
    .catch((error: unknown) => {
      throw fromNative(error)
    })
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(found)}\n`)
    return
  }
  const lines = [`${isMini(file) ? MINI : file}: ${found.format}, ${bytes(found.fileSize)}`]
  lines.push(...describeModel(found), ...describeMetadata(found), ...describeTensors(found, flags))
  process.stdout.write(`${lines.join('\n')}\n`)
}

function heading(text: string): string[] {
  return ['', styled('bold', text)]
}

function describeModel({ config, configError, tensors }: NativeInspection): string[] {
  if (!config) return ['', configError ?? 'The file holds no model, only a vocabulary.']
  const weights = tensors.reduce((sum, tensor) => sum + product(tensor.shape), 0)
  const window = config.slidingWindow
    ? `${config.slidingWindow} keys (${config.slidingWindowSource})`
    : 'none, full attention'
  return [
    ...heading('Model'),
    ...table([
      ['name', config.name || '(none)'],
      ['version', config.version || 'none of the published ones'],
      ['sliding window', window],
      ['context length', `${config.contextLength} tokens`],
      ['weights', amount(weights)],
      ['layers', String(config.nLayers)],
      ['dim, hidden dim', `${config.dim}, ${config.hiddenDim}`],
      ['heads, kv heads', `${config.nHeads}, ${config.nKvHeads} of ${config.headDim}`],
      ['vocabulary', String(config.vocabSize)],
      ['rope theta', String(config.ropeTheta)],
    ]),
  ]
}

function describeMetadata({ metadata }: NativeInspection): string[] {
  const rows = metadata.map(({ key, type, value }): string[] => [key, type, preview(value)])
  return [...heading(`Metadata (${metadata.length})`), ...table(rows)]
}

function describeTensors({ tensors }: NativeInspection, flags: InspectFlags): string[] {
  const byType = new Map<string, { count: number; bytes: number }>()
  for (const tensor of tensors) {
    const sum = byType.get(tensor.type) ?? { count: 0, bytes: 0 }
    byType.set(tensor.type, { count: sum.count + 1, bytes: sum.bytes + tensor.bytes })
  }
  const sums = [...byType].map(([type, sum]) => [type, `${sum.count} tensors`, bytes(sum.bytes)])
  const rows = tensors.map(({ name, type, shape, bytes: size }) => [
    name,
    type,
    shape.join(' x '),
    bytes(size),
  ])
  return [
    ...heading(`Tensors (${tensors.length})`),
    ...table(sums),
    ...(flags.tensors ? ['', ...table(rows)] : []),
  ]
}

/** One line for a value of any length; control characters do not reach the terminal. */
function preview(value: NativeInspection['metadata'][number]['value']): string {
  const text =
    typeof value === 'object'
      ? `${value.length} values: ${JSON.stringify(value.first).slice(1, -1)}`
      : JSON.stringify(value)
  return text.length > MAX_VALUE ? `${text.slice(0, MAX_VALUE)}...` : text
}

function product(numbers: readonly number[]): number {
  return numbers.reduce((result, value) => result * value, 1)
}

/** Columns as wide as they need to be. */
function table(rows: string[][]): string[] {
  const widths: number[] = []
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length)
    })
  }
  return rows.map((row) =>
    `  ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}`.trimEnd(),
  )
}
