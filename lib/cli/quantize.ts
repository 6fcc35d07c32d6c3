// SPDX-License-Identifier: Apache-2.0
// maestrale quantize: a model in any form to a GGUF file whose weights take less room.
import type { Command } from 'commander'

import { type QuantizeResult, quantizeModel } from '../quantize.js'
import { QUANTIZE_TYPES, type QuantizeType } from '../quantize-types.js'
import { MODEL_HELP, modelPath, number, numberOr, typeOption } from './options.js'
import { bytes, withProgress } from './terminal.js'

const EXAMPLES = `
Examples:
  maestrale quantize Mistral-7B-v0.1/ mistral-7b-v0.1.Q4_K_M.gguf --type q4_k_m
  maestrale quantize model.bf16.gguf model.Q8_0.gguf --type q8_0 --json

The file appears when it is complete; Ctrl-C leaves nothing behind.`

interface QuantizeFlags {
  type: QuantizeType
  threads?: number
  slidingWindow?: number | 'auto' | 'none'
  json?: boolean
}

export function addQuantizeCommand(program: Command): void {
  program
    .command('quantize')
    .summary('write a GGUF file of smaller weights')
    .description(
      'Writes a model as a GGUF file of other weights, with its metadata, vocabulary, chat template and ' +
        'sliding window.',
    )
    .argument('<model>', MODEL_HELP)
    .argument('<output>', 'the GGUF file to write')
    .addOption(
      typeOption(
        '--type <type>',
        'storage type of the matrices, or a mix of types',
        QUANTIZE_TYPES,
      ).makeOptionMandatory(),
    )
    .option('--threads <n>', 'threads that compute (default: all cores)', number)
    .option(
      '--sliding-window <n>',
      "keys a token sees, 'none' for full attention (default: from the model)",
      numberOr('auto', 'none'),
    )
    .option('--json', 'print the result as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(quantize)
}

async function quantize(model: string, output: string, flags: QuantizeFlags): Promise<void> {
  const { type, threads, slidingWindow } = flags
  const input = await modelPath(model)
  const result = await withProgress('quantising', (options) =>
    quantizeModel(input, output, {
      type,
      ...options,
      ...(threads === undefined ? {} : { threads }),
      ...(slidingWindow === undefined
        ? {}
        : { slidingWindow: slidingWindow === 'none' ? null : slidingWindow }),
    }),
  )
  process.stdout.write(
    flags.json
      ? `${JSON.stringify({ output, type, ...result })}\n`
      : describeWritten(output, result),
  )
}

/** merged.gguf: 4.3 MB, tensors 25 q4_k, 8 q6_k; relative error 7.1 % */
export function describeWritten(output: string, result: QuantizeResult): string {
  const counts = Object.entries(result.quantization).map(([name, count]) => `${count} ${name}`)
  const error = `relative error ${(100 * result.relativeError).toPrecision(3)} %`
  return `${output}: ${bytes(result.size)}, tensors ${counts.join(', ')}; ${error}\n`
}
