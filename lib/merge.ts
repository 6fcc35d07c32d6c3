// SPDX-License-Identifier: Apache-2.0
// Merging: a model and a LoRA adapter to one model, a GGUF file or a Hugging Face directory.
import { captureCallSite } from './errors.js'
import { resolveModel } from './hub/pull.js'
import { runJob } from './job.js'
import { loadBinding } from './native/load.js'
import { ADAPTER_CHECKS, LOAD_CHECKS } from './options.js'
import type { QuantizeResult } from './quantize.js'
import { QUANTIZE_TYPES, type QuantizeType } from './quantize-types.js'
import type { AdapterOptions, LoadOptions } from './types.js'
import { type Checks, checkOptions, nonEmptyText, oneOf } from './validate.js'

export const MERGE_FORMATS = ['gguf', 'safetensors'] as const

/** What {@link mergeAdapter} writes. */
export type MergeFormat = (typeof MERGE_FORMATS)[number]

/** Options of {@link mergeAdapter}. */
export interface MergeOptions
  extends Pick<LoadOptions, 'threads' | 'onProgress' | 'signal'>,
    Pick<AdapterOptions, 'scale'> {
  /**
   * What to write: one GGUF file, or a Hugging Face directory (config.json, model.safetensors, in shards above 5 GB,
   * and the tokenizer's files). Default `'gguf'`.
   */
  format?: MergeFormat
  /**
   * Storage type of the matrices, as quantizeModel() takes it; a Hugging Face directory has `'f32'`, `'f16'` or
   * `'bf16'`. Default: every matrix keeps its own, but in a directory what is quantised becomes `'f16'`.
   */
  type?: QuantizeType
}

const CHECKS: Checks<MergeOptions> = {
  format: oneOf(MERGE_FORMATS),
  type: oneOf(QUANTIZE_TYPES),
  scale: ADAPTER_CHECKS.scale,
  threads: LOAD_CHECKS.threads,
  onProgress: LOAD_CHECKS.onProgress,
  signal: LOAD_CHECKS.signal,
}

/**
 * Writes a model with a LoRA adapter folded into its weights as a GGUF file or a Hugging Face directory:
 * dequantised, added in binary32, rounded to their type anew. What that costs `relativeError` of the result tells
 * (against the merged weights); an adapter beside the model ({@link Model.loadAdapter}) loses nothing. `output`
 * appears when it is complete and on disk. A file is replaced, a directory must be a new one.
 *
 * @param input a GGUF file, a Hugging Face directory, or `'hf:org/repo'` as {@link loadModel} takes it
 * @param adapter a PEFT directory, a GGUF adapter, or `'hf:org/repo'`
 * @param output the GGUF file or the directory to write
 * @throws TypeError or RangeError with ERR_INVALID_ARG, also when `output` cannot be written or a type
 *   cannot be written, at all or in that format; MaestraleError ERR_ADAPTER, ERR_MODEL_FORMAT, ERR_MODEL_UNSUPPORTED,
 *   ERR_DOWNLOAD; the signal's reason
 * @example
 * await mergeAdapter('Mistral-7B-v0.1/', './my-lora', 'merged.gguf', { type: 'q4_k_m' })
 * await mergeAdapter('model.Q4_K_M.gguf', './my-lora', 'merged/', { format: 'safetensors', type: 'bf16' })
 */
export async function mergeAdapter(
  input: string,
  adapter: string,
  output: string,
  options: MergeOptions = {},
): Promise<QuantizeResult> {
  const site = captureCallSite(mergeAdapter)
  nonEmptyText(input, 'input')
  nonEmptyText(adapter, 'adapter')
  nonEmptyText(output, 'output')
  checkOptions(options, CHECKS)
  const { format = 'gguf', type = '', scale = 1, threads = 'auto' } = options
  const path = await resolveModel(input, options)
  const native = {
    adapter: await resolveModel(adapter, options),
    scale,
    type,
    format,
    threads: threads === 'auto' ? 0 : threads,
  }
  return await runJob((report) => loadBinding().merge(path, output, native, report), options, site)
}
