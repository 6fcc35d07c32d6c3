// SPDX-License-Identifier: Apache-2.0
// Failures as a client sees them: a status, and the JSON that OpenAI's clients read.
import { STATUS_CODES } from 'node:http'

/** What an error says beside its status and message. */
export interface HttpErrorDetails {
  /** A word for programs. */
  code?: string
  /** The field of the request's body that is wrong. */
  param?: string
  headers?: Readonly<Record<string, string>>
}

/** An answer that is no success. */
export class HttpError extends Error {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly #code: string | undefined
  readonly #param: string | undefined

  constructor(status: number, message: string, details: HttpErrorDetails = {}) {
    super(message)
    this.status = status
    this.headers = details.headers ?? {}
    this.#code = details.code
    this.#param = details.param
  }

  get body(): object {
    const { message } = this
    const [param, code] = [this.#param ?? null, this.#code ?? null]
    return { error: { message, type: typeOf(this.status), param, code } }
  }
}

function typeOf(status: number): string {
  if (status >= 500) return 'server_error'
  return status === 429 ? 'rate_limit_error' : 'invalid_request_error'
}

/** The body's field `param` is wrong; `message` names it. */
export function invalidField(param: string, message: string, code = 'invalid_value'): HttpError {
  return new HttpError(400, message, { param, code })
}

/** What requests get, and those that run when there is no more time for them. */
export function shuttingDown(): HttpError {
  return new HttpError(503, 'The server is shutting down.', {
    code: 'shutting_down',
    headers: { connection: 'close', 'retry-after': '5' },
  })
}

const SOON = { 'retry-after': '1' }

/**
 * What a failure of the library is to a client. `subject` is the field that an argument which the library refuses
 * without naming a field belongs to.
 */
export function toHttpError(error: unknown, subject: string): HttpError {
  if (error instanceof HttpError) return error
  const { code, message } = error as { code?: unknown; message: string }
  switch (code) {
    case 'ERR_INVALID_ARG':
      return invalidField(/^(prompt|messages|tools)\b/.exec(message)?.[0] ?? subject, message)
    case 'ERR_CONTEXT_LENGTH':
      return invalidField(subject, message, 'context_length_exceeded')
    case 'ERR_QUEUE_FULL':
      return new HttpError(429, message, { code: 'queue_full', headers: SOON })
    case 'ERR_OUT_OF_MEMORY':
      return new HttpError(503, message, { code: 'out_of_memory', headers: SOON })
    case 'ERR_ADAPTER': // unloaded since the request was read
      return new HttpError(404, message, { code: 'model_not_found', param: 'model' })
    case 'ERR_DISPOSED':
      return shuttingDown()
    default:
      return new HttpError(500, typeof code === 'string' ? message : (STATUS_CODES[500] ?? ''), {
        ...(typeof code === 'string' ? { code } : {}),
      })
  }
}
