// SPDX-License-Identifier: Apache-2.0
// A binding without an engine: it records what JavaScript asks for, and the test says what the engine
// answers. Vocabulary: 300 tokens, <s> </s> and the 256 bytes from id 3.
import type {
  Binding,
  NativeDone,
  NativeEvent,
  NativeLoadOptions,
  NativeModel,
  NativeRequest,
} from '../../lib/native/binding.js'

export const VOCAB_SIZE = 300

export const DONE: NativeDone = {
  finishReason: 'stop',
  promptTokens: 3,
  cachedTokens: 1,
  completionTokens: 5,
  guessedTokens: 3,
  acceptedTokens: 2,
  queueMs: 1,
  prefillMs: 2,
  ttftMs: 3,
  decodeMs: 400,
  seed: 7,
}

export class FakeEngine {
  readonly calls: [name: string, ...args: unknown[]][] = []
  readonly requests: NativeRequest[] = []
  loadOptions: NativeLoadOptions | undefined
  /** Thrown by the next generate(), logits() or score(). */
  refusal: unknown
  #onEvents: (events: NativeEvent[]) => void = () => {}
  #loading: { resolve(model: NativeModel): void; reject(error: unknown): void } | undefined
  #onProgress: ((loaded: number, total: number) => void) | undefined

  /** Events of one step. */
  emit(...events: NativeEvent[]): void {
    this.#onEvents(events)
  }

  /** One chunk for `id`. */
  say(id: number, text: string, ...tokens: number[]): void {
    this.emit({ id, text, tokens: Int32Array.from(tokens) })
  }

  progress(loaded: number, total: number): void {
    this.#onProgress?.(loaded, total)
  }

  finishLoading(): void {
    this.#loading?.resolve(this.model)
  }

  failLoading(error: unknown): void {
    this.#loading?.reject(error)
  }

  called(name: string): unknown[][] {
    return this.calls.filter((call) => call[0] === name).map((call) => call.slice(1))
  }

  readonly model: NativeModel = {
    info: () => ({
      name: 'fake',
      version: 'v0.1',
      architecture: 'llama',
      dim: 64,
      hiddenDim: 128,
      nLayers: 2,
      nHeads: 4,
      nKvHeads: 2,
      headDim: 16,
      vocabSize: VOCAB_SIZE,
      normEps: 1e-5,
      ropeTheta: 10000,
      slidingWindow: 0,
      slidingWindowSource: 'none',
      contextLength: 100,
      trainedContextLength: 100,
      device: 'cpu',
      gpuLayers: 0,
      isa: 'scalar',
      threads: 1,
      kvCacheType: 'f16',
      fileSize: 1000,
      parameters: 500,
      quantization: { f32: 3 },
    }),
    stats: () => ({
      queued: 0,
      running: 0,
      kvPagesUsed: 0,
      kvPagesTotal: 4,
      promptTokens: 0,
      cachedTokens: 0,
      completionTokens: 0,
      steps: 0,
      computeMs: 0,
      adapters: [],
    }),
    encode: (text, addBos) => Int32Array.from([...(addBos ? [1] : []), ...bytes(text)]),
    encodeSegments: (segments) =>
      Int32Array.from(
        segments.flatMap((part) => (typeof part === 'number' ? [part] : bytes(part))),
      ),
    decode: (tokens) =>
      Buffer.from([...tokens].filter((id) => id >= 3).map((id) => id - 3)).toString(),
    vocabulary: () => ({
      size: VOCAB_SIZE,
      bosId: 1,
      eosId: 2,
      unkId: 0,
      bosToken: '<s>',
      eosToken: '</s>',
      addBos: true,
      specialTokens: { '<s>': 1, '</s>': 2 },
    }),
    streamDecoder: () => ({ push: (token) => String.fromCharCode(token - 3), end: () => '' }),
    generate: (request) => {
      this.#refuse()
      this.requests.push(request)
    },
    logits: (id, tokens, ...adapter) => {
      this.#refuse()
      this.calls.push(['logits', id, tokens, ...adapter.filter(Boolean)])
    },
    score: (id, tokens, ...adapter) => {
      this.#refuse()
      this.calls.push(['score', id, tokens, ...adapter.filter(Boolean)])
    },
    loadAdapter: async (path, name, scale) => {
      this.calls.push(['loadAdapter', path, name, scale])
      this.#refuse()
      return { name, path, scale, rank: 8, parameters: 100, bytes: 200, requests: 0 }
    },
    unloadAdapter: async (name) => {
      this.calls.push(['unloadAdapter', name])
      this.#refuse()
    },
    cancel: (id) => void this.calls.push(['cancel', id]),
    pause: (id) => void this.calls.push(['pause', id]),
    resume: (id) => void this.calls.push(['resume', id]),
    dispose: async () => void this.calls.push(['dispose']),
  }

  readonly binding: Binding = {
    loadModel: (options, onProgress, onEvents) => {
      this.loadOptions = options
      this.#onProgress = onProgress
      this.#onEvents = onEvents
      const promise = new Promise<NativeModel>((resolve, reject) => {
        this.#loading = { resolve, reject }
      })
      return { promise, cancel: () => void this.calls.push(['cancelLoading']) }
    },
    loadTokenizer: async () => this.model,
    inspect: async () => ({ format: 'GGUF 3', fileSize: 0, metadata: [], tensors: [] }),
    pack: () => ({ promise: Promise.resolve(), cancel: () => {} }),
    quantize: () => {
      throw new Error('the fake engine writes no files')
    },
    examineMachine: async () => {
      throw new Error('there is no machine')
    },
    measureGpu: async () => {
      throw new Error('there is no GPU')
    },
    merge: () => {
      throw new Error('the fake engine writes no files')
    },
    isaTables: () => ['scalar'],
  }

  #refuse(): void {
    if (this.refusal === undefined) return
    const error = this.refusal
    this.refusal = undefined
    throw error
  }
}

function bytes(text: string): number[] {
  return [...Buffer.from(text)].map((byte) => byte + 3)
}
