// SPDX-License-Identifier: Apache-2.0
// maestrale merge: a model and a LoRA adapter to one model.
import { type Command, Option } from 'commander'

import { MERGE_FORMATS, type MergeFormat, mergeAdapter } from '../merge.js'
import { QUANTIZE_TYPES, type QuantizeType } from '../quantize-types.js'
import { ADAPTER_HELP, adapterPath, MODEL_HELP, modelPath, number, typeOption } from './options.js'
import { describeWritten } from './quantize.js'
import { withProgress } from './terminal.js'

const EXAMPLES = `
Examples:
  maestrale merge model.Q4_K_M.gguf ./my-lora merged.Q4_K_M.gguf
  maestrale merge Mistral-7B-v0.1/ ./my-lora merged.bf16.gguf --type bf16
  maestrale merge model.Q4_K_M.gguf ./my-lora merged/ --format safetensors --type bf16

Folding an adapter into quantised weights rounds them anew; --adapter of the other commands loses nothing.`

interface MergeFlags {
  format?: MergeFormat
  type?: QuantizeType
  scale?: number
  threads?: number
  json?: boolean
}

export function addMergeCommand(program: Command): void {
  program
    .command('merge')
    .summary('fold a LoRA adapter into a model')
    .description('Writes a model with a LoRA adapter folded into its weights.')
    .argument('<model>', MODEL_HELP)
    .argument('<adapter>', ADAPTER_HELP)
    .argument('<output>', 'the GGUF file to write, or with --format safetensors the directory')
    .addOption(
      new Option(
        '--format <format>',
        "a GGUF file or a Hugging Face directory (default: 'gguf')",
      ).choices(MERGE_FORMATS),
    )
    .addOption(
      typeOption(
        '--type <type>',
        'storage type of the matrices (default: those of the model; f16 in a directory for what is quantised)',
        QUANTIZE_TYPES,
      ),
    )
    .option('--scale <x>', 'multiplies what the adapter adds (default: 1)', number)
    .option('--threads <n>', 'threads that compute (default: all cores)', number)
    .option('--json', 'print the result as one JSON object')
    .addHelpText('after', EXAMPLES)
    .action(merge)
}

async function merge(
  model: string,
  adapter: string,
  output: string,
  flags: MergeFlags,
): Promise<void> {
  const { json, ...options } = flags
  const input = await modelPath(model)
  const lora = await adapterPath(adapter)
  const result = await withProgress('merging', (progress) =>
    mergeAdapter(input, lora, output, { ...options, ...progress }),
  )
  process.stdout.write(
    json ? `${JSON.stringify({ output, ...result })}\n` : describeWritten(output, result),
  )
}
