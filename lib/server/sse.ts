// SPDX-License-Identifier: Apache-2.0
// Server-sent events to one client, at the pace at which it reads. Waiting here leaves the chunks of this run where they
// are, which pauses its sequence in the engine and no other.
import type { ServerResponse } from 'node:http'

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no', // nginx would collect the events
}

/** One event as it is sent. */
export function eventText(data: object | '[DONE]'): string {
  return `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`
}

/** The stream of events that answers a request. Writing to a client that has left does nothing. */
export class EventStream {
  readonly #response: ServerResponse
  readonly #stallMs: number

  /** @param stallMs how long a client may read nothing before it is taken for gone */
  constructor(response: ServerResponse, stallMs: number) {
    this.#response = response
    this.#stallMs = stallMs
  }

  /** Sends one event; resolves when there is room for another. */
  async send(data: object | '[DONE]'): Promise<void> {
    const response = this.#response
    if (response.destroyed) return
    if (!response.headersSent) response.writeHead(200, HEADERS)
    if (!response.write(eventText(data))) await this.#drained()
  }

  end(): void {
    this.#response.end()
  }

  #drained(): Promise<void> {
    const response = this.#response
    if (response.destroyed) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(() => response.destroy(), this.#stallMs)
      const done = () => {
        clearTimeout(timer)
        response.off('drain', done).off('close', done)
        resolve()
      }
      response.on('drain', done).on('close', done)
    })
  }
}
