// SPDX-License-Identifier: Apache-2.0
// maestrale run: continues a text, streams it, and says how fast that was.
import { text as readAll } from 'node:stream/consumers'
import type { Command } from 'commander'

import type { Result } from '../index.js'
import {
  addGenerateOptions,
  addLoadOptions,
  DEFAULT_PROMPT,
  type GenerateFlags,
  generateOptions,
  isMini,
  type LoadFlags,
  MODEL_HELP,
  withModel,
} from './options.js'
import { styled, UsageError } from './terminal.js'

const EXAMPLES = `
Examples:
  maestrale run                                          the model that ships with the package
  maestrale run mini "The king said" -n 40 --seed 7      the same, with a prompt of yours
  maestrale run mistral-7b.Q4_K_M.gguf "Once upon a time"
  git diff | maestrale run model.gguf - --temperature 0  the prompt from standard input
  maestrale run model.gguf --adapter ./my-lora "..."     with a LoRA adapter beside the weights
  maestrale run mini --json | jq .timings`

type RunFlags = LoadFlags & GenerateFlags & { json?: boolean }

export function addRunCommand(program: Command): void {
  const command = program
    .command('run')
    .summary('continue a text')
    .description(
      'Continues a text: the stream goes to standard output, the figures to standard error.',
    )
    .argument('[model]', MODEL_HELP, 'mini')
    .argument('[prompt]', "the text to continue; '-' reads it from standard input")
    .option('--json', 'print the result as one JSON object instead')
    .addHelpText('after', EXAMPLES)
    .action(run)
  addGenerateOptions(addLoadOptions(command))
}

async function run(
  file: string,
  promptArgument: string | undefined,
  flags: RunFlags,
): Promise<void> {
  if (promptArgument === undefined && !isMini(file)) {
    throw new UsageError("give a prompt to continue, or '-' to read it from standard input")
  }
  const prompt = promptArgument === '-' ? await readAll(process.stdin) : promptArgument
  const controller = new AbortController()
  await withModel(file, flags, async (model) => {
    const stop = () => controller.abort()
    process.once('SIGINT', stop)
    const text = prompt ?? DEFAULT_PROMPT
    const generation = model.generate(text, {
      ...generateOptions(flags),
      signal: controller.signal,
    })
    if (!flags.json) {
      process.stdout.write(styled('bold', text))
      try {
        for await (const chunk of generation) process.stdout.write(chunk.text)
      } finally {
        process.stdout.write('\n')
      }
    }
    const result = await generation
    process.off('SIGINT', stop)
    if (flags.json) {
      const report = { model: model.info.name, ...result, tokens: [...result.tokens] }
      process.stdout.write(`${JSON.stringify(report)}\n`)
    } else {
      process.stderr.write(`${styled('dim', figures(result), process.stderr)}\n`)
    }
  })
}

/** 42 tokens at 123.4 tokens/s, the first one after 12 ms (stop, seed 7) */
export function figures(result: Result): string {
  const { completionTokens } = result.usage
  const { tokensPerSecond, ttftMs } = result.timings
  return (
    `${completionTokens} tokens at ${tokensPerSecond.toFixed(1)} tokens/s, ` +
    `the first one after ${ttftMs.toFixed(0)} ms (${result.finishReason}, seed ${result.seed})`
  )
}
