// SPDX-License-Identifier: Apache-2.0
// Argument checks with one message format: "<name> must be <expected>; received <value>". A value of
// the wrong kind is a TypeError, one outside the allowed range a RangeError; both carry
// ERR_INVALID_ARG. Checks run before anything else happens, so a misuse never has side effects.
import { inspect } from 'node:util'

import { invalidRange, invalidType } from './errors.js'

/** Throws when `value`, called `name` in the message, is not allowed. */
export type Check = (value: unknown, name: string) => void

/** A check for each option of an options object. */
export type Checks<Options> = { readonly [Key in keyof Required<Options>]: Check }

function show(value: unknown): string {
  return inspect(value, { depth: 0, breakLength: Infinity, maxStringLength: 40, maxArrayLength: 4 })
}

export function wrongType(name: string, expected: string, value: unknown): never {
  throw invalidType(`${name} must be ${expected}; received ${show(value)}`)
}

export function outOfRange(name: string, expected: string, value: unknown): never {
  throw invalidRange(`${name} must be ${expected}; received ${show(value)}`)
}

function upTo(min: number, max: number): string {
  return max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`
}

export function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Check {
  const expected = `an integer ${upTo(min, max)}`
  return (value, name) => {
    if (typeof value !== 'number' || Number.isNaN(value)) wrongType(name, expected, value)
    if (!Number.isInteger(value) || value < min || value > max) outOfRange(name, expected, value)
  }
}

export function number(min: number, max: number): Check {
  const expected = `a number ${upTo(min, max)}`
  return (value, name) => {
    if (typeof value !== 'number' || Number.isNaN(value)) wrongType(name, expected, value)
    if (value < min || value > max) outOfRange(name, expected, value)
  }
}

/** One of `words`, or what `other` accepts, which `otherName` describes. */
export function oneOf(words: readonly unknown[], other?: Check, otherName?: string): Check {
  const list = words.map((word) => (typeof word === 'string' ? `'${word}'` : String(word)))
  const expected = `${list.join(', ')}${otherName ? ` or ${otherName}` : ''}`
  return (value, name) => {
    if (words.includes(value)) return
    if (other && typeof value === 'number') {
      other(value, name)
      return
    }
    if (typeof value === 'string') outOfRange(name, expected, value)
    wrongType(name, expected, value)
  }
}

export const boolean: Check = (value, name) => {
  if (typeof value !== 'boolean') wrongType(name, 'a boolean', value)
}

export const functionValue: Check = (value, name) => {
  if (typeof value !== 'function') wrongType(name, 'a function', value)
}

export const text: Check = (value, name) => {
  if (typeof value !== 'string') wrongType(name, 'a string', value)
}

export const nonEmptyText: Check = (value, name) => {
  if (typeof value !== 'string') wrongType(name, 'a non-empty string', value)
  if (value === '') outOfRange(name, 'a non-empty string', value)
}

export const signal: Check = (value, name) => {
  if (!(value instanceof AbortSignal)) wrongType(name, 'an AbortSignal', value)
}

/**
 * Checks an options object: a plain object whose keys are all known and whose values, where they are not
 * undefined, pass their checks.
 */
export function checkOptions<Options>(
  options: Options | undefined,
  checks: Checks<Options>,
  name = 'options',
): void {
  if (options === undefined) return
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    wrongType(name, 'an object', options)
  }
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(checks, key)) {
      const known = Object.keys(checks).join(', ')
      throw invalidType(`unknown option ${show(key)}; the options are ${known}`)
    }
    if (value !== undefined) checks[key as keyof Options](value, key)
  }
}

/** Token ids as the addon takes them. `vocabSize` limits the ids; `min` is the least allowed length. */
export function tokenIds(value: unknown, name: string, vocabSize: number, min: number): Int32Array {
  if (!Array.isArray(value) && !(value instanceof Uint32Array) && !(value instanceof Int32Array)) {
    wrongType(name, 'an array of token ids or a Uint32Array', value)
  }
  if (value.length < min) {
    outOfRange(name, `an array of at least ${min} token id${min === 1 ? '' : 's'}`, value)
  }
  const ids = new Int32Array(value.length)
  const checkId = integer(0, vocabSize - 1)
  for (let i = 0; i < value.length; i++) {
    const id: unknown = value[i]
    checkId(id, `${name}[${i}]`)
    ids[i] = id as number
  }
  return ids
}
