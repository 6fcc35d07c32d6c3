// SPDX-License-Identifier: Apache-2.0
// The public API, and nothing else.
export type { ChatMessage, Tool, ToolCall } from './chat/format.js'
export { type ErrorCode, MaestraleError } from './errors.js'
export type { Generation } from './generation.js'
export { type PulledModel, type PullOptions, pullModel } from './hub/pull.js'
export { type MergeFormat, type MergeOptions, mergeAdapter } from './merge.js'
export {
  type ChatOptions,
  type ChatResult,
  type EvaluateOptions,
  loadModel,
  type Model,
} from './model.js'
export {
  type QuantizeOptions,
  type QuantizeResult,
  quantizeModel,
} from './quantize.js'
export type { LoadType, QuantizeType } from './quantize-types.js'
export {
  type ChatTemplateOptions,
  type DecodeOptions,
  type EncodeOptions,
  loadTokenizer,
  type StreamDecoder,
  type Tokenizer,
} from './tokenizer.js'
export type {
  AdapterInfo,
  AdapterOptions,
  Chunk,
  Device,
  FinishReason,
  GenerateOptions,
  KvCacheType,
  LoadOptions,
  LoadProgress,
  Logprob,
  ModelInfo,
  ModelStats,
  Result,
  Score,
  Speculation,
  Timings,
  TokenIds,
  TokenLogprob,
  Usage,
} from './types.js'
