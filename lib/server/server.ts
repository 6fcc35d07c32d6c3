// SPDX-License-Identifier: Apache-2.0
// The HTTP server over a model: its paths, and how it begins and ends. What requests have in common is here, each
// endpoint's own work in the files beside this one.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { inspect } from 'node:util'

import type { GenerateOptions, Model } from '../index.js'
import { readJson } from './body.js'
import { type CompletionHandler, Completions } from './completions.js'
import { HttpError, shuttingDown, toHttpError } from './errors.js'
import {
  checkKey,
  checkMethod,
  pathOf,
  sendError,
  sendJson,
  sendText,
  unescapePath,
} from './http.js'
import { METRICS_TYPE, metricsText } from './metrics.js'
import { ServedModels } from './models.js'

const MODEL_PATH = '/v1/models/'
// How long clients have to take the errors of an aborted server.
const LAST_WORDS_MS = 1000

export interface ServerOptions {
  /** What clients call the model. Default: its own name. */
  name?: string
  /** Clients have to send `Authorization: Bearer KEY`, but for /health. Default: no key. */
  apiKey?: string
  /** Options for what requests leave out. Default: those of the library. */
  defaults?: GenerateOptions
  /** A client that reads nothing of its stream for so many milliseconds is taken for gone. Default 60,000. */
  stallMs?: number
}

interface Route {
  method: 'GET' | 'POST'
  /** The field of the body that errors are about when they name none. */
  subject: string
  /** `signal` is aborted when the client leaves or the server has to end. */
  handle(
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): void | Promise<void>
}

/** Tells whoever runs the server about a failure that no client is to blame for. */
function report(error: unknown): void {
  process.stderr.write(`maestrale: ${inspect(error)}\n`)
}

/** Serves a model, which stays the caller's to dispose of. */
export class ApiServer {
  /** What clients call the model. */
  readonly name: string
  readonly #model: Model
  readonly #apiKey: string | undefined
  readonly #routes: ReadonlyMap<string, Route>
  readonly #server: Server
  readonly #running = new Set<AbortController>()
  /** How many answers had each status. */
  readonly #responses = new Map<number, number>()
  #closing: Promise<void> | undefined

  constructor(model: Model, options: ServerOptions = {}) {
    const { name, apiKey, defaults = {}, stallMs = 60_000 } = options
    this.name = name ?? (model.info.name || 'maestrale')
    this.#model = model
    this.#apiKey = apiKey
    const models = new ServedModels(model, this.name)
    this.#routes = this.#makeRoutes(models, new Completions({ model, models, defaults, stallMs }))
    // Probes find clients that have vanished without a word.
    this.#server = createServer({ keepAlive: true, keepAliveInitialDelay: 30_000 })
    this.#server.on('request', (request, response) => void this.#take(request, response))
  }

  /** Starts to listen; port 0 is any free one. */
  listen(port: number, host: string): Promise<AddressInfo> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(port, host, () => {
        // From here on a connection that cannot be accepted, e.g. for want of file descriptors.
        this.#server.off('error', reject).on('error', report)
        resolve(this.#server.address() as AddressInfo)
      })
    })
  }

  /** Takes no more requests; resolves when the last one has ended, which after `graceMs` is aborted. */
  close(graceMs: number): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      const timer = setTimeout(() => this.abort(), graceMs)
      this.#server.close(() => {
        clearTimeout(timer)
        resolve()
      })
    })
    return this.#closing
  }

  /** Ends the requests that run, with an error for their clients. */
  abort(): void {
    for (const controller of this.#running) controller.abort(shuttingDown())
    setTimeout(() => this.#server.closeAllConnections(), LAST_WORDS_MS).unref()
  }

  #makeRoutes(models: ServedModels, completions: Completions): ReadonlyMap<string, Route> {
    const get = (handle: Route['handle']): Route => ({ method: 'GET', subject: '', handle })
    const post = (subject: string, answer: CompletionHandler): Route => ({
      method: 'POST',
      subject,
      handle: async (request, response, signal) =>
        answer(await readJson(request), response, signal),
    })
    return new Map([
      ['/health', get((_, response) => sendJson(response, 200, { status: 'ok' }))],
      ['/metrics', get((_, response) => this.#sendMetrics(response))],
      ['/v1/models', get((_, response) => sendJson(response, 200, models.list()))],
      [
        MODEL_PATH,
        get((request, response) => {
          const name = unescapePath(pathOf(request).slice(MODEL_PATH.length))
          sendJson(response, 200, models.describe(name))
        }),
      ],
      ['/v1/chat/completions', post('messages', completions.chat)],
      ['/v1/completions', post('prompt', completions.text)],
    ])
  }

  #sendMetrics(response: ServerResponse): void {
    const text = metricsText(this.#model, this.name, this.#responses)
    sendText(response, 200, text, { 'content-type': METRICS_TYPE })
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const signal = this.#follow(request, response)
    const path = pathOf(request)
    const route = this.#routes.get(path.startsWith(MODEL_PATH) ? MODEL_PATH : path)
    try {
      if (this.#apiKey !== undefined && path !== '/health') checkKey(request, this.#apiKey)
      if (this.#closing) throw shuttingDown()
      if (!route) throw new HttpError(404, `There is no ${path} here.`, { code: 'unknown_url' })
      checkMethod(request, route.method)
      await route.handle(request, response, signal)
    } catch (error) {
      if (response.destroyed) return
      const failure = toHttpError(error, route?.subject ?? '')
      if (failure.status === 500) report(error)
      sendError(response, failure)
    }
    request.resume() // what is left of a body that was not wanted
  }

  /** A signal for as long as the answer is on its way. */
  #follow(request: IncomingMessage, response: ServerResponse): AbortSignal {
    const controller = new AbortController()
    this.#running.add(controller)
    response.on('error', () => {}) // of a client that has left, as 'close' says too
    response.once('close', () => {
      this.#running.delete(controller)
      const { statusCode, writableFinished } = response
      if (!writableFinished) controller.abort()
      else this.#responses.set(statusCode, (this.#responses.get(statusCode) ?? 0) + 1)
      if (this.#closing) request.socket.destroySoon() // which would wait for a next request
    })
    return controller.signal
  }
}
