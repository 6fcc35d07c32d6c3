// SPDX-License-Identifier: Apache-2.0
// The surface of maestrale.node, the one place where JavaScript and C++ meet (native/addon is the
// other side). Nothing here is public; options arrive validated and complete. Errors that C++ throws
// or reports carry a code of errors.ts.

/** A prompt: text (BOS as the vocabulary wants it), token ids, or segments (ids and raw texts). */
export type NativePrompt = string | Int32Array | (number | string)[]

export interface NativeLoadOptions {
  path: string
  device: string
  /** 0: as many as the CPUs this process may use. */
  threads: number
  /** Forces a kernel table by name. */
  isa?: string
  /** Tokens; 0: what the model was trained for. */
  contextLength: number
  /** -1: from the file; 0: full attention; otherwise W keys including self. */
  slidingWindow: number
  kvCacheType: 'f16' | 'bf16' | 'q8_0'
  maxSequences: number
  maxBatchTokens: number
  maxQueue: number
  /** -1: as many as fit. */
  gpuLayers: number
  /** What to quantise the weights to; absent: as stored. */
  quantization?: string
  doubleQuant: boolean
}

export interface NativeRequest {
  /** Chosen by JavaScript, unique within the model. */
  id: number
  prompt: NativePrompt
  maxNewTokens: number
  temperature: number
  /** 0: off. */
  topK: number
  topP: number
  minP: number
  repetitionPenalty: number
  frequencyPenalty: number
  presencePenalty: number
  /** -1: the whole sequence. */
  lastNTokens: number
  /** Ids and what is added to their logits: two arrays of equal length. */
  logitBiasTokens: Int32Array
  logitBiasValues: Float32Array
  seed: number
  stop: string[]
  /** How many alternatives to report per token; 0: none, and no log-probabilities at all. */
  logprobs: number
  /** Most tokens guessed in a step; 0: none. */
  guessTokens: number
  /** Last tokens that must have occurred before for a guess. */
  guessNgram: number
  /** The text is an answer of its own: the vocabulary's leading space is no part of it. */
  answer?: boolean
  /** Name of a loaded adapter; none: the base model alone. */
  adapter?: string
}

export interface NativeTokenLogprob {
  token: number
  /** Natural logarithm of the probability before any sampling option is applied. */
  logprob: number
}

export interface NativeDone {
  finishReason: 'stop' | 'length' | 'abort'
  promptTokens: number
  cachedTokens: number
  completionTokens: number
  guessedTokens: number
  acceptedTokens: number
  queueMs: number
  prefillMs: number
  ttftMs: number
  decodeMs: number
  seed: number
}

/** What happened to one request in one step. A request ends with `done`, `values` or `error`. */
export interface NativeEvent {
  id: number
  text?: string
  tokens?: Int32Array
  logprobs?: (NativeTokenLogprob & { top: NativeTokenLogprob[] })[]
  done?: NativeDone
  error?: { code: string; message: string }
  /** Result of logits() and score(). */
  values?: Float32Array
}

export interface NativeVocabulary {
  size: number
  bosId: number
  eosId: number
  unkId: number
  bosToken: string
  eosToken: string
  addBos: boolean
  specialTokens: Record<string, number>
  chatTemplate?: string
  /** The template for conversations with tools, where a file has one of its own. */
  toolTemplate?: string
}

export interface NativeStreamDecoder {
  push(token: number): string
  end(): string
}

/** Synchronous, on the calling thread; time is near linear in the input. */
export interface NativeTokenizer {
  encode(text: string, addBos: boolean, parseSpecial: boolean): Int32Array
  encodeSegments(segments: (number | string)[]): Int32Array
  decode(tokens: Int32Array, keepSpecial: boolean): string
  vocabulary(): NativeVocabulary
  streamDecoder(): NativeStreamDecoder
}

export interface NativeModelInfo {
  name: string
  version: string
  architecture: string
  dim: number
  hiddenDim: number
  nLayers: number
  nHeads: number
  nKvHeads: number
  headDim: number
  vocabSize: number
  normEps: number
  ropeTheta: number
  /** 0: full attention. */
  slidingWindow: number
  slidingWindowSource: string
  contextLength: number
  trainedContextLength: number
  device: string
  gpuLayers: number
  /** Why device 'auto' is the CPU. */
  deviceReason?: string
  isa: string
  threads: number
  kvCacheType: string
  fileSize: number
  parameters: number
  /** Tensors by storage type, e.g. { q4_k: 193, q6_k: 33, f32: 65 }. */
  quantization: Record<string, number>
}

export interface NativeStats {
  queued: number
  running: number
  kvPagesUsed: number
  kvPagesTotal: number
  promptTokens: number
  cachedTokens: number
  completionTokens: number
  steps: number
  computeMs: number
  /** In the order of their names. */
  adapters: NativeAdapter[]
}

export interface NativeAdapter {
  name: string
  path: string
  scale: number
  /** The highest of its matrices. */
  rank: number
  parameters: number
  /** Of memory. */
  bytes: number
  /** Requests that use it and have not ended. */
  requests: number
}

