// SPDX-License-Identifier: Apache-2.0
// A server that answers like the Hugging Face hub, as far as a download needs it, and misbehaves as a test
// tells it to.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const COMMIT: string = 'c0ffee'.padEnd(40, '0')

/** What happens to one request for a file's bytes; `undefined` is a sound answer. */
export interface Fault {
  /** Ends the connection after so many bytes. */
  cutAfter?: number
  /** Sends a third of the answer, and the rest when this is kept. */
  hold?: Promise<void>
  /** Changes the byte at this place of the file. */
  corrupt?: number
  /** Sends the whole file although a part was asked for. */
  ignoreRange?: boolean
  /** Sends a part that begins elsewhere. */
  shiftRange?: number
  status?: number
  /** Goes with the status. */
  errorCode?: string
  /** Sends the client to another address. */
  location?: string
}

export interface SeenRequest {
  url: string
  range: string | undefined
  authorization: string | undefined
}

export class FakeHub {
  readonly repo = 'org/repo'
  readonly requests: SeenRequest[] = []
  /** Large files are listed with their SHA-256, small ones with git's hash. */
  files: Record<string, Buffer> = {}
  /** Asked for every request for bytes; `n` counts those of this path from 0. */
  fault: (path: string, n: number) => Fault | undefined = () => undefined
  /** Answers instead of the lists. */
  refusal: { status: number; errorCode?: string } | undefined
  /** Where the listing says that it goes on. */
  nextPage: string | undefined
  /** Changes what the listing says. */
  relist: (entry: Record<string, unknown>) => Record<string, unknown> = (entry) => entry
  readonly #counts = new Map<string, number>()
  readonly #server: Server

  constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response))
  }

  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** Requests for bytes, as 'PATH RANGE'. */
  get downloads(): string[] {
    return this.requests
      .filter(({ url }) => url.includes('/resolve/'))
      .map(({ url, range }) => `${url.split(`${COMMIT}/`)[1]} ${range ?? 'all'}`)
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = decodeURIComponent(new URL(request.url ?? '', 'http://hub').pathname)
    const { range, authorization } = request.headers
    this.requests.push({ url, range, authorization })
    const bytes = /^\/org\/repo\/resolve\/[0-9a-f]{40}\/(.+)$/.exec(url)?.[1]
    if (bytes !== undefined) this.#send(bytes, range, response)
    else if (this.refusal) refuse(response, this.refusal.status, this.refusal.errorCode)
    else if (url === '/api/models/org/repo/revision/main') json(response, this.#info())
    else if (url === `/api/models/org/repo/tree/${COMMIT}`) {
      if (this.nextPage) response.setHeader('Link', `<${this.nextPage}>; rel="next"`)
      json(response, this.#list())
    } else refuse(response, 404, url.includes('/revision/') ? 'RevisionNotFound' : undefined)
  }

  #info(): unknown {
    return { _id: '1', id: this.repo, sha: COMMIT, lastModified: '2026-01-01T00:00:00.000Z' }
  }

  #list(): unknown[] {
    const files = Object.entries(this.files).map(([path, content]) => {
      const git = createHash('sha1').update(`blob ${content.length}\0`).update(content)
      const entry = { type: 'file', path, size: content.length, oid: git.digest('hex') }
      if (content.length < 4096) return this.relist(entry)
      const oid = createHash('sha256').update(content).digest('hex')
      return this.relist({ ...entry, lfs: { oid, size: content.length, pointerSize: 134 } })
    })
    return [{ type: 'directory', path: 'folder', size: 0, oid: '0'.repeat(40) }, ...files]
  }

  #send(path: string, range: string | undefined, response: ServerResponse): void {
    const n = this.#counts.get(path) ?? 0
    this.#counts.set(path, n + 1)
    const fault = this.fault(path, n) ?? {}
    const content = Buffer.from(this.files[path] ?? '')
    if (fault.location) {
      response.writeHead(302, { Location: fault.location }).end()
      return
    }
    if (fault.status) {
      refuse(response, fault.status, fault.errorCode)
      return
    }
    if (fault.corrupt !== undefined) content[fault.corrupt] = (content[fault.corrupt] ?? 0) ^ 1
    const asked = /^bytes=(\d+)-(\d+)$/.exec(range ?? '')
    let body = content
    if (asked && !fault.ignoreRange) {
      const [start, end] = [Number(asked[1]) + (fault.shiftRange ?? 0), Number(asked[2])]
      body = content.subarray(start, end + 1)
      response.writeHead(206, {
        'Content-Length': body.length,
        'Content-Range': `bytes ${start}-${end}/${content.length}`,
      })
    } else {
      response.writeHead(200, { 'Content-Length': body.length })
    }
    if (fault.hold) {
      const third = Math.floor(body.length / 3)
      response.write(body.subarray(0, third))
      fault.hold.then(() => response.end(body.subarray(third)))
    } else if (fault.cutAfter === undefined) response.end(body)
    else response.write(body.subarray(0, fault.cutAfter), () => response.destroy())
  }
}

function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(value))
}

function refuse(response: ServerResponse, status: number, errorCode?: string): void {
  response.writeHead(status, errorCode ? { 'X-Error-Code': errorCode } : {}).end('no')
}
