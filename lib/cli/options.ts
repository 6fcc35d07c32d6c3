// SPDX-License-Identifier: Apache-2.0
// Command line options that several commands share, and how they become options of the library, which
// checks their ranges itself.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { packageRoot } from '#addon'

import { resolveModel } from '../hub/pull.js'
import { HUB_PREFIX } from '../hub/reference.js'
import { type GenerateOptions, type LoadOptions, loadModel, type Model } from '../index.js'
import { LOAD_TYPES } from '../quantize-types.js'
import { ProgressBar, UsageError, withProgress } from './terminal.js'

/** Stands for the model that ships with the package. */
export const MINI = 'mini'

export const DEFAULT_PROMPT = 'And it came to pass, when the ship had sailed,'

/** What a MODEL argument may be, for the help of commands. */
export const MODEL_HELP: string = `a file, a directory, hf:ORG/REPO[:QUANT], or '${MINI}' for the model that ships with the package`

/** The file or directory of the command line's MODEL, downloaded when it is on the hub and not in the cache. */
export async function modelPath(model: string | undefined): Promise<string> {
  if (isMini(model)) return join(packageRoot, 'models', 'mini-q4_k_m.gguf')
  return await existingPath(model, 'file')
}

/** What an --adapter or ADAPTER argument may be, for the help of commands. */
export const ADAPTER_HELP = 'a PEFT directory, a GGUF file or hf:ORG/REPO'

/** The same for an adapter. */
export async function adapterPath(adapter: string): Promise<string> {
  return await existingPath(adapter, 'adapter')
}

async function existingPath(name: string, kind: string): Promise<string> {
  if (name.startsWith(HUB_PREFIX)) return await download(name)
  if (!existsSync(name)) throw new UsageError(`there is no ${kind} '${name}'`)
  return name
}

async function download(reference: string): Promise<string> {
  return await withProgress('downloading', (options) => resolveModel(reference, options))
}

export function isMini(model: string | undefined): model is undefined | typeof MINI {
  return model === undefined || model === MINI
}

export function number(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || Number.isNaN(value))
    throw new InvalidArgumentError('It must be a number.')
  return value
}

export function numberOr(...words: string[]): (text: string) => number | string {
  return (text) => (words.includes(text) ? text : number(text))
}

/** An option for one of `types`, which may be spelled as in the names of GGUF files: Q4_K_M. */
export function typeOption(flags: string, description: string, types: readonly string[]): Option {
  const option = new Option(flags, description).choices(types)
  const { parseArg } = option
  return option.argParser((value, previous) => parseArg?.(value.toLowerCase(), previous))
}

/** For an option that may be given several times. */
export function collect(text: string, earlier: string[] | undefined): string[] {
  return [...(earlier ?? []), text]
}

export type LoadFlags = Pick<
  LoadOptions,
  | 'device'
  | 'gpuLayers'
  | 'threads'
  | 'contextLength'
  | 'kvCacheType'
  | 'maxSequences'
  | 'maxBatchTokens'
  | 'maxQueue'
  | 'quantization'
  | 'doubleQuant'
> & { slidingWindow?: number | 'auto' | 'none'; adapter?: string; adapterScale?: number }

export function addLoadOptions(command: Command): Command {
  return addModelOptions(command)
    .option('--adapter <path>', `a LoRA adapter to use: ${ADAPTER_HELP}`)
    .option('--adapter-scale <x>', 'multiplies what the adapter adds (default: 1)', number)
}

/** The options of loading without those of an adapter. */
export function addModelOptions(command: Command): Command {
  return command
    .optionsGroup('Model:')
    .option('--device <name>', "auto, cpu, cuda or cuda:N (default: 'auto')")
    .option(
      '--gpu-layers <n>',
      "of a model on cuda: its last layers that are there (default: 'auto', as many as fit)",
      numberOr('auto'),
    )
    .option('--threads <n>', 'threads that compute (default: all cores)', number)
    .option('--context-length <n>', "longest sequence in tokens (default: the model's own)", number)
    .option(
      '--sliding-window <n>',
      "keys a token sees, 'none' for full attention (default: from the file)",
      numberOr('auto', 'none'),
    )
    .addOption(
      new Option('--kv-cache-type <type>', "storage of the KV cache (default: 'f16')").choices([
        'f16',
        'bf16',
        'q8_0',
      ]),
    )
    .addOption(
      typeOption('--quantization <type>', 'quantise the weights while loading', LOAD_TYPES),
    )
    .option('--double-quant', 'with nf4 and fp4: round the scales to 8 bits')
}