export interface NativeModel extends NativeTokenizer {
  info(): NativeModelInfo
  stats(): NativeStats
  generate(request: NativeRequest): void
  logits(id: number, tokens: Int32Array, adapter?: string): void
  score(id: number, tokens: Int32Array, adapter?: string): void
  loadAdapter(path: string, name: string, scale: number): Promise<NativeAdapter>
  /** Resolves when the requests that use it have ended. */
  unloadAdapter(name: string): Promise<void>
  cancel(id: number): void
  pause(id: number): void
  resume(id: number): void
  /** Idempotent; resolves when the engine's thread has ended and its memory is free. */
  dispose(): Promise<void>
}

type Scalar = string | number | boolean

export interface NativeInspection {
  /** `'GGUF 3'`, `'packed GGUF 3'`, `'Hugging Face checkpoint'`, `'Mistral checkpoint'`. */
  format: string
  fileSize: number
  /** Arrays arrive as their length and first elements; vocabularies are long. */
  metadata: { key: string; type: string; value: Scalar | { length: number; first: Scalar[] } }[]
  tensors: { name: string; type: string; shape: number[]; offset: number; bytes: number }[]
  /** Why there is no config, in a file whose hyperparameters are wrong. */
  configError?: string
  /** Absent when the file holds a vocabulary only. */
  config?: {
    name: string
    version: string
    dim: number
    hiddenDim: number
    nLayers: number
    nHeads: number
    nKvHeads: number
    headDim: number
    vocabSize: number
    normEps: number
    ropeTheta: number
    slidingWindow: number
    slidingWindowSource: string
    contextLength: number
  }
}

export interface NativeGpu {
  /** As its maker calls it. */
  name: string
  /** Compute capability, 75 for 7.5. */
  capability: number
  /** Bytes, used ones included. */
  memory: number
  /** New enough. */
  usable: boolean
  /** Bytes a second that its memory can give, by its clock and width; 0: the driver does not tell. */
  memoryBandwidth: number
}

/** Weights read by the kernel that decoding one sequence reads them with. */
export interface NativeReadSpeed {
  /** Bytes of weights, each read once in a pass. */
  bytes: number
  /** Of a pass. */
  seconds: number
}

export interface NativeMachine {
  /** CPUs this process may use. */
  threads: number
  /** Bytes. */
  availableMemory: number
  /** Bytes a second that all threads read together. */
  readBandwidth: number
  /** Kernel tables, best first; all give the same bits. */
  isas: string[]
  /** Kernel tables that are taken only when named, since they give other bits. */
  namedIsas: string[]
  /** cuda:0, cuda:1, ... */
  gpus: NativeGpu[]
  /** The latest CUDA that the driver supports, 12040 for 12.4. */
  cudaVersion: number
  /** Why there is no CUDA. */
  cudaProblem?: string
}

export interface NativeMergeOptions {
  /** Its path. */
  adapter: string
  scale: number
  /** Name of a type or mix; '': every matrix keeps its type. */
  type: string
  format: 'gguf' | 'safetensors'
  /** 0: as many as the CPUs this process may use. */
  threads: number
}

export interface NativeQuantizeOptions {
  type: string
  /** 0: as many as the CPUs this process may use. */
  threads: number
  /** -1: from the model; 0: full attention; otherwise W keys including self. */
  slidingWindow: number
}

export interface NativeQuantized {
  size: number
  quantization: Record<string, number>
  relativeError: number
}

/** Work on another thread. */
export interface NativeJob<T> {
  promise: Promise<T>
  /** The promise then rejects with ERR_ABORTED. */
  cancel(): void
}

/** Counts bytes of the file that is read or written. */
export type NativeProgress = (loaded: number, total: number) => void

export interface Binding {
  /** `onEvents` gets all that happened in one step. */
  loadModel(
    options: NativeLoadOptions,
    onProgress: NativeProgress | undefined,
    onEvents: (events: NativeEvent[]) => void,
  ): NativeJob<NativeModel>
  loadTokenizer(path: string): Promise<NativeTokenizer>
  inspect(path: string): Promise<NativeInspection>
  /** Writes the packed image of the GGUF file `input`; `output` appears when it is complete. */
  pack(input: string, output: string, onProgress: NativeProgress | undefined): NativeJob<void>
  /** Writes the model `input` as a GGUF file; `output` appears when it is complete. */
  quantize(
    input: string,
    output: string,
    options: NativeQuantizeOptions,
    onProgress: NativeProgress | undefined,
  ): NativeJob<NativeQuantized>
  /** Takes a fraction of a second: it measures. */
  examineMachine(): Promise<NativeMachine>
  /** Of cuda:`ordinal`. */
  measureGpu(ordinal: number): Promise<NativeReadSpeed>
  /** Writes the model `input` with an adapter in its weights; `output` appears when it is complete. */
  merge(
    input: string,
    output: string,
    options: NativeMergeOptions,
    onProgress: NativeProgress | undefined,
  ): NativeJob<NativeQuantized>
  /** Kernel tables that this machine can run. */
  isaTables(): string[]
}
