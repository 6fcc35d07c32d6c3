// SPDX-License-Identifier: Apache-2.0
// Every misuse of the API is an error that names the option and what is allowed, and has no effect; every
// default is the documented one.
import { beforeEach, describe, expect, test } from 'vitest'

import { type GenerateOptions, type LoadOptions, loadModel, type Model } from '../../lib/index.js'
import { loadModelFrom } from '../../lib/model.js'
import { FakeEngine, VOCAB_SIZE } from './fake-binding.js'

let engine: FakeEngine
let model: Model

function load(options: LoadOptions, path = 'model.gguf'): Promise<Model> {
  const loading = loadModelFrom(() => engine.binding, path, options, {})
  engine.finishLoading()
  return loading
}

beforeEach(async () => {
  engine = new FakeEngine()
  model = await load({})
})

/** [value, TypeError or RangeError, part of the message] */
type Misuse = [value: unknown, kind: typeof TypeError | typeof RangeError, message: string]

const T = TypeError
const R = RangeError

const LOAD_MISUSE: Record<string, Misuse[]> = {
  device: [
    ['gpu', R, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N'; received 'gpu'"],
    ['cuda:', R, "received 'cuda:'"],
    [0, T, 'received 0'],
  ],
  gpuLayers: [
    [-1, R, 'gpuLayers must be an integer from 0 to 1024; received -1'],
    ['all', R, "gpuLayers must be 'auto' or an integer from 0 to 1024; received 'all'"],
    [true, T, 'received true'],
  ],
  threads: [
    [0, R, 'threads must be an integer from 1 to 1024; received 0'],
    [1.5, R, 'received 1.5'],
    [Number.NaN, T, 'received NaN'],
    [null, T, 'received null'],
  ],
  contextLength: [
    [0, R, 'contextLength must be an integer of at least 1; received 0'],
    ['4096', T, "received '4096'"],
  ],
  slidingWindow: [
    [0, R, 'slidingWindow must be an integer of at least 1; received 0'],
    ['none', R, "slidingWindow must be 'auto', null or an integer of at least 1; received 'none'"],
    [{}, T, 'received {}'],
  ],
  kvCacheType: [
    ['f32', R, "kvCacheType must be 'f16', 'bf16', 'q8_0'; received 'f32'"],
    [16, T, 'received 16'],
  ],
  maxSequences: [[0, R, 'maxSequences must be an integer from 1 to 1024; received 0']],
  maxBatchTokens: [[0, R, 'maxBatchTokens must be an integer from 1 to 65536; received 0']],
  maxQueue: [[-1, R, 'maxQueue must be an integer from 0 to 1000000; received -1']],
  onProgress: [['log', T, "onProgress must be a function; received 'log'"]],
  signal: [[{ aborted: false }, T, 'signal must be an AbortSignal; received']],
}

const GENERATE_MISUSE: Record<string, Misuse[]> = {
  maxNewTokens: [
    [0, R, 'maxNewTokens must be an integer of at least 1; received 0'],
    [1.5, R, 'received 1.5'],
    [Infinity, R, 'received Infinity'],
    ['5', T, "received '5'"],
  ],
  temperature: [
    [-0.1, R, 'temperature must be a number from 0 to 100; received -0.1'],
    [Number.NaN, T, 'received NaN'],
    [null, T, 'received null'],
  ],
  topK: [[-1, R, 'topK must be an integer from 0 to 2147483647; received -1']],
  topP: [
    [1.01, R, 'topP must be a number from 0 to 1; received 1.01'],
    [true, T, 'received true'],
  ],
  minP: [[-0.5, R, 'minP must be a number from 0 to 1; received -0.5']],
  repetitionPenalty: [
    [0, R, 'repetitionPenalty must be a number above 0 and up to 100; received 0'],
    ['1', T, "received '1'"],
  ],
  lastNTokens: [[-2, R, 'lastNTokens must be an integer from -1 to 2147483647; received -2']],
  frequencyPenalty: [[101, R, 'frequencyPenalty must be a number from -100 to 100; received 101']],
  presencePenalty: [[-101, R, 'presencePenalty must be a number from -100 to 100; received -101']],
  logitBias: [
    [[1], T, 'logitBias must be an object of token ids and numbers; received'],
    [{ x: 1 }, R, 'logitBias must be an object whose keys are token ids'],
    [{ 5: '1' }, T, "logitBias[5] must be a finite number or -Infinity; received '1'"],
    [{ 5: Infinity }, T, 'received Infinity'],
    [{ [VOCAB_SIZE]: 1 }, R, 'a key of logitBias must be an integer from 0 to 299; received 300'],
  ],
  seed: [
    [-1, R, 'seed must be an integer of at least 0; received -1'],
    [2 ** 53, R, 'received 9007199254740992'],
  ],
  stop: [
    ['', R, "stop must be a non-empty string; received ''"],
    [['a', ''], R, "stop[1] must be a non-empty string; received ''"],
    [['a', 1], T, 'stop[1] must be a non-empty string; received 1'],
    [/x/, T, 'stop must be a string or an array of strings; received /x/'],
    [Array(65).fill('a'), R, 'stop must be at most 64 strings'],
    ['x'.repeat(1025), R, 'stop must be a string of at most 1024 characters'],
  ],
  signal: [['now', T, "signal must be an AbortSignal; received 'now'"]],
  logprobs: [[21, R, 'logprobs must be an integer from 0 to 20; received 21']],
  speculation: [
    [4, T, 'speculation must be a boolean or an object of maxTokens and minNgram; received 4'],
    [null, T, 'received null'],
    [{ tokens: 4 }, T, 'speculation must be a boolean or an object of maxTokens and minNgram'],
    [{ maxTokens: 0 }, R, 'speculation.maxTokens must be an integer from 1 to 15; received 0'],
    [{ maxTokens: 16 }, R, 'received 16'],
    [{ minNgram: 5 }, R, 'speculation.minNgram must be an integer from 1 to 4; received 5'],
    [{ minNgram: '2' }, T, "received '2'"],
  ],
}

function flat(table: Record<string, Misuse[]>): [string, ...Misuse][] {
  return Object.entries(table).flatMap(([name, cases]) =>
    cases.map((misuse): [string, ...Misuse] => [name, ...misuse]),
  )
}

describe('loadModel', () => {
  test.each(flat(LOAD_MISUSE))('%s: %j', async (name, value, kind, message) => {
    const fresh = new FakeEngine()
    const error = await loadModelFrom(() => fresh.binding, 'm.gguf', { [name]: value }, {}).then(
      () => expect.fail('must be refused'),
      (reason) => reason,
    )
    expect(error).toBeInstanceOf(kind)
    expect(error.code).toBe('ERR_INVALID_ARG')
    expect(error.message).toContain(message)
    expect(fresh.loadOptions).toBeUndefined()
  })

  test('an unknown option is named, with the known ones', async () => {
    await expect(load({ thread: 2 } as LoadOptions)).rejects.toThrow(
      /^unknown option 'thread'; the options are device, gpuLayers, threads, /,
    )
  })

  test('the path must be a non-empty string', async () => {
    await expect(loadModel('')).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
    // @ts-expect-error the path is missing
    await expect(loadModel()).rejects.toBeInstanceOf(TypeError)
    // @ts-expect-error options must be an object
    await expect(loadModel('x', null)).rejects.toThrow('options must be an object; received null')
  })

  test('defaults', () => {
    expect(engine.loadOptions).toEqual({
      path: 'model.gguf',
      device: 'auto',
      threads: 0,
      contextLength: 0,
      slidingWindow: -1,
      kvCacheType: 'f16',
      maxSequences: 16,
      maxBatchTokens: 512,
      maxQueue: 1024,
      gpuLayers: -1,
      doubleQuant: false,
    })
  })

  test('every option arrives', async () => {
    await load({ slidingWindow: null, threads: 2, contextLength: 2 ** 40, kvCacheType: 'q8_0' })
    expect(engine.loadOptions).toMatchObject({
      slidingWindow: 0,
      threads: 2,
      contextLength: 2 ** 40,
      kvCacheType: 'q8_0',
    })
    await load({ slidingWindow: 4096, device: 'cuda:1', gpuLayers: 0, maxQueue: 0 })
    expect(engine.loadOptions).toMatchObject({
      slidingWindow: 4096,
      device: 'cuda:1',
      gpuLayers: 0,
      maxQueue: 0,
    })
  })

  test('undefined is the same as absent', async () => {
    await load({ threads: undefined } as unknown as LoadOptions)
    expect(engine.loadOptions?.threads).toBe(0)
  })
})

describe('generate', () => {
  test.each(flat(GENERATE_MISUSE))('%s: %j', (name, value, kind, message) => {
    const misuse = () => model.generate('x', { [name]: value })
    expect(misuse).toThrow(kind)
    expect(misuse).toThrow(message)
    expect(misuse).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }))
    expect(() => model.chat([], { [name]: value })).toThrow(message)
    expect(engine.requests).toEqual([])
  })

  test('an unknown option is named, with the known ones', () => {
    expect(() => model.generate('x', { max_tokens: 5 } as GenerateOptions)).toThrow(
      "unknown option 'max_tokens'; the options are maxNewTokens, temperature, topK,",
    )
    expect(() => model.generate('x', { toString: 1 } as unknown as GenerateOptions)).toThrow(
      "unknown option 'toString'",
    )
  })

  test('the prompt is a text or ids of the vocabulary', () => {
    expect(() => model.generate([])).toThrow('prompt must be an array of at least 1 token id;')
    expect(() => model.generate([5, VOCAB_SIZE])).toThrow(
      'prompt[1] must be an integer from 0 to 299; received 300',
    )
    expect(() => model.generate([-1])).toThrow(RangeError)
    // @ts-expect-error neither text nor ids
    expect(() => model.generate({})).toThrow(
      'prompt must be an array of token ids or a Uint32Array',
    )
    expect(engine.requests).toEqual([])
  })

  test('speculation is off, on, or as given', () => {
    const sent = (speculation?: GenerateOptions['speculation']) => {
      model.generate('x', speculation === undefined ? {} : { speculation })
      const { guessTokens, guessNgram } = engine.requests.at(-1) ?? {}
      return [guessTokens, guessNgram]
    }
    expect(sent()[0]).toBe(0)
    expect(sent(false)[0]).toBe(0)
    expect(sent(true)).toEqual([7, 2])
    expect(sent({})).toEqual([7, 2])
    expect(sent({ maxTokens: 3, minNgram: 1 })).toEqual([3, 1])
  })

  test('defaults are those of ctransformers, the seed is random', () => {
    model.generate('x')
    model.generate('x')
    const [one, two] = engine.requests
    expect(one).toMatchObject({
      id: 1,
      prompt: 'x',
      maxNewTokens: 256,
      temperature: 0.8,
      topK: 40,
      topP: 0.95,
      minP: 0,
      repetitionPenalty: 1.1,
      frequencyPenalty: 0,
      presencePenalty: 0,
      lastNTokens: 64,
      stop: [],
      logprobs: 0,
    })
    expect(one?.logitBiasTokens).toEqual(new Int32Array(0))
    expect(one?.seed).not.toBe(two?.seed)
  })

  test('every option arrives', () => {
    model.generate([1, 2], {
      maxNewTokens: 2 ** 40,
      temperature: 0,
      topK: 0,
      topP: 0,
      minP: 1,
      repetitionPenalty: 0.5,
      frequencyPenalty: -1,
      presencePenalty: 1,
      lastNTokens: -1,
      logitBias: { 4: -Infinity, 299: 2.5 },
      seed: 2 ** 53 - 1,
      stop: 'end',
      logprobs: 20,
      speculation: { maxTokens: 15, minNgram: 4 },
    })
    expect(engine.requests[0]).toEqual({
      id: 1,
      prompt: Int32Array.of(1, 2),
      maxNewTokens: 2 ** 40,
      temperature: 0,
      topK: 0,
      topP: 0,
      minP: 1,
      repetitionPenalty: 0.5,
      frequencyPenalty: -1,
      presencePenalty: 1,
      lastNTokens: -1,
      logitBiasTokens: Int32Array.of(4, 299),
      logitBiasValues: Float32Array.of(-Infinity, 2.5),
      seed: 2 ** 53 - 1,
      stop: ['end'],
      logprobs: 20,
      guessTokens: 15,
      guessNgram: 4,
    })
  })
})

