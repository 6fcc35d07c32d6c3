// SPDX-License-Identifier: Apache-2.0
// What the authors of a checkpoint recommend: the sampling options of its generation_config.json, which
// stand in for options that a request leaves out.
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'

import { MaestraleError } from './errors.js'
import { GENERATE_CHECKS } from './options.js'
import type { GenerateOptions } from './types.js'

const NAME = 'generation_config.json'
const MAX_BYTES = 1 << 20

// transformers' names and ours. Of the others some are not for sampling (bos_token_id), some are the native
// side's (eos_token_id), and max_length counts the prompt too, so it is no default for anything here.
const FIELDS = {
  temperature: 'temperature',
  top_k: 'topK',
  top_p: 'topP',
  min_p: 'minP',
  repetition_penalty: 'repetitionPenalty',
  max_new_tokens: 'maxNewTokens',
} as const

/** Options that a file may set. */
export type GenerationDefaults = Pick<
  GenerateOptions,
  'temperature' | 'topK' | 'topP' | 'minP' | 'repetitionPenalty' | 'lastNTokens' | 'maxNewTokens'
>

async function readConfig(path: string): Promise<string | undefined> {
  try {
    if (!(await stat(path)).isDirectory()) return undefined
    const file = join(path, NAME)
    if ((await stat(file)).size > MAX_BYTES) throw format('is larger than any that is published')
    return await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof MaestraleError) throw error
    return undefined // not there, as in most directories
  }
}

function format(problem: string): MaestraleError {
  return new MaestraleError('ERR_MODEL_FORMAT', `${NAME} ${problem}.`)
}

/**
 * The options that `path`/generation_config.json sets, `{}` for a model that has none. `do_sample: false` is
 * temperature 0; a repetition penalty looks at the whole sequence, as it does in transformers.
 *
 * @throws MaestraleError ERR_MODEL_FORMAT
 */
export async function readGenerationDefaults(path: string): Promise<GenerationDefaults> {
  const text = await readConfig(path)
  if (text === undefined) return {}
  let config: unknown
  try {
    config = JSON.parse(text)
  } catch {
    throw format('is no JSON')
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    throw format('holds no JSON object')
  }
  const defaults: GenerationDefaults = {}
  for (const [field, option] of Object.entries(FIELDS)) {
    const value: unknown = (config as Record<string, unknown>)[field]
    if (value === undefined || value === null) continue
    try {
      GENERATE_CHECKS[option](value, `'${field}'`)
    } catch (error) {
      throw format(`is damaged: ${error instanceof Error ? error.message : error}`)
    }
    defaults[option] = value as number
  }
  if ('do_sample' in config && config.do_sample === false) defaults.temperature = 0
  if (defaults.repetitionPenalty !== undefined) defaults.lastNTokens = -1
  return defaults
}
