// SPDX-License-Identifier: Apache-2.0
// Mistral's second and third chat formats (v0.3): turns stand between control tokens, the system text
// and the tools belong to the last user turn. The two differ only in how tool results are written:
// v2 keeps those after the last user turn, as a list with names; v3 keeps all, with call ids.
import { invalidRange } from '../errors.js'
import type { Segment, Vocabulary } from './format.js'
import type { Conversation, Turn } from './messages.js'
import { argumentsJson, reformatJson, type Tool, type ToolCall, toolsJson } from './tools.js'

type ToolTurn = Extract<Turn, { role: 'tool' }>

function checkId(id: string | undefined, what: string): string {
  if (id === undefined || !/^[a-zA-Z0-9]{9}$/.test(id)) {
    throw invalidRange(`${what} must be 9 letters or digits, not ${JSON.stringify(id)}.`)
  }
  return id
}

function callsJson(calls: readonly ToolCall[], version: 2 | 3): string {
  const items = calls.map((call) => {
    const parts = [
      `"name": ${JSON.stringify(call.function.name)}`,
      `"arguments": ${argumentsJson(call, 'A tool call')}`,
    ]
    if (version === 3 && call.id !== undefined && call.id !== 'null') {
      parts.push(`"id": ${JSON.stringify(checkId(call.id, 'The id of a tool call'))}`)
    }
    return `{${parts.join(', ')}}`
  })
  return `[${items.join(', ')}]`
}

function resultJson(turn: ToolTurn, calls: ReadonlyMap<string, string>, version: 2 | 3): string {
  const content = reformatJson(turn.text) ?? JSON.stringify(turn.text)
  if (version === 3) {
    const id = checkId(turn.callId, 'The toolCallId of a tool result')
    return `{"content": ${content}, "call_id": ${JSON.stringify(id)}}`
  }
  const name = turn.name ?? calls.get(turn.callId ?? '')
  if (name === undefined) throw invalidRange('A tool result needs the name of the function.')
  return `[{"name": ${JSON.stringify(name)}, "content": ${content}}]`
}

/** @internal */
export function renderMistralV3(
  vocabulary: Vocabulary,
  { system, turns }: Conversation,
  tools: readonly Tool[],
  continueFinalMessage: boolean,
  version: 2 | 3,
): Segment[] {
  const control = (name: string): Segment => {
    const token = vocabulary.specialTokens[name]
    if (token === undefined) throw invalidRange(`The vocabulary has no ${name} token.`)
    return { token }
  }
  const segments: Segment[] = [{ token: vocabulary.bosId }]
  const lastUser = turns.map((turn) => turn.role).lastIndexOf('user')
  const names = new Map<string, string>()

  for (const [i, turn] of turns.entries()) {
    const outdated = version === 2 && i < lastUser
    if (turn.role === 'user') {
      if (i === lastUser && tools.length > 0) {
        segments.push(control('[AVAILABLE_TOOLS]'), { text: toolsJson(tools) })
        segments.push(control('[/AVAILABLE_TOOLS]'))
      }
      const text = i === lastUser && system !== '' ? `${system}\n\n${turn.text}` : turn.text
      segments.push(control('[INST]'), { text }, control('[/INST]'))
    } else if (turn.role === 'tool') {
      if (outdated) continue
      segments.push(control('[TOOL_RESULTS]'), { text: resultJson(turn, names, version) })
      segments.push(control('[/TOOL_RESULTS]'))
    } else if (turn.calls.length > 0) {
      for (const call of turn.calls) if (call.id) names.set(call.id, call.function.name)
      if (outdated) continue
      segments.push(control('[TOOL_CALLS]'), { text: callsJson(turn.calls, version) })
      segments.push({ token: vocabulary.eosId })
    } else {
      segments.push({ text: turn.text.replace(/ +$/, '') })
      const open = continueFinalMessage && i === turns.length - 1
      if (!open) segments.push({ token: vocabulary.eosId })
    }
  }
  return segments
}
