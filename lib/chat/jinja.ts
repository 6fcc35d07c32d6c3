// SPDX-License-Identifier: Apache-2.0
// Renders a chat template that came with a model file. Such a template is a stranger's program, so it
// runs in a worker with a time limit and a heap limit of its own: a loop over 10^9 items or a string
// that doubles for ever ends as an error and stalls nothing. Contents of messages cannot become control
// tokens: their literals are broken up with a character that occurs nowhere else, and mended afterwards.
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { packageRoot } from '#addon'
import { invalidRange, MaestraleError } from '../errors.js'
import type { RenderOptions, Segment, Vocabulary } from './format.js'
import type { ChatMessage } from './messages.js'

const TIME_LIMIT_MS = 2000
const HEAP_LIMIT_MB = 512
const MAX_TEMPLATE_CHARACTERS = 1 << 20
const MAX_TEXT_CHARACTERS = 1 << 22

// A failed allocation of one huge array would end the whole process, not only the worker. So every
// value is held to a size as soon as it exists, and so are the counts that ranges and indentation take.
const WORKER_SOURCE = `
const { parentPort, workerData } = require('node:worker_threads')
const { createRequire } = require('node:module')
const { Environment, Interpreter, Template } = createRequire(workerData.base)('@huggingface/jinja')
const MAX_STEPS = 1000000, MAX_ITEMS = 100000, MAX_COUNT = 100000
const COUNTING = new Set(['IntegerLiteral', 'BinaryExpression', 'FilterExpression', 'CallExpression'])
let steps = 0
const evaluate = Interpreter.prototype.evaluate
Interpreter.prototype.evaluate = function (node, environment) {
  steps += 1
  if (steps > MAX_STEPS) throw new Error('it takes more than ' + MAX_STEPS + ' steps')
  const result = evaluate.call(this, node, environment)
  const value = result && result.value
  if (typeof value === 'string' && value.length > workerData.maxText)
    throw new Error('it makes a text of ' + value.length + ' characters')
  if (Array.isArray(value) && value.length > MAX_ITEMS)
    throw new Error('it makes a list of ' + value.length + ' items')
  if (typeof value === 'number' && Math.abs(value) > MAX_COUNT && COUNTING.has(node && node.type))
    throw new Error('it counts to ' + value)
  return result
}
function range(start, stop, step = 1) {
  if (stop === undefined) { stop = start; start = 0 }
  if (step === 0) throw new Error('the step of a range is zero')
  const count = Math.max(0, Math.ceil((stop - start) / step))
  if (!(count <= MAX_ITEMS)) throw new Error('it makes a list of ' + count + ' items')
  return Array.from({ length: count }, (_, i) => start + i * step)
}
const set = Environment.prototype.set
Environment.prototype.set = function (name, value) {
  return set.call(this, name, name === 'range' ? range : value)
}
let reply
try {
  reply = { text: new Template(workerData.template).render(workerData.values) }
} catch (error) {
  reply = { error: String(error && error.message || error).slice(0, 1000) }
}
parentPort.postMessage(reply)
`

interface Reply {
  text?: string
  error?: string
}

/** Runs the template; rejects with ERR_INVALID_ARG or ERR_MODEL_FORMAT when it fails or runs away. */
function runTemplate(template: string, values: Record<string, unknown>): Promise<string> {
  const runaway = (what: string) =>
    new MaestraleError('ERR_MODEL_FORMAT', `The file's chat template ${what}.`)
  return new Promise((resolve, reject) => {
    const worker = new Worker(WORKER_SOURCE, {
      eval: true,
      env: {},
      workerData: {
        base: join(packageRoot, 'package.json'),
        template,
        values,
        maxText: MAX_TEXT_CHARACTERS,
      },
      resourceLimits: { maxOldGenerationSizeMb: HEAP_LIMIT_MB, maxYoungGenerationSizeMb: 16 },
    })
    const finish = (settle: () => void) => {
      clearTimeout(timer)
      void worker.terminate()
      settle()
    }
    const timer = setTimeout(() => {
      finish(() => reject(runaway(`ran for more than ${TIME_LIMIT_MS} ms`)))
    }, TIME_LIMIT_MS)
    worker.once('message', (reply: Reply) => {
      finish(() => {
        if (reply.text !== undefined) resolve(reply.text)
        else
          reject(invalidRange(`The file's chat template refuses the conversation: ${reply.error}`))
      })
    })
    worker.once('error', (cause) => {
      finish(() => reject(runaway(`failed: ${cause instanceof Error ? cause.message : cause}`)))
    })
  })
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

/** A private-use character that none of the texts contains. */
function freeCharacter(texts: string): string {
  for (let code = 0xe000; code <= 0xf8ff; code += 1) {
    const character = String.fromCharCode(code)
    if (!texts.includes(character)) return character
  }
  throw invalidRange('messages use every private-use character of Unicode.')
}

/** A copy of plain data with every string, keys of tool schemas included, replaced. */
function mapStrings(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === 'string') return change(value)
  if (Array.isArray(value)) return value.map((item) => mapStrings(item, change))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => [key, mapStrings(member, change)]),
  )
}

