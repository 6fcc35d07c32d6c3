// SPDX-License-Identifier: Apache-2.0
// What every exchange needs: its path, its key, and answers that are sent at once.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'

import { HttpError } from './errors.js'
import { eventText } from './sse.js'

type Headers = Readonly<Record<string, string>>

/** The path, as it was sent, without the query. */
export function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] ?? ''
}

/** A part of a path as the client meant it; as it is when it is escaped wrongly. */
export function unescapePath(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** @throws HttpError 405 */
export function checkMethod({ method }: IncomingMessage, allowed: 'GET' | 'POST'): void {
  if (method === allowed || (method === 'HEAD' && allowed === 'GET')) return
  throw new HttpError(405, `The method here is ${allowed}, not ${method}.`, {
    code: 'method_not_allowed',
    headers: { allow: allowed === 'GET' ? 'GET, HEAD' : allowed },
  })
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/**
 * Holds a request to `Authorization: Bearer KEY`. How long that takes does not depend on the key that was sent.
 *
 * @throws HttpError 401
 */
export function checkKey({ headers }: IncomingMessage, key: string): void {
  const sent = /^bearer +(.*)$/i.exec(headers.authorization ?? '')?.[1] ?? ''
  if (timingSafeEqual(digest(sent), digest(key))) return
  throw new HttpError(401, sent ? 'The API key is wrong.' : 'An API key is needed.', {
    code: 'invalid_api_key',
    headers: { 'www-authenticate': 'Bearer' },
  })
}

export function sendText(
  response: ServerResponse,
  status: number,
  text: string,
  headers: Headers,
): void {
  const length = Buffer.byteLength(text)
  response.writeHead(status, { 'content-length': length, ...headers }).end(text)
}

export function sendJson(
  response: ServerResponse,
  status: number,
  body: object,
  headers: Headers = {},
): void {
  sendText(response, status, JSON.stringify(body), {
    'content-type': 'application/json',
    ...headers,
  })
}

/** The failure of a request: its status, or an event of its own in a stream that has begun. */
export function sendError(response: ServerResponse, error: HttpError): void {
  if (response.headersSent) response.end(eventText(error.body))
  else sendJson(response, error.status, error.body, error.headers)
}
