// SPDX-License-Identifier: Apache-2.0
// Merging: a model and a LoRA adapter to one GGUF file.
import { captureCallSite } from './errors.js'
import { runJob } from './job.js'
import { loadBinding } from './native/load.js'
import { ADAPTER_CHECKS, LOAD_CHECKS, QUANTIZE_TYPES } from './options.js'
import type { QuantizeResult } from './quantize.js'
import type { AdapterOptions, LoadOptions, QuantizeType } from './types.js'
import { type Checks, checkOptions, nonEmptyText, oneOf } from './validate.js'

/** Options of {@link mergeAdapter}. */
export interface MergeOptions
  extends Pick<LoadOptions, 'threads' | 'onProgress' | 'signal'>,
    Pick<AdapterOptions, 'scale'> {
  /** Storage type of the matrices, as quantizeModel() takes it. Default: every matrix keeps its own. */
  type?: QuantizeType
}

const CHECKS: Checks<MergeOptions> = {
  type: oneOf(QUANTIZE_TYPES),
  scale: ADAPTER_CHECKS.scale,
  threads: LOAD_CHECKS.threads,
  onProgress: LOAD_CHECKS.onProgress,
  signal: LOAD_CHECKS.signal,
}

/**
 * Writes a model with a LoRA adapter folded into its weights as a GGUF file: dequantised, added in binary32,
 * quantised anew. That rounds quantised weights once more, which `relativeError` of the result tells (against
 * the merged weights); an adapter beside the model ({@link Model.loadAdapter}) loses nothing. `output` appears,
 * or is replaced, when the new file is complete and on disk.
 *
 * @param input a GGUF file or a Hugging Face directory
 * @param adapter a PEFT directory or a GGUF adapter
 * @param output the GGUF file to write
 * @throws TypeError or RangeError with ERR_INVALID_ARG, also when `output` cannot be written or a matrix cannot
 *   be written in its own type; MaestraleError ERR_ADAPTER, ERR_MODEL_FORMAT, ERR_MODEL_UNSUPPORTED; the
 *   signal's reason
 * @example
 * await mergeAdapter('Mistral-7B-v0.1/', './my-lora', 'merged.gguf', { type: 'q4_k_m' })
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
  const { type = '', scale = 1, threads = 'auto' } = options
  const native = { adapter, scale, type, threads: threads === 'auto' ? 0 : threads }
  return await runJob((report) => loadBinding().merge(input, output, native, report), options, site)
}
