// SPDX-License-Identifier: Apache-2.0
// Options of loadModel and generate: what is allowed, the defaults, and their translation to what the
// addon takes. Where this project sets no default of its own, it is that of ctransformers 0.2.27.
import { randomInt } from 'node:crypto'

import type { NativeLoadOptions, NativePrompt, NativeRequest } from './native/binding.js'
import { LOAD_TYPES } from './quantize-types.js'
import type { AdapterOptions, GenerateOptions, LoadOptions, Speculation } from './types.js'
import {
  boolean,
  type Check,
  type Checks,
  functionValue,
  integer,
  nonEmptyText,
  number,
  oneOf,
  outOfRange,
  signal,
  wrongType,
} from './validate.js'

const INT32_MAX = 2 ** 31 - 1
const MAX_STOPS = 64
const MAX_STOP_CHARACTERS = 1024

const device: Check = (value, name) => {
  const expected = "'auto', 'cpu', 'cuda' or 'cuda:N'"
  if (typeof value !== 'string') wrongType(name, expected, value)
  if (!/^(auto|cpu|cuda|cuda:\d{1,3})$/.test(value)) outOfRange(name, expected, value)
}

export const LOAD_CHECKS: Checks<LoadOptions> = {
  device,
  gpuLayers: oneOf(['auto'], integer(0, 1024), 'an integer from 0 to 1024'),
  threads: oneOf(['auto'], integer(1, 1024), 'an integer from 1 to 1024'),
  contextLength: integer(1),
  slidingWindow: oneOf(['auto', null], integer(1), 'an integer of at least 1'),
  kvCacheType: oneOf(['f16', 'bf16', 'q8_0']),
  maxSequences: integer(1, 1024),
  maxBatchTokens: integer(1, 65536),
  maxQueue: integer(0, 1_000_000),
  quantization: oneOf(LOAD_TYPES),
  doubleQuant: boolean,
  onProgress: functionValue,
  signal,
}

const positive: Check = (value, name) => {
  const expected = 'a number above 0 and up to 100'
  if (typeof value !== 'number' || Number.isNaN(value)) wrongType(name, expected, value)
  if (value <= 0 || value > 100) outOfRange(name, expected, value)
}

const stop: Check = (value, name) => {
  if (typeof value === 'string') {
    checkStop(value, name)
    return
  }
  if (!Array.isArray(value)) wrongType(name, 'a string or an array of strings', value)
  if (value.length > MAX_STOPS) outOfRange(name, `at most ${MAX_STOPS} strings`, value)
  value.forEach((item, i) => {
    checkStop(item, `${name}[${i}]`)
  })
}

function checkStop(value: unknown, name: string): void {
  nonEmptyText(value, name)
  if ((value as string).length > MAX_STOP_CHARACTERS) {
    outOfRange(name, `a string of at most ${MAX_STOP_CHARACTERS} characters`, value)
  }
}

const logitBias: Check = (value, name) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    wrongType(name, 'an object of token ids and numbers', value)
  }
  for (const [id, bias] of Object.entries(value)) {
    if (!/^\d{1,10}$/.test(id)) outOfRange(name, 'an object whose keys are token ids', value)
    if (typeof bias !== 'number' || Number.isNaN(bias) || bias === Infinity) {
      wrongType(`${name}[${id}]`, 'a finite number or -Infinity', bias)
    }
  }
}

const SPECULATION_CHECKS: Checks<Speculation> = {
  maxTokens: integer(1, 15),
  minNgram: integer(1, 4),
}

const speculation: Check = (value, name) => {
  if (typeof value === 'boolean') return
  const expected = 'a boolean or an object of maxTokens and minNgram'
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    wrongType(name, expected, value)
  }
  for (const [key, item] of Object.entries(value)) {
    if (!Object.hasOwn(SPECULATION_CHECKS, key)) wrongType(name, expected, value)
    if (item !== undefined) SPECULATION_CHECKS[key as keyof Speculation](item, `${name}.${key}`)
  }
}

