// SPDX-License-Identifier: Apache-2.0
// Mistral's first chat format (v0.1 and v0.2): "[INST]" and "[/INST]" are plain text, each turn is
// encoded on its own, the system text stands in the first user turn. No tools.
import { invalidRange } from '../errors.js'
import type { Segment, Vocabulary } from './format.js'
import type { Conversation } from './messages.js'

/** @internal */
export function renderMistralV1(
  vocabulary: Vocabulary,
  { system, turns }: Conversation,
  continueFinalMessage: boolean,
): Segment[] {
  const segments: Segment[] = [{ token: vocabulary.bosId }]
  let systemText = system === '' ? '' : `${system}\n\n`
  for (const [i, turn] of turns.entries()) {
    if (turn.role === 'user') {
      segments.push({ text: `[INST] ${systemText}${turn.text} [/INST]` })
      systemText = ''
    } else if (turn.role === 'tool' || turn.calls.length > 0) {
      throw invalidRange(
        'This model has no format for tools; it was published before there was one.',
      )
    } else {
      segments.push({ text: turn.text })
      const open = continueFinalMessage && i === turns.length - 1
      if (!open) segments.push({ token: vocabulary.eosId })
    }
  }
  return segments
}