describe('chat', () => {
  test('checks its own options', () => {
    // @ts-expect-error messages must be an array
    expect(() => model.chat('hello')).toThrow(
      "messages must be an array of messages; received 'hello'",
    )
    // @ts-expect-error tools must be an array
    expect(() => model.chat([], { tools: {} })).toThrow(
      'tools must be an array of tools; received {}',
    )
    // @ts-expect-error a boolean
    expect(() => model.chat([], { continueFinalMessage: 1 })).toThrow(
      'must be a boolean; received 1',
    )
  })

  test('an impossible conversation fails the run', async () => {
    await expect(model.chat([])).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
    expect(engine.requests).toEqual([])
  })
})

describe('tokenizer', () => {
  test('checks its arguments', async () => {
    const { tokenizer } = model
    // @ts-expect-error a string
    expect(() => tokenizer.encode(5)).toThrow('text must be a string; received 5')
    // @ts-expect-error a boolean
    expect(() => tokenizer.encode('x', { addBos: 'yes' })).toThrow('addBos must be a boolean')
    // @ts-expect-error unknown
    expect(() => tokenizer.encode('x', { bos: true })).toThrow("unknown option 'bos'")
    expect(() => tokenizer.decode([VOCAB_SIZE])).toThrow(
      'tokens[0] must be an integer from 0 to 299',
    )
    // @ts-expect-error a boolean
    expect(() => tokenizer.decode([1], { keepSpecial: 1 })).toThrow('keepSpecial must be a boolean')
    expect(() => tokenizer.streamDecoder().push(-1)).toThrow(
      'token must be an integer from 0 to 299',
    )
    // @ts-expect-error a boolean
    const misuse = tokenizer.applyChatTemplate([], { addGenerationPrompt: 0 })
    await expect(misuse).rejects.toThrow('addGenerationPrompt must be a boolean; received 0')
  })
})
