// SPDX-License-Identifier: Apache-2.0
// A server over a model for the tests of lib/server, and a client that shows every byte of an answer.
import type { Model } from '../../lib/index.js'
import { ApiServer, type ServerOptions } from '../../lib/server/server.js'

export interface Answer {
  status: number
  headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever comes
  body: any
}

export class TestServer implements AsyncDisposable {
  readonly server: ApiServer
  url = ''

  constructor(model: Model, options: ServerOptions = {}) {
    this.server = new ApiServer(model, options)
  }

  static async start(model: Model, options: ServerOptions = {}): Promise<TestServer> {
    const started = new TestServer(model, options)
    const { port } = await started.server.listen(0, '127.0.0.1')
    started.url = `http://127.0.0.1:${port}`
    return started
  }

  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.url + path, init)
  }

  post(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    const headers = { 'content-type': 'application/json', ...(init.headers ?? {}) }
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    return this.fetch(path, { method: 'POST', body: text, ...init, headers })
  }

  /** The answer to a request, parsed. */
  async ask(path: string, body?: unknown, init?: RequestInit): Promise<Answer> {
    const response = await (body === undefined
      ? this.fetch(path, init)
      : this.post(path, body, init))
    const { status, headers } = response
    return { status, headers, body: await response.json() }
  }

  /** The events of a stream, parsed, without the last one, which has to be [DONE]. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever comes
  async events(path: string, body: object): Promise<any[]> {
    const response = await this.post(path, { ...body, stream: true })
    const events = parseEvents(await response.text())
    if (events.pop() !== '[DONE]') throw new Error('the stream does not end with [DONE]')
    return events
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close(0)
  }
}

/** Data of events in the form that this server writes them in, and no other. */
export function parseEvents(text: string): unknown[] {
  if (!text.endsWith('\n\n')) throw new Error('the stream ends within an event')
  return text
    .slice(0, -2)
    .split('\n\n')
    .map((event) => {
      const data = /^data: ([^\n]*)$/.exec(event)?.[1]
      if (data === undefined) throw new Error(`this is no event: ${event}`)
      return data === '[DONE]' ? data : JSON.parse(data)
    })
}
