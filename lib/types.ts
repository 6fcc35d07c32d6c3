// SPDX-License-Identifier: Apache-2.0
// The shapes of the public API: options, results and what a model tells about itself.
import type { LoadType } from './quantize-types.js'

/** Token ids, each from 0 to `vocabSize - 1`. */
export type TokenIds = Uint32Array | readonly number[]

/**
 * Where the model runs. `'auto'` is the CPU until the CUDA back end has been proven on hardware; with
 * `MAESTRALE_CUDA_DRIVER` set it takes the first GPU that can run the model, and the CPU otherwise;
 * `'cuda'` fails with the reason when there is none, it never falls back silently.
 */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`

/**
 * Storage of the KV cache: `'f16'` 2 bytes a value, `'bf16'` 2 bytes, `'q8_0'` 1.06 bytes. On the CPU the first two
 * are the same: integers of 16 bits with a scale per position and head, 2.03 bytes a value, which keep more than either.
 */
export type KvCacheType = 'f16' | 'bf16' | 'q8_0'

/** Options of {@link loadModel}. */
export interface LoadOptions {
  /** Default `'auto'`. */
  device?: Device
  /** How many of the last layers are on the GPU; default `'auto'`, as many as fit with the KV cache of one sequence. */
  gpuLayers?: 'auto' | number
  /** Threads that compute; default `'auto'`, one for every core this process may use. */
  threads?: 'auto' | number
  /**
   * Longest sequence accepted, prompt and completion, in tokens. Default: what the model was trained
   * for. Memory is bounded by the sliding window, not by this.
   */
  contextLength?: number
  /**
   * Number of keys W that a token sees, itself included: key j is visible to query i iff i - W < j <= i.
   * `'auto'` (default) reads it from the file, or knows it for the published v0.1 files; `null` is full
   * attention. Source: Mistral 7B, Jiang et al. 2023, section 2.
   */
  slidingWindow?: 'auto' | number | null
  /** Default `'f16'`. */
  kvCacheType?: KvCacheType
  /** Sequences that are computed together; further ones wait. Default 16. */
  maxSequences?: number
  /** Tokens computed in one step over all sequences, which is how a long prompt is cut. Default 512. */
  maxBatchTokens?: number
  /** Requests that may wait; the next one fails with ERR_QUEUE_FULL. Default 1024. */
  maxQueue?: number
  /**
   * Quantises the weights while they are loaded; memory is about that of the result. `'nf4'` and `'fp4'` are
   * those of bitsandbytes and leave the embedding and the output matrix as stored. Default: as stored.
   */
  quantization?: LoadType
  /**
   * With `'nf4'` and `'fp4'`: rounds the scales to 8 bits as bitsandbytes does, for the same weights as there.
   * It saves no memory here, where scales take 16 bits either way. Default `false`.
   */
  doubleQuant?: boolean
  /** Called while the model is downloaded (`'hf:...'`), and while it is read and repacked, with bytes. */
  onProgress?: (progress: LoadProgress) => void
  /** Stops the loading; the promise then rejects with the signal's reason. */
  signal?: AbortSignal
}

export interface LoadProgress {
  /** Present while a model comes from the hub; then `loaded` counts from 0 again. */
  phase?: 'download'
  /** Bytes that are done. */
  loaded: number
  /** Bytes of the model. */
  total: number
}

/** Options of prompt lookup, see {@link GenerateOptions.speculation}. */
export interface Speculation {
  /** Most tokens guessed in a step. Default 7; 1 to 15. */
  maxTokens?: number
  /** How many of the last tokens must have occurred before, in this order. Default 2; 1 to 4. */
  minNgram?: number
}

/**
 * Options of {@link Model.generate} and {@link Model.chat}. Defaults are those of ctransformers, or what the
 * generation_config.json of a model directory sets, see {@link ModelInfo.generationDefaults}.
 */
export interface GenerateOptions {
  /** Longest completion, in tokens. Default 256. */
  maxNewTokens?: number
  /** 0 is greedy: always the likeliest token. Default 0.8; 0 to 100. */
  temperature?: number
  /** Keeps the k likeliest tokens; 0 keeps all. Default 40. */
  topK?: number
  /** Keeps the likeliest tokens up to this total probability (nucleus). Default 0.95; 0 to 1. */
  topP?: number
  /** Keeps tokens of at least this fraction of the best one's probability. Default 0; 0 to 1. */
  minP?: number
  /** Divides positive and multiplies negative logits of recent tokens; 1 is off. Default 1.1. */
  repetitionPenalty?: number
  /** How many recent tokens, prompt included, the penalties look at; -1 is all. Default 64. */
  lastNTokens?: number
  /** Subtracted from a token's logit for every recent occurrence. Default 0; -100 to 100. */
  frequencyPenalty?: number
  /** Subtracted once from the logit of every recent token. Default 0; -100 to 100. */
  presencePenalty?: number
  /** Added to logits, by token id; -Infinity bans a token. Default none. */
  logitBias?: Readonly<Record<number, number>>
  /**
   * The same request with the same seed gives the same text, whatever else runs. Default: random; the
   * result reports it. An integer from 0 to 2^53 - 1.
   */
  seed?: number
  /** Texts that end the completion and are cut off; they may straddle tokens. Default none. */
  stop?: string | readonly string[]
  /**
   * Ends the run: before it has started the run rejects with the signal's reason; afterwards the stream
   * ends and the result, with `finishReason: 'abort'`, holds what was generated so far.
   */
  signal?: AbortSignal
  /** Reports the log-probability of each token and of this many alternatives; 0 (default) is off. */
  logprobs?: number
  /**
   * Guesses the next tokens from the prompt and the text so far (prompt lookup) and checks several of them
   * in one step. Text, tokens and chunks are exactly those of `false`, greedy or sampled with a seed; they
   * come sooner where the text repeats what it was given, as summaries, corrections and JSON do. Guesses
   * that fail become rare by themselves, and steps with many rows take none. `true` is `{}`. Default false.
   */
  speculation?: boolean | Speculation
  /** Name of an adapter, see {@link Model.loadAdapter}. Default none: the base model alone. */
  adapter?: string
}

/** Options of {@link Model.loadAdapter}. */
export interface AdapterOptions {
  /** What requests call it. Default: the last part of its path, without `.gguf`. */
  name?: string
  /** Multiplies what the adapter adds, on top of its own alpha / rank. Default 1; -1000 to 1000. */
  scale?: number
  /** Called while bytes arrive from the hub. */
  onProgress?: (progress: LoadProgress) => void
  /** Stops a download, which can be continued; the promise then rejects with the signal's reason. */
  signal?: AbortSignal
}

/** A loaded LoRA adapter. */
export interface AdapterInfo {
  readonly name: string
  readonly path: string
  readonly scale: number
  /** The highest rank among its matrices. */
  readonly rank: number
  /** Number of values in its file. */
  readonly parameters: number
  /** Memory it takes, in bytes. */
  readonly bytes: number
  /** Requests that use it and have not ended. */
  readonly requests: number
}

/** A token and the natural logarithm of its probability, before any sampling option applies. */
export interface Logprob {
  token: number
  logprob: number
}

/** Log-probability of a generated token, with the likeliest alternatives in descending order. */
export interface TokenLogprob extends Logprob {
  top: Logprob[]
}

/** `'stop'`: end of text or a stop string; `'length'`: a limit; `'abort'`: signal, break or cancel. */
export type FinishReason = 'stop' | 'length' | 'abort'

/** A piece of the stream. Texts concatenate to the result's text; no character is ever split. */
export interface Chunk {
  text: string
  tokens: Uint32Array
  /** Counts the chunks of this stream from 0. */
  index: number
  /** One entry per token, when asked for. */
  logprobs?: TokenLogprob[]
  /** On the last chunk only. */
  finishReason?: FinishReason
}

/** Numbers of tokens. */
export interface Usage {
  promptTokens: number
  /** Prompt tokens that were not computed again because an earlier request had the same beginning. */
  cachedTokens: number
  completionTokens: number
  /** Tokens computed ahead by `speculation`. */
  guessedTokens: number
  /** Of them, those that were right and spared a step. */
  acceptedTokens: number
}

/** Where the time went, in milliseconds measured on the engine's thread. */
export interface Timings {
  /** Waiting for a place in the batch. */
  queueMs: number
  /** Computing the prompt. */
  prefillMs: number
  /** From the request to the first token. */
  ttftMs: number
  /** From the first token to the last. */
  decodeMs: number
  /** Tokens after the first one per second of `decodeMs`; 0 when there are fewer than two. */
  tokensPerSecond: number
}

/** What a run amounts to. */
export interface Result {
  text: string
  tokens: Uint32Array
  finishReason: FinishReason
  usage: Usage
  timings: Timings
  /** The seed that was used. */
  seed: number
  /** One entry per token, when asked for. */
  logprobs?: TokenLogprob[]
}

/** Result of {@link Model.score}. */
export interface Score {
  /** Shape [n - 1]: log-probability of token i + 1 given the tokens 0 to i. */
  logprobs: Float32Array
  /** exp of the negative mean of `logprobs`. */
  perplexity: number
}

/** What a model is and how it runs; the architecture's numbers are named as in Mistral's params.json. */
export interface ModelInfo {
  readonly name: string
  /** `'v0.1'`, `'v0.2'`, `'v0.3'`, or `''` for a model that is none of the published families. */
  readonly version: string
  readonly architecture: string
  readonly dim: number
  readonly hiddenDim: number
  readonly nLayers: number
  readonly nHeads: number
  readonly nKvHeads: number
  readonly headDim: number
  readonly vocabSize: number
  readonly normEps: number
  readonly ropeTheta: number
  /** Keys that a token sees, itself included; null is full attention. */
  readonly slidingWindow: number | null
  /** Where the window comes from: `'metadata'`, `'recognised v0.1'`, `'option'` or `'none'`. */
  readonly slidingWindowSource: string
  /** Longest sequence accepted, in tokens. */
  readonly contextLength: number
  /** Longest sequence the model was trained for, in tokens. */
  readonly trainedContextLength: number
  /** `'cpu'`, `'cuda:0'`, ... */
  readonly device: string
  /** The last layers of the model, on the GPU; the others are on the CPU. */
  readonly gpuLayers: number
  /** Why `device: 'auto'` became the CPU; absent when it did not, or a device was named. */
  readonly deviceReason?: string
  /** The kernel table in use, e.g. `'avx512vnni'`. */
  readonly isa: string
  readonly threads: number
  readonly kvCacheType: string
  /** Bytes. */
  readonly fileSize: number
  /** Number of weights. */
  readonly parameters: number
  /** Number of tensors by storage type, e.g. `{ q4_k: 193, q6_k: 33, f32: 65 }`. */
  readonly quantization: Readonly<Record<string, number>>
  /** How {@link Model.chat} renders conversations. */
  readonly chatFormat: string
  /** What generation_config.json sets for options that a request leaves out; `{}` for other models. */
  readonly generationDefaults: Readonly<GenerateOptions>
}

/** Counters of a model's engine, at this moment. */
export interface ModelStats {
  /** Requests that wait. */
  queued: number
  /** Sequences in the batch. */
  running: number
  kvPagesUsed: number
  kvPagesTotal: number
  /** Tokens since the model was loaded. */
  promptTokens: number
  cachedTokens: number
  completionTokens: number
  /** Batches computed since the model was loaded. */
  steps: number
  /** Milliseconds spent computing them; what is left of the time is sampling, delivery and waiting. */
  computeMs: number
  /** The adapters that are loaded, in the order of their names. */
  adapters: AdapterInfo[]
}
