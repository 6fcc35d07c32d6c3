// SPDX-License-Identifier: Apache-2.0
// Every failure is an Error with a code that stays the same between releases. Misuse of the API is a
// TypeError or RangeError with ERR_INVALID_ARG; everything else is a MaestraleError.

/** The stable `code` of an error. */
export type ErrorCode =
  | 'ERR_INVALID_ARG'
  | 'ERR_MODEL_FORMAT'
  | 'ERR_MODEL_UNSUPPORTED'
  | 'ERR_CONTEXT_LENGTH'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_DEVICE'
  | 'ERR_QUEUE_FULL'
  | 'ERR_ADAPTER'
  | 'ERR_DISPOSED'
  | 'ERR_NATIVE_LOAD'
  | 'ERR_DOWNLOAD'
  | 'ERR_INTERNAL'

/**
 * What the library throws and rejects with, apart from misuse of the API (a `TypeError` or `RangeError`
 * whose `code` is `'ERR_INVALID_ARG'`) and aborts (the signal's own reason).
 *
 * The message is one sentence with the numbers that explain the failure; the stack is that of the call
 * that failed, also when the failure happened later on the engine's thread.
 *
 * @example
 * try {
 *   await model.generate(prompt)
 * } catch (error) {
 *   if (error instanceof MaestraleError && error.code === 'ERR_QUEUE_FULL') retryLater()
 *   else throw error
 * }
 */
export class MaestraleError extends Error {
  override readonly name: string = 'MaestraleError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.code = code
  }
}

/** A place in the caller's code, kept until a failure on the engine's thread needs a stack. */
export interface CallSite {
  stack?: string
}

/** The stack of whoever called `entry`, a public function. */
export function captureCallSite(entry: (...args: never[]) => unknown): CallSite {
  const site: CallSite = {}
  Error.captureStackTrace(site, entry)
  return site
}

function withCallSite<E extends Error>(error: E, site: CallSite | undefined): E {
  const frames = site?.stack?.split('\n').slice(1).join('\n')
  if (frames) error.stack = `${error.name}: ${error.message}\n${frames}`
  return error
}

/** A TypeError (wrong kind of value, unknown option) with `code: 'ERR_INVALID_ARG'`. */
export function invalidType(message: string): TypeError & { code: 'ERR_INVALID_ARG' } {
  return Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG' as const })
}

/** A RangeError (right kind, outside the allowed range) with `code: 'ERR_INVALID_ARG'`. */
export function invalidRange(message: string): RangeError & { code: 'ERR_INVALID_ARG' } {
  return Object.assign(new RangeError(message), { code: 'ERR_INVALID_ARG' as const })
}

export function disposedError(): MaestraleError {
  return new MaestraleError('ERR_DISPOSED', 'The model was disposed.')
}

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  'ERR_MODEL_FORMAT',
  'ERR_MODEL_UNSUPPORTED',
  'ERR_CONTEXT_LENGTH',
  'ERR_OUT_OF_MEMORY',
  'ERR_DEVICE',
  'ERR_QUEUE_FULL',
  'ERR_ADAPTER',
  'ERR_DISPOSED',
  'ERR_NATIVE_LOAD',
  'ERR_DOWNLOAD',
  'ERR_INTERNAL',
])

function isCode(code: string): code is ErrorCode {
  return CODES.has(code)
}

/**
 * Turns what the addon threw, rejected with or reported into a public error with the caller's stack.
 * A plain `{ code, message }` comes from an event and is no `cause` worth keeping.
 */
export function fromNative(native: unknown, site?: CallSite): Error {
  if (native instanceof MaestraleError) return withCallSite(native, site)
  if (typeof native !== 'object' || native === null) {
    return withCallSite(new MaestraleError('ERR_INTERNAL', String(native)), site)
  }
  const code = 'code' in native ? String(native.code) : 'ERR_INTERNAL'
  const message = 'message' in native ? String(native.message) : String(native)
  if (code === 'ERR_INVALID_ARG') return withCallSite(invalidRange(message), site)
  const known = isCode(code) ? code : 'ERR_INTERNAL'
  const options = native instanceof Error ? { cause: native } : undefined
  return withCallSite(new MaestraleError(known, message, options), site)
}

/** Runs a synchronous call of the addon, with its failures as public errors. */
export function callNative<T>(entry: (...args: never[]) => unknown, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromNative(error, captureCallSite(entry))
  }
}
