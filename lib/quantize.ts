// SPDX-License-Identifier: Apache-2.0
// Quantising: a model in any form to a GGUF file whose weights take less room.
import { captureCallSite } from './errors.js'
import { resolveModel } from './hub/pull.js'
import { runJob } from './job.js'
import { loadBinding } from './native/load.js'
import { LOAD_CHECKS } from './options.js'
import { QUANTIZE_TYPES, type QuantizeType } from './quantize-types.js'
import type { LoadOptions } from './types.js'
import { type Checks, checkOptions, nonEmptyText, oneOf } from './validate.js'

/** Options of {@link quantizeModel}. */
export interface QuantizeOptions
  extends Pick<LoadOptions, 'threads' | 'slidingWindow' | 'onProgress' | 'signal'> {
  type: QuantizeType
}

/** What {@link quantizeModel} has written. */
export interface QuantizeResult {
  /** Bytes of the file. */
  size: number
  /** Tensors by storage type, e.g. `{ q4_k: 193, q6_k: 33, f32: 65 }`. */
  quantization: Record<string, number>
  /**
   * `sqrt(sum (new - old)^2 / sum old^2)` over the matrices that changed their type; 0 when none did. Old are the
   * weights as the input stores them.
   */
  relativeError: number
}

const { threads, slidingWindow, onProgress, signal } = LOAD_CHECKS
const CHECKS: Checks<QuantizeOptions> = {
  type: oneOf(QUANTIZE_TYPES),
  threads,
  slidingWindow,
  onProgress,
  signal,
}

/**
 * Writes a model as a GGUF file of other weights, with its metadata, vocabulary, chat templates and its sliding
 * window. `output` appears, or is replaced, when the new file is complete and on disk; a job that fails or is
 * aborted leaves nothing behind. Takes a few megabytes of memory, not those of the model.
 *
 * @param input a GGUF file, a Hugging Face directory, or `'hf:org/repo'` as {@link loadModel} takes it
 * @param output the GGUF file to write
 * @throws TypeError or RangeError with ERR_INVALID_ARG, also when `output` cannot be written; MaestraleError
 *   ERR_MODEL_FORMAT (damaged file, a weight that is not finite), ERR_MODEL_UNSUPPORTED, ERR_DOWNLOAD; the
 *   signal's reason
 * @example
 * await quantizeModel('Mistral-7B-v0.1/', 'mistral-7b-v0.1.Q4_K_M.gguf', { type: 'q4_k_m' })
 */
export async function quantizeModel(
  input: string,
  output: string,
  options: QuantizeOptions,
): Promise<QuantizeResult> {
  const site = captureCallSite(quantizeModel)
  nonEmptyText(input, 'input')
  nonEmptyText(output, 'output')
  checkOptions(options, CHECKS)
  CHECKS.type(options?.type, 'type')
  const { threads: count = 'auto', slidingWindow: window = 'auto' } = options
  const native = {
    type: options.type,
    threads: count === 'auto' ? 0 : count,
    slidingWindow: window === 'auto' ? -1 : (window ?? 0),
  }
  const path = await resolveModel(input, options)
  return await runJob(
    (report) => loadBinding().quantize(path, output, native, report),
    options,
    site,
  )
}
