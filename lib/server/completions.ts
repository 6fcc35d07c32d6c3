// SPDX-License-Identifier: Apache-2.0
// The two endpoints that generate: from a body to a run of the model, and from the run to JSON or a stream of events.
import { randomUUID } from 'node:crypto'
import type { ServerResponse } from 'node:http'

import type { GenerateOptions, Generation, Model, Result } from '../index.js'
import { type AnswerFormat, ChatAnswer, TextAnswer, usage } from './answer.js'
import type { JsonObject } from './body.js'
import { invalidField, shuttingDown } from './errors.js'
import { sendJson } from './http.js'
import { TokenTexts } from './logprobs.js'
import type { ServedModels } from './models.js'
import { type CompletionRequest, chatRequest, textRequest } from './request.js'
import { EventStream } from './sse.js'

/** What completions need to know of the server. */
export interface CompletionContext {
  model: Model
  models: ServedModels
  /** Options for what a request leaves out. */
  defaults: GenerateOptions
  /** Milliseconds that a client may read nothing of a stream. */
  stallMs: number
}

/** Answers one request, whose body has been read. */
export type CompletionHandler = (
  body: JsonObject,
  response: ServerResponse,
  signal: AbortSignal,
) => Promise<void>

/** Answers completions of one model. */
export class Completions {
  readonly #context: CompletionContext
  readonly #texts: TokenTexts

  constructor(context: CompletionContext) {
    this.#context = context
    this.#texts = new TokenTexts(context.model.tokenizer)
  }

  /** POST /v1/chat/completions */
  readonly chat: CompletionHandler = async (body, response, signal) => {
    const { model } = this.#context
    const request = chatRequest(body, model.tokenizer.vocabSize)
    const options = this.#options(request, signal)
    const format = new ChatAnswer(model, this.#logprobs(request))
    await this.#answer(request, model.chat(request.messages, options), format, response)
  }

  /** POST /v1/completions */
  readonly text: CompletionHandler = async (body, response, signal) => {
    const { model } = this.#context
    const request = textRequest(body, model.tokenizer.vocabSize)
    const options = this.#options(request, signal)
    const { contextLength } = model.info
    if (typeof request.prompt !== 'string' && request.prompt.length > contextLength) {
      const problem = `prompt has ${request.prompt.length} tokens, and the context length is ${contextLength}.`
      throw invalidField('prompt', problem, 'context_length_exceeded')
    }
    const format = new TextAnswer(this.#logprobs(request))
    await this.#answer(request, model.generate(request.prompt, options), format, response)
  }

  #logprobs({ alternatives }: CompletionRequest) {
    return { texts: this.#texts, alternatives }
  }

  #options<O extends GenerateOptions>(
    { model, options }: CompletionRequest & { options: O },
    signal: AbortSignal,
  ): O {
    const { models, defaults } = this.#context
    const adapter = model === undefined ? undefined : models.adapterOf(model)
    return { ...defaults, ...options, ...(adapter === undefined ? {} : { adapter }), signal }
  }

  async #answer<R extends Result>(
    request: CompletionRequest,
    run: Generation<R>,
    format: AnswerFormat<R>,
    response: ServerResponse,
  ): Promise<void> {
    const about = (object: string) => ({
      id: `${format.prefix}-${randomUUID().replaceAll('-', '')}`,
      object,
      created: Math.floor(Date.now() / 1000),
      model: request.model ?? this.#context.models.base,
    })
    if (request.stream) {
      const events = new EventStream(response, this.#context.stallMs)
      await streamAnswer(run, format, about(format.chunkObject), request.includeUsage, events)
      return
    }
    const result = completed(await run)
    const choices = [format.whole(result)]
    sendJson(response, 200, { ...about(format.object), choices, usage: usage(result.usage) })
  }
}

/** A run is aborted when nobody waits for it any more or when the server ends. */
function completed<R extends Result>(result: R): R {
  if (result.finishReason === 'abort') throw shuttingDown()
  return result
}

/** Nothing is sent before the first chunk is there, so that a run that fails at its start is answered by a status. */
async function streamAnswer<R extends Result>(
  run: Generation<R>,
  format: AnswerFormat<R>,
  about: object,
  includeUsage: boolean,
  events: EventStream,
): Promise<void> {
  const send = (choice: object | undefined) =>
    choice && events.send({ ...about, choices: [choice], ...(includeUsage ? { usage: null } : {}) })
  for await (const chunk of run) {
    if (chunk.index === 0) await send(format.opening())
    await send(format.piece(chunk))
  }
  const result = completed(await run)
  for (const choice of format.ending(result)) await send(choice)
  if (includeUsage) await events.send({ ...about, choices: [], usage: usage(result.usage) })
  await events.send('[DONE]')
  events.end()
}
