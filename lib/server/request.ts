// SPDX-License-Identifier: Apache-2.0
// What OpenAI's API calls the options of a completion, and what they are called here. Values are held to the checks of
// the library, under the client's names. `null` is absent, as many clients send it. A field that would change the answer
// and is not supported is refused; every other unknown field (user, store, metadata, ...) is ignored.
import type { ChatMessage, ChatOptions, GenerateOptions, TokenIds, Tool } from '../index.js'
import { GENERATE_CHECKS } from '../options.js'
import { boolean, type Check, integer } from '../validate.js'
import type { JsonObject } from './body.js'
import { type HttpError, invalidField } from './errors.js'

/** Options by the names of clients; of two names for one option the later one wins. */
const OPTIONS = {
  max_tokens: 'maxNewTokens',
  max_completion_tokens: 'maxNewTokens',
  temperature: 'temperature',
  top_p: 'topP',
  top_k: 'topK',
  min_p: 'minP',
  seed: 'seed',
  stop: 'stop',
  frequency_penalty: 'frequencyPenalty',
  presence_penalty: 'presencePenalty',
  repetition_penalty: 'repetitionPenalty',
} as const

// The only value of a field that asks for nothing beyond what is done.
const ONLY: Readonly<Record<string, unknown>> = {
  n: 1,
  best_of: 1,
  echo: false,
  suffix: '',
  min_tokens: 0,
  ignore_eos: false,
  response_format: { type: 'text' },
  modalities: ['text'],
}
const REFUSED = [
  ...['functions', 'function_call', 'audio', 'grammar', 'json_schema', 'structured_outputs'],
  ...['guided_json', 'guided_regex', 'guided_choice', 'guided_grammar', 'stop_token_ids'],
]

/** What a completion asks for, of either kind. */
export interface CompletionRequest {
  /** Of a model or an adapter; absent when the client names none. */
  model: string | undefined
  stream: boolean
  includeUsage: boolean
  /** How many alternatives to report for each token; undefined: no log-probabilities. */
  alternatives: number | undefined
  options: GenerateOptions
}

export interface ChatRequest extends CompletionRequest {
  messages: readonly ChatMessage[]
  options: ChatOptions
}

export interface TextRequest extends CompletionRequest {
  prompt: string | TokenIds
}

/** The value of a field that passes `check`, or undefined. */
function field<T>(body: JsonObject, name: string, check: Check): T | undefined {
  const value = Object.hasOwn(body, name) ? body[name] : undefined
  if (value === undefined || value === null) return undefined
  try {
    check(value, name)
  } catch (error) {
    throw invalidField(name, (error as Error).message)
  }
  return value as T
}

function required(name: string): HttpError {
  return invalidField(name, `${name} is missing.`, 'missing_required_parameter')
}

function refuseUnsupported(body: JsonObject): void {
  const fail = (name: string, problem: string) => {
    throw invalidField(name, `${name} ${problem}.`, 'unsupported_parameter')
  }
  for (const [name, only] of Object.entries(ONLY)) {
    const wanted = JSON.stringify(only)
    const value = field(body, name, () => {})
    if (value !== undefined && JSON.stringify(value) !== wanted) {
      fail(name, `must be ${wanted}: nothing else is supported`)
    }
  }
  for (const name of REFUSED) {
    if (field(body, name, () => {}) !== undefined) fail(name, 'is not supported')
  }
}

function logitBias(body: JsonObject, vocabSize: number): GenerateOptions {
  const checkId = integer(0, vocabSize - 1)
  const bias = field<Record<string, number>>(body, 'logit_bias', (value, name) => {
    GENERATE_CHECKS.logitBias(value, name)
    for (const id of Object.keys(value as object)) checkId(Number(id), `a key of ${name}`)
  })
  return bias ? { logitBias: bias } : {}
}

function common(body: JsonObject, alternatives: number | undefined, vocabSize: number) {
  refuseUnsupported(body)
  const options: Record<string, unknown> = {}
  for (const [name, option] of Object.entries(OPTIONS)) {
    const value = field(body, name, GENERATE_CHECKS[option])
    if (value !== undefined) options[option] = value
  }
  return {
    model: field<string>(body, 'model', GENERATE_CHECKS.adapter),
    stream: field<boolean>(body, 'stream', boolean) ?? false,
    includeUsage:
      field<{ include_usage?: unknown }>(body, 'stream_options', () => {})?.include_usage === true,
    alternatives,
    options: {
      ...(options as GenerateOptions),
      ...logitBias(body, vocabSize),
      // The library reports the token itself only beside alternatives.
      ...(alternatives === undefined ? {} : { logprobs: Math.max(1, alternatives) }),
    },
  }
}

function chatAlternatives(body: JsonObject): number | undefined {
  const top = field<number>(body, 'top_logprobs', GENERATE_CHECKS.logprobs)
  if (field<boolean>(body, 'logprobs', boolean)) return top ?? 0
  if (top) throw invalidField('top_logprobs', 'top_logprobs needs logprobs to be true.')
  return undefined
}

function tools(body: JsonObject): { tools?: readonly Tool[] } {
  const given = field<readonly Tool[]>(body, 'tools', (value, name) => {
    if (!Array.isArray(value)) throw new TypeError(`${name} must be an array of tools.`)
  })
  const choice = field<string>(body, 'tool_choice', (value, name) => {
    if (value === 'auto' || value === 'none') return
    throw new TypeError(`${name} must be 'auto' or 'none': calls cannot be forced.`)
  })
  return given && given.length > 0 && choice !== 'none' ? { tools: given } : {}
}

/** OpenAI's newer name for the role of the system. */
function renamed(message: unknown): unknown {
  const { role } = (message ?? {}) as { role?: unknown }
  return role === 'developer' ? { ...(message as object), role: 'system' } : message
}

/**
 * Reads the body of POST /v1/chat/completions.
 *
 * @throws HttpError 400 that names the field
 */
export function chatRequest(body: JsonObject, vocabSize: number): ChatRequest {
  const messages = field<unknown[]>(body, 'messages', (value, name) => {
    if (!Array.isArray(value)) throw new TypeError(`${name} must be an array of messages.`)
  })
  if (!messages) throw required('messages')
  const request = common(body, chatAlternatives(body), vocabSize)
  return {
    ...request,
    messages: messages.map(renamed) as ChatMessage[],
    options: { ...request.options, ...tools(body) },
  }
}

/**
 * Reads the body of POST /v1/completions. A prompt in a list of one is that prompt.
 *
 * @throws HttpError 400 that names the field
 */
export function textRequest(body: JsonObject, vocabSize: number): TextRequest {
  const given = field<unknown>(body, 'prompt', () => {})
  if (given === undefined) throw required('prompt')
  const list = Array.isArray(given) && typeof given[0] !== 'number'
  if (list && given.length !== 1) {
    throw invalidField('prompt', `prompt must be one prompt, and there are ${given.length}.`)
  }
  const prompt = list ? given[0] : given
  if (typeof prompt !== 'string' && !Array.isArray(prompt)) {
    throw invalidField('prompt', 'prompt must be a string or an array of token ids.')
  }
  const alternatives = field<number>(body, 'logprobs', GENERATE_CHECKS.logprobs)
  return { ...common(body, alternatives, vocabSize), prompt }
}