/** The names that templates expect, whichever spelling the caller used. */
function templateMessage(message: ChatMessage, protect: (text: string) => string): unknown {
  const { role, ...rest } = message as ChatMessage & Record<string, unknown>
  const { toolCalls, toolCallId, ...others } = rest as Record<string, unknown>
  const named = {
    ...others,
    ...(toolCalls === undefined ? {} : { tool_calls: toolCalls }),
    ...(toolCallId === undefined ? {} : { tool_call_id: toolCallId }),
  }
  return { role, ...(mapStrings(named, protect) as Record<string, unknown>) }
}

/**
 * @internal Renders `template` to segments, with exactly one begin-of-sequence token when the vocabulary
 * asks for one. What a template cannot rely on: the exact length of a content, and single characters of
 * it that also begin or end a control token.
 */
export async function renderJinja(
  template: string,
  vocabulary: Vocabulary,
  messages: readonly ChatMessage[],
  options: RenderOptions,
): Promise<Segment[]> {
  if (template.length > MAX_TEMPLATE_CHARACTERS) {
    throw new MaestraleError(
      'ERR_MODEL_FORMAT',
      `The file's chat template has ${template.length} characters, more than ${MAX_TEMPLATE_CHARACTERS}.`,
    )
  }
  const names = Object.keys(vocabulary.specialTokens).sort((a, b) => b.length - a.length)
  const breaker = freeCharacter(JSON.stringify([template, messages, options.tools ?? []]))
  const edges = (pick: (name: string) => string) =>
    new RegExp([...new Set(names.map(pick))].map(escapeRegExp).join('|'), 'gu')
  const first = edges((name) => [...name][0] ?? '')
  const last = edges((name) => [...name].at(-1) ?? '')
  const protect = (text: string) =>
    text.replace(first, `$&${breaker}`).replace(last, `${breaker}$&`)

  let rendered = await runTemplate(template, {
    messages: messages.map((message) => templateMessage(message, protect)),
    ...(options.tools ? { tools: mapStrings(options.tools, protect) } : {}),
    add_generation_prompt: options.addGenerationPrompt,
    continue_final_message: options.continueFinalMessage,
    bos_token: vocabulary.bosToken,
    eos_token: vocabulary.eosToken,
  })
  if (options.continueFinalMessage) {
    // Whatever closes the last message comes after its content: cut there.
    const content = messages.at(-1)?.content
    const text = typeof content === 'string' ? protect(content).trimEnd() : ''
    const end = text === '' ? -1 : rendered.lastIndexOf(text)
    if (end < 0) throw invalidRange('The chat template does not show the message to be continued.')
    rendered = rendered.slice(0, end + text.length)
  }

  const segments: Segment[] = []
  const special = new RegExp(`(${names.map(escapeRegExp).join('|')})`, 'u')
  for (const part of rendered.split(special)) {
    const token = Object.hasOwn(vocabulary.specialTokens, part)
      ? vocabulary.specialTokens[part]
      : undefined
    if (token !== undefined) segments.push({ token })
    else if (part !== '') segments.push({ text: part.replaceAll(breaker, '') })
  }
  const isBos = (segment: Segment | undefined) =>
    segment !== undefined && 'token' in segment && segment.token === vocabulary.bosId
  while (isBos(segments[0]) && isBos(segments[1])) segments.shift()
  if (vocabulary.addBos && !isBos(segments[0])) segments.unshift({ token: vocabulary.bosId })
  return segments
}
