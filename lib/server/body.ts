// SPDX-License-Identifier: Apache-2.0
// The body of a request: a JSON object in UTF-8 of limited size and depth. JSON is demanded by name, so that a web page
// cannot post here without the browser asking first.
import type { IncomingMessage } from 'node:http'

import { HttpError } from './errors.js'

/** Bytes: several times the longest prompt that a model of this family takes, parsed in some milliseconds. */
export const MAX_BODY_BYTES: number = 2 << 20
const MAX_DEPTH = 64

export type JsonObject = Readonly<Record<string, unknown>>

/**
 * Reads all of the body.
 *
 * @throws HttpError 400, 413, 415
 */
export async function readJson(request: IncomingMessage): Promise<JsonObject> {
  const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = request.headers
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new HttpError(415, 'The body must be JSON, with Content-Type: application/json.')
  }
  if (encoding !== 'identity') {
    throw new HttpError(415, `The body must not be compressed, and it is '${encoding}'.`)
  }
  const value = parse(await readText(request))
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new HttpError(400, 'The body must be a JSON object.')
  }
  if (isDeeperThan(MAX_DEPTH, value)) {
    throw new HttpError(400, `The body is nested more than ${MAX_DEPTH} levels deep.`)
  }
  return value as JsonObject
}

async function readText(request: IncomingMessage): Promise<string> {
  const tooLarge = () =>
    new HttpError(413, `The body must have at most ${MAX_BODY_BYTES} bytes.`, {
      code: 'body_too_large',
    })
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) throw tooLarge()
  const parts: Buffer[] = []
  let size = 0
  // Leaving the loop early must not close the connection, over which the answer goes.
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    size += part.length
    if (size > MAX_BODY_BYTES) throw tooLarge()
    parts.push(part)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts))
  } catch {
    throw new HttpError(400, 'The body is not UTF-8.')
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new HttpError(400, `The body is not JSON: ${(error as Error).message}`)
  }
}

function isDeeperThan(limit: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return limit === 0 || Object.values(value).some((item) => isDeeperThan(limit - 1, item))
}