export const SPECULATE = 'guess tokens that repeat the text: the same result, often sooner'

export type GenerateFlags = Omit<
  GenerateOptions,
  'signal' | 'logitBias' | 'stop' | 'speculation'
> & {
  stop?: string[]
  speculate?: boolean
}

export function addGenerateOptions(command: Command): Command {
  return command
    .optionsGroup('Sampling:')
    .option('-n, --max-new-tokens <n>', 'longest completion (default: 256)', number)
    .option('-t, --temperature <x>', '0 is greedy (default: 0.8)', number)
    .option('--top-k <n>', 'likeliest tokens kept, 0 for all (default: 40)', number)
    .option('--top-p <x>', 'total probability kept (default: 0.95)', number)
    .option('--min-p <x>', "fraction of the best token's probability needed (default: 0)", number)
    .option('--repetition-penalty <x>', '1 is off (default: 1.1)', number)
    .option('--last-n-tokens <n>', 'tokens the penalties look at, -1 for all (default: 64)', number)
    .option('--seed <n>', 'same seed, same text (default: random)', number)
    .option('--stop <text>', 'ends the completion; may be given several times', collect)
    .option('--speculate', SPECULATE)
}

/** The options of `flags` that the user gave, among `keys`. */
function given<T extends object, K extends keyof T>(flags: T, keys: readonly K[]): Pick<T, K> {
  const entries = keys.filter((key) => flags[key] !== undefined).map((key) => [key, flags[key]])
  return Object.fromEntries(entries) as Pick<T, K>
}

export function generateOptions(flags: GenerateFlags): GenerateOptions {
  return {
    ...given(flags, [
      'maxNewTokens',
      'temperature',
      'topK',
      'topP',
      'minP',
      'repetitionPenalty',
      'lastNTokens',
      'seed',
      'stop',
      'adapter',
    ]),
    ...(flags.speculate ? { speculation: true } : {}),
  }
}

/** Loads the model of the command line, with its adapter, whose name is its path. */
export async function loadForCommand(model: string | undefined, flags: LoadFlags): Promise<Model> {
  const { adapter, adapterScale } = flags
  if (adapter === undefined && adapterScale !== undefined) {
    throw new UsageError('--adapter-scale needs --adapter')
  }
  const path = adapter === undefined ? undefined : await adapterPath(adapter)
  const loaded = await loadBase(model, flags)
  if (path === undefined) return loaded
  try {
    await loaded.loadAdapter(path, {
      name: adapter ?? path,
      ...(adapterScale === undefined ? {} : { scale: adapterScale }),
    })
    return loaded
  } catch (error) {
    await loaded.dispose()
    throw error
  }
}

async function loadBase(model: string | undefined, flags: LoadFlags): Promise<Model> {
  const path = await modelPath(model)
  const { slidingWindow } = flags
  const bar = new ProgressBar('loading')
  try {
    return await loadModel(path, {
      ...given(flags, [
        'device',
        'gpuLayers',
        'threads',
        'contextLength',
        'kvCacheType',
        'maxSequences',
        'maxBatchTokens',
        'maxQueue',
        'quantization',
        'doubleQuant',
      ]),
      ...(slidingWindow === undefined
        ? {}
        : { slidingWindow: slidingWindow === 'none' ? null : slidingWindow }),
      ...(process.stderr.isTTY ? { onProgress: bar.update } : {}),
    })
  } finally {
    bar.end()
  }
}

/** Loads the model, runs `work` with it and disposes of it. */
export async function withModel<T>(
  model: string | undefined,
  flags: LoadFlags,
  work: (model: Model) => Promise<T>,
): Promise<T> {
  const loaded = await loadForCommand(model, flags)
  try {
    return await work(loaded)
  } finally {
    await loaded.dispose()
  }
}