export const GENERATE_CHECKS: Checks<GenerateOptions> = {
  maxNewTokens: integer(1),
  temperature: number(0, 100),
  topK: integer(0, INT32_MAX),
  topP: number(0, 1),
  minP: number(0, 1),
  repetitionPenalty: positive,
  lastNTokens: integer(-1, INT32_MAX),
  frequencyPenalty: number(-100, 100),
  presencePenalty: number(-100, 100),
  logitBias,
  seed: integer(0, Number.MAX_SAFE_INTEGER),
  stop,
  signal,
  logprobs: integer(0, 20),
  speculation,
  adapter: nonEmptyText,
}

export const ADAPTER_CHECKS: Checks<AdapterOptions> = {
  name: nonEmptyText,
  scale: number(-1000, 1000),
  onProgress: functionValue,
  signal,
}

/** Checked load options with every default filled in. */
export function nativeLoadOptions(path: string, options: LoadOptions): NativeLoadOptions {
  const { threads = 'auto', gpuLayers = 'auto', slidingWindow = 'auto' } = options
  // Read on every load, so that a test can force each table in turn, also inside a worker thread.
  const isa = process.env.MAESTRALE_ISA
  const { quantization, doubleQuant = false } = options
  if (doubleQuant && quantization !== 'nf4' && quantization !== 'fp4') {
    outOfRange('doubleQuant', "false unless quantization is 'nf4' or 'fp4'", doubleQuant)
  }
  return {
    path,
    device: options.device ?? 'auto',
    threads: threads === 'auto' ? 0 : threads,
    ...(isa ? { isa } : {}),
    contextLength: options.contextLength ?? 0,
    slidingWindow: slidingWindow === 'auto' ? -1 : (slidingWindow ?? 0),
    kvCacheType: options.kvCacheType ?? 'f16',
    maxSequences: options.maxSequences ?? 16,
    maxBatchTokens: options.maxBatchTokens ?? 512,
    maxQueue: options.maxQueue ?? 1024,
    gpuLayers: gpuLayers === 'auto' ? -1 : gpuLayers,
    ...(quantization ? { quantization } : {}),
    doubleQuant,
  }
}

/** `options` with `defaults` for those that are not given. */
export function withDefaults(options: GenerateOptions, defaults: GenerateOptions): GenerateOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return { ...defaults, ...Object.fromEntries(given) }
}

/** Checked generation options with every default filled in; biased ids must be below `vocabSize`. */
export function nativeRequest(
  id: number,
  prompt: NativePrompt,
  options: GenerateOptions,
  vocabSize: number,
): NativeRequest {
  const biases = Object.entries(options.logitBias ?? {})
  const checkId = integer(0, vocabSize - 1)
  for (const [token] of biases) checkId(Number(token), 'a key of logitBias')
  const { stop = [] } = options
  const guesses = options.speculation === true ? {} : options.speculation || { maxTokens: 0 }
  return {
    id,
    prompt,
    maxNewTokens: options.maxNewTokens ?? 256,
    temperature: options.temperature ?? 0.8,
    topK: options.topK ?? 40,
    topP: options.topP ?? 0.95,
    minP: options.minP ?? 0,
    repetitionPenalty: options.repetitionPenalty ?? 1.1,
    frequencyPenalty: options.frequencyPenalty ?? 0,
    presencePenalty: options.presencePenalty ?? 0,
    lastNTokens: options.lastNTokens ?? 64,
    logitBiasTokens: Int32Array.from(biases, ([token]) => Number(token)),
    logitBiasValues: Float32Array.from(biases, ([, bias]) => bias),
    seed: options.seed ?? randomInt(2 ** 48 - 1),
    stop: typeof stop === 'string' ? [stop] : [...stop],
    logprobs: options.logprobs ?? 0,
    guessTokens: guesses.maxTokens ?? 7,
    guessNgram: guesses.minNgram ?? 2,
    ...(options.adapter === undefined ? {} : { adapter: options.adapter }),
  }
}
