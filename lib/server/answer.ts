// SPDX-License-Identifier: Apache-2.0
// The JSON of answers, for both kinds of completions: the whole one, and its pieces as a stream has them.
import { randomUUID } from 'node:crypto'

import type { ChatResult, Chunk, Model, Result, TokenLogprob, ToolCall, Usage } from '../index.js'
import { chatLogprobs, type TokenTexts, textLogprobs } from './logprobs.js'

/** Writes one answer. Pieces are to be asked for in the order of the stream. */
export interface AnswerFormat<R extends Result> {
  /** The first letters of the answer's id. */
  readonly prefix: string
  /** What the answer and a piece of it are called. */
  readonly object: string
  readonly chunkObject: string
  /** The one choice of the whole answer. */
  whole(result: R): object
  /** The choice that a stream begins with. */
  opening(): object | undefined
  /** What a chunk adds; undefined when that is nothing yet. */
  piece(chunk: Chunk): object | undefined
  /** The choice that a stream ends with. */
  ending(result: R): object[]
}

export interface LogprobFormat {
  texts: TokenTexts
  /** Of each token; undefined: no log-probabilities. */
  alternatives: number | undefined
}

/** A choice of a stream; `finish_reason` is null but for the last one. */
function choice(rest: object, finishReason: string | null = null): object {
  return { index: 0, ...rest, logprobs: null, finish_reason: finishReason }
}

/** An id as the models have them, for calls that come without one: nine letters and digits. */
function callId(): string {
  return randomUUID().replaceAll('-', '').slice(0, 9)
}

function toolCall(call: ToolCall): object {
  const given = call.function.arguments
  return {
    id: call.id ?? callId(),
    type: 'function',
    function: {
      name: call.function.name,
      arguments: typeof given === 'string' ? given : JSON.stringify(given),
    },
  }
}

/** Answers of POST /v1/chat/completions. */
export class ChatAnswer implements AnswerFormat<ChatResult> {
  readonly prefix = 'chatcmpl'
  readonly object = 'chat.completion'
  readonly chunkObject = 'chat.completion.chunk'
  readonly #logprobs: LogprobFormat
  readonly #announcement: number | undefined
  #calls = false

  constructor(model: Model, logprobs: LogprobFormat) {
    this.#logprobs = logprobs
    this.#announcement = model.tokenizer.specialTokens['[TOOL_CALLS]']
  }

  whole({ text, toolCalls, finishReason, logprobs }: ChatResult): object {
    const message = { role: 'assistant', content: toolCalls ? null : text, refusal: null }
    return {
      index: 0,
      message: toolCalls ? { ...message, tool_calls: toolCalls.map(toolCall) } : message,
      logprobs: this.#report(logprobs),
      finish_reason: toolCalls ? 'tool_calls' : finishReason,
    }
  }

  opening(): object {
    return choice({ delta: { role: 'assistant', content: '' } })
  }

  piece({ text, tokens, index, logprobs }: Chunk): object | undefined {
    // Calls can be read when they are complete; until then nothing of their source is content.
    if (index === 0) this.#calls = tokens[0] !== undefined && tokens[0] === this.#announcement
    if (this.#calls || (text === '' && !logprobs)) return undefined
    return { ...choice({ delta: { content: text } }), logprobs: this.#report(logprobs) }
  }

  ending({ text, toolCalls, finishReason }: ChatResult): object[] {
    if (!this.#calls) return [choice({ delta: {} }, finishReason)]
    if (!toolCalls)
      return [choice({ delta: { content: text } }), choice({ delta: {} }, finishReason)]
    const calls = toolCalls.map((call, index) => ({ index, ...toolCall(call) }))
    return [choice({ delta: { tool_calls: calls } }), choice({ delta: {} }, 'tool_calls')]
  }

  #report(logprobs: readonly TokenLogprob[] | undefined): object | null {
    const { alternatives, texts } = this.#logprobs
    if (alternatives === undefined) return null
    return chatLogprobs(logprobs ?? [], alternatives, texts)
  }
}

/** Answers of POST /v1/completions. */
export class TextAnswer implements AnswerFormat<Result> {
  readonly prefix = 'cmpl'
  readonly object = 'text_completion'
  readonly chunkObject = 'text_completion'
  readonly #logprobs: LogprobFormat
  #offset = 0

  constructor(logprobs: LogprobFormat) {
    this.#logprobs = logprobs
  }

  whole({ text, finishReason, logprobs }: Result): object {
    return { index: 0, text, logprobs: this.#report(logprobs), finish_reason: finishReason }
  }

  opening(): undefined {
    return undefined
  }

  piece({ text, logprobs }: Chunk): object | undefined {
    if (text === '' && !logprobs) return undefined
    return { ...choice({ text }), logprobs: this.#report(logprobs) }
  }

  ending({ finishReason }: Result): object[] {
    return [choice({ text: '' }, finishReason)]
  }

  #report(logprobs: readonly TokenLogprob[] = []): object | null {
    const { alternatives, texts } = this.#logprobs
    if (alternatives === undefined) return null
    const report = textLogprobs(logprobs, alternatives, texts, this.#offset)
    for (const { token } of logprobs) this.#offset += texts.get(token).length
    return report
  }
}

export function usage({ promptTokens, cachedTokens, completionTokens }: Usage): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  }
}
