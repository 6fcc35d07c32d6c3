// SPDX-License-Identifier: Apache-2.0
// Finds out which chat format a model was trained on and renders conversations in it. Mistral's own
// formats are built from tokens, not from text, so they are exact and nothing in a message can forge a
// control token; a template that is not Mistral's own is run as the Jinja program it is.
import { invalidRange } from '../errors.js'
import { renderJinja } from './jinja.js'
import { type ChatMessage, checkMessages, conversation } from './messages.js'
import { renderMistralV1 } from './mistral-v1.js'
import { renderMistralV3 } from './mistral-v3.js'
import type { Tool } from './tools.js'

export type { ChatMessage, MessageContent } from './messages.js'
export { parseToolCalls, type Tool, type ToolCall } from './tools.js'

/** @internal A token as it is, or raw text that is encoded on its own. */
export type Segment = { token: number } | { text: string }

/** @internal What formatting needs to know about a vocabulary. */
export interface Vocabulary {
  bosId: number
  eosId: number
  bosToken: string
  eosToken: string
  addBos: boolean
  specialTokens: Readonly<Record<string, number>>
  chatTemplate?: string
  /** Named 'tool_use' in the file: for conversations with tools. */
  toolTemplate?: string
}

/** @internal */
export interface RenderOptions {
  tools?: readonly Tool[]
  addGenerationPrompt: boolean
  continueFinalMessage: boolean
}

/** @internal */
export interface ChatFormatter {
  readonly name: 'mistral-v1' | 'mistral-v2' | 'mistral-v3' | 'jinja'
  /** Throws (or rejects with) ERR_INVALID_ARG for a conversation that the format cannot express. */
  render(messages: readonly ChatMessage[], options: RenderOptions): Segment[] | Promise<Segment[]>
}

// Every sentence that a template published by Mistral AI for its 7B models can utter. A template with
// any other sentence, e.g. a default system prompt, has a will of its own.
const PUBLISHED_SENTENCES: readonly string[] = [
  'Conversation roles must alternate user/assistant/user/assistant/...',
  'After the optional system message, conversation roles must alternate user/assistant/user/assistant/...',
  'Only user and assistant roles are supported!',
  'Only user and assistant roles are supported, with the exception of an initial optional system message!',
  'Tool call IDs should be alphanumeric strings with length 9!',
]
const FOREIGN_MARKS = ['<<SYS>>', '<|', '[SYSTEM_PROMPT]', '###']

function isPublishedTemplate(template: string): boolean {
  if (!template.includes('[INST]') || !template.includes('[/INST]')) return false
  if (FOREIGN_MARKS.some((mark) => template.includes(mark))) return false
  const literals = template.match(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/g) ?? []
  const sentences = literals
    .map((literal) => literal.slice(1, -1))
    .filter((text) => /\p{L}{2,} +\p{L}+ +\p{L}/u.test(text))
  return (
    sentences.length > 0 && sentences.every((sentence) => PUBLISHED_SENTENCES.includes(sentence))
  )
}

function detect(vocabulary: Vocabulary): ChatFormatter['name'] {
  const { specialTokens, chatTemplate } = vocabulary
  if (chatTemplate && !isPublishedTemplate(chatTemplate)) return 'jinja'
  const has = (name: string) => Object.hasOwn(specialTokens, name)
  if (!has('[INST]') || !has('[/INST]') || !has('[TOOL_RESULTS]')) return 'mistral-v1'
  // The second vocabulary has unnamed control tokens where the third has those of infilling.
  return has('[PREFIX]') ? 'mistral-v3' : 'mistral-v2'
}

/** @internal */
export function createChatFormatter(vocabulary: Vocabulary): ChatFormatter {
  const name = detect(vocabulary)
  return {
    name,
    render(messages, options) {
      if (name === 'jinja') {
        checkMessages(messages)
        const { chatTemplate = '', toolTemplate } = vocabulary
        const template = options.tools ? (toolTemplate ?? chatTemplate) : chatTemplate
        return renderJinja(template, vocabulary, messages, options)
      }
      const { tools = [], continueFinalMessage } = options
      const talk = conversation(messages, options)
      if (name === 'mistral-v1') {
        if (tools.length > 0) {
          throw invalidRange(
            'This model has no format for tools; it was published before there was one.',
          )
        }
        return renderMistralV1(vocabulary, talk, continueFinalMessage)
      }
      return renderMistralV3(
        vocabulary,
        talk,
        tools,
        continueFinalMessage,
        name === 'mistral-v2' ? 2 : 3,
      )
    },
  }
}
