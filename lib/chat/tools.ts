// SPDX-License-Identifier: Apache-2.0
// Functions a model may call: their description going in, the calls coming out. JSON is written as
// Python's json.dumps does it (", " and ": ", no escapes for non-ASCII), because the models were
// trained on that text.
import { invalidRange, invalidType } from '../errors.js'

/** A function the model may call. `parameters` is a JSON Schema. */
export interface Tool {
  type?: 'function'
  function: { name: string; description?: string; parameters?: Readonly<Record<string, unknown>> }
}

/** A call of a function. `arguments` is an object, or its JSON. */
export interface ToolCall {
  id?: string
  type?: 'function'
  function: { name: string; arguments: string | Readonly<Record<string, unknown>> }
}

const MAX_DEPTH = 64

/** @internal JSON with Python's separators; `undefined` members are left out. */
export function dumpJson(value: unknown, name: string, depth = 0): string {
  if (depth > MAX_DEPTH) throw invalidRange(`${name} is nested more than ${MAX_DEPTH} levels deep.`)
  if (Array.isArray(value)) {
    return `[${value.map((item) => dumpJson(item ?? null, name, depth + 1)).join(', ')}]`
  }
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined)
    return `{${members.map(([key, member]) => `${JSON.stringify(key)}: ${dumpJson(member, name, depth + 1)}`).join(', ')}}`
  }
  if (value !== null && !['string', 'number', 'boolean'].includes(typeof value)) {
    throw invalidType(`${name} holds a ${typeof value}, which JSON cannot express.`)
  }
  return JSON.stringify(value)
}

/**
 * @internal JSON text with Python's separators, `undefined` when it is no JSON. Numbers stay as they are
 * spelled: 1.0 and integers beyond 2^53 survive.
 */
export function reformatJson(text: string): string | undefined {
  try {
    JSON.parse(text)
  } catch {
    return undefined
  }
  return text.replace(/"(?:[^"\\]|\\.)*"|[\s]+|[,:]/g, (part) => {
    if (part[0] === '"') return JSON.stringify(JSON.parse(part))
    return part === ',' ? ', ' : part === ':' ? ': ' : ''
  })
}

/** @internal The list of tools as the models read it. */
export function toolsJson(tools: readonly Tool[]): string {
  const list = tools.map((tool, i) => {
    const described = (tool as Tool | null | undefined)?.function
    if (typeof described !== 'object' || described === null) {
      throw invalidType(`tools[${i}].function must be an object.`)
    }
    const { name, description = '', parameters = {} } = described
    if (typeof name !== 'string' || !/^[a-zA-Z0-9_-]{1,64}$/.test(name)) {
      throw invalidRange(`tools[${i}].function.name must be 1 to 64 letters, digits, "_" or "-".`)
    }
    if (typeof description !== 'string') {
      throw invalidType(`tools[${i}].function.description must be a string.`)
    }
    return { type: 'function', function: { name, description, parameters } }
  })
  return dumpJson(list, 'tools')
}

/** @internal The arguments of a call as JSON; no arguments are `{}`. */
export function argumentsJson(call: ToolCall, name: string): string {
  const given: unknown = call.function.arguments
  if (given === undefined || given === '') return '{}'
  if (typeof given !== 'string') return dumpJson(given, `${name}.function.arguments`)
  const json = reformatJson(given)
  if (json === undefined) throw invalidRange(`${name}.function.arguments is not JSON.`)
  return json
}

/**
 * Reads the calls out of an answer that starts with the control token `[TOOL_CALLS]`: a JSON array of
 * `{ name, arguments, id? }`. `undefined` when the text is no such array, e.g. because it was cut off.
 *
 * @param text the answer, with or without the control token's spelling
 */
export function parseToolCalls(text: string): ToolCall[] | undefined {
  let list: unknown
  try {
    list = JSON.parse(text.replace(/^\s*\[TOOL_CALLS\]/, ''))
  } catch {
    return undefined
  }
  if (!Array.isArray(list) || list.length === 0) return undefined
  const calls: ToolCall[] = []
  for (const item of list as ({ name?: unknown; arguments?: unknown; id?: unknown } | null)[]) {
    if (typeof item?.name !== 'string') return undefined
    const given = item.arguments ?? {}
    if (typeof given !== 'object' && typeof given !== 'string') return undefined
    calls.push({
      ...(typeof item.id === 'string' ? { id: item.id } : {}),
      type: 'function',
      function: { name: item.name, arguments: given as string | Record<string, unknown> },
    })
  }
  return calls
}
