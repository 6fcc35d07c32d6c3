// SPDX-License-Identifier: Apache-2.0
// Conversations: what callers pass, and the checked, merged form that Mistral's formats are defined on.
// The rules and their order are those of mistral-common's request normalisation and validation.
import { invalidRange, invalidType } from '../errors.js'
import { argumentsJson, type Tool, type ToolCall } from './tools.js'

/** A text as a string, or in parts that are joined with an empty line. */
export type MessageContent = string | readonly { type: 'text'; text: string }[]

/** One message of a conversation. */
export type ChatMessage =
  | { role: 'system' | 'user'; content: MessageContent }
  | {
      role: 'assistant'
      content?: MessageContent | null
      /** Functions the assistant called; their results follow as messages with the role `tool`. */
      toolCalls?: readonly ToolCall[]
      /** The same under the name that OpenAI's API gives it. */
      tool_calls?: readonly ToolCall[]
    }
  | {
      role: 'tool'
      content: MessageContent
      /** Which call this is the result of. */
      toolCallId?: string
      tool_call_id?: string
      /** Name of the function. */
      name?: string
    }

/** @internal A turn as the formats see it. */
export type Turn =
  | { role: 'user'; text: string }
  | { role: 'assistant'; text: string; calls: readonly ToolCall[] }
  | { role: 'tool'; text: string; callId: string | undefined; name: string | undefined }

/** @internal A conversation without system messages among its turns. */
export interface Conversation {
  system: string
  turns: Turn[]
}

const FOLLOWERS: Readonly<Record<string, readonly string[]>> = {
  system: ['user', 'assistant', 'system'],
  user: ['assistant', 'system', 'user'],
  assistant: ['assistant', 'user', 'tool'],
  tool: ['assistant', 'tool', 'user'],
}

function contentText(content: unknown, where: string): string {
  if (content === undefined || content === null) return ''
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) {
    throw invalidType(`${where}.content must be a string or an array of text parts.`)
  }
  return content
    .map((part: unknown, i) => {
      const candidate = part as { type?: unknown; text?: unknown } | null
      if (candidate?.type !== 'text' || typeof candidate.text !== 'string') {
        throw invalidType(`${where}.content[${i}] must be { type: 'text', text: string }.`)
      }
      return candidate.text
    })
    .join('\n\n')
}

function checkCalls(calls: unknown, where: string): readonly ToolCall[] {
  if (calls === undefined || calls === null) return []
  if (!Array.isArray(calls)) throw invalidType(`${where}.toolCalls must be an array.`)
  for (const [i, call] of (calls as unknown[]).entries()) {
    const name = (call as { function?: { name?: unknown } } | null)?.function?.name
    if (typeof name !== 'string' || !/^[a-zA-Z0-9_-]{1,64}$/.test(name)) {
      throw invalidRange(
        `${where}.toolCalls[${i}].function.name must be 1 to 64 letters, digits, "_" or "-".`,
      )
    }
    argumentsJson(call as ToolCall, `${where}.toolCalls[${i}]`)
  }
  return calls as readonly ToolCall[]
}

function optionalText(value: unknown, name: string): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw invalidType(`${name} must be a string.`)
  return value
}

function readTurn(message: ChatMessage, where: string): Turn {
  const hasContent = message.content !== undefined && message.content !== null
  const text = contentText(message.content, where)
  if (message.role === 'assistant') {
    const calls = checkCalls(message.toolCalls ?? message.tool_calls, where)
    if (calls.length > 0 ? text !== '' : !hasContent) {
      throw invalidType(`${where}: an assistant message has either content or tool calls.`)
    }
    return { role: 'assistant', text, calls }
  }
  if (!hasContent) throw invalidType(`${where}.content is missing.`)
  if (message.role !== 'tool') return { role: 'user', text }
  return {
    role: 'tool',
    text,
    callId: optionalText(message.toolCallId ?? message.tool_call_id, `${where}.toolCallId`),
    name: optionalText(message.name, `${where}.name`),
  }
}

/** @internal Checks every message on its own; the order of roles is checked by {@link conversation}. */
export function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages)) throw invalidType('messages must be an array.')
  if (messages.length === 0) throw invalidRange('messages must hold at least one message.')
  for (const [i, message] of (messages as unknown[]).entries()) {
    const role = (message as { role?: unknown } | null | undefined)?.role
    if (typeof role !== 'string' || !Object.hasOwn(FOLLOWERS, role)) {
      throw invalidType(
        `messages[${i}].role must be 'system', 'user', 'assistant' or 'tool', not ${JSON.stringify(role)}.`,
      )
    }
    readTurn(message as ChatMessage, `messages[${i}]`)
  }
}

function checkToolResults(turns: readonly Turn[]): void {
  let expected = 0
  for (const turn of turns) {
    if (turn.role === 'tool') {
      expected -= 1
      if (expected >= 0) continue
    } else if (expected === 0) {
      expected = turn.role === 'assistant' ? turn.calls.length : 0
      continue
    }
    throw invalidRange('There is not one tool result for each tool call.')
  }
  if (expected > 0 && turns.at(-1)?.role === 'tool') {
    throw invalidRange('There is not one tool result for each tool call.')
  }
}

/**
 * @internal Merges consecutive messages of a role and system messages with an empty line between them,
 * and puts an empty user turn before an assistant that speaks first.
 */
export function conversation(
  messages: readonly ChatMessage[],
  end: { addGenerationPrompt: boolean; continueFinalMessage: boolean },
): Conversation {
  checkMessages(messages)
  const last = messages.at(-1)?.role
  if (end.continueFinalMessage && last !== 'assistant') {
    throw invalidRange(`continueFinalMessage needs an assistant message at the end, not '${last}'.`)
  }
  const answers = end.addGenerationPrompt && !end.continueFinalMessage
  if (last === 'system' || (answers && last === 'assistant')) {
    throw invalidRange(`The last message must be of role 'user' or 'tool', not '${last}'.`)
  }

  const system: string[] = []
  const turns: Turn[] = []
  for (const [i, message] of messages.entries()) {
    const before = messages[i - 1]?.role
    if (before ? !FOLLOWERS[before]?.includes(message.role) : message.role === 'tool') {
      throw invalidRange(
        `messages[${i}]: unexpected role '${message.role}' ${before ? `after role '${before}'` : 'at the start'}.`,
      )
    }
    if (message.role === 'system') {
      system.push(contentText(message.content, `messages[${i}]`))
      continue
    }
    const turn = readTurn(message, `messages[${i}]`)
    const previous = turns.at(-1)
    if (previous?.role === 'user' && turn.role === 'user') {
      previous.text += `\n\n${turn.text}`
    } else if (previous?.role === 'assistant' && turn.role === 'assistant') {
      previous.text = [previous.text, turn.text].filter((text) => text !== '').join('\n\n')
      previous.calls = [...previous.calls, ...turn.calls]
      if (previous.text !== '' && previous.calls.length > 0) {
        throw invalidType(`messages[${i}]: an assistant message has either content or tool calls.`)
      }
    } else {
      turns.push(turn)
    }
  }
  if (turns[0]?.role === 'assistant') turns.unshift({ role: 'user', text: '' })
  checkToolResults(turns)
  return { system: system.join('\n\n'), turns }
}

export type { Tool, ToolCall }
