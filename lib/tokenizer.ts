// SPDX-License-Identifier: Apache-2.0
// Text to tokens and back, and conversations to tokens. The work is native (native/tokenizer); this
// file checks arguments and names things.
import {
  type ChatFormatter,
  type ChatMessage,
  createChatFormatter,
  type Tool,
} from './chat/format.js'
import { callNative, captureCallSite, fromNative } from './errors.js'
import { resolveModel } from './hub/pull.js'
import type { NativeTokenizer, NativeVocabulary } from './native/binding.js'
import { loadBinding } from './native/load.js'
import type { TokenIds } from './types.js'
import {
  boolean,
  type Checks,
  checkOptions,
  integer,
  nonEmptyText,
  text,
  tokenIds,
  wrongType,
} from './validate.js'

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** Puts the begin-of-sequence token first. Default: what the vocabulary asks for. */
  addBos?: boolean
  /**
   * Reads control tokens such as `[INST]` in the text as what they spell. Default false: text from a user
   * never becomes a control token.
   */
  parseSpecial?: boolean
}

/** Options of {@link Tokenizer.decode}. */
export interface DecodeOptions {
  /** Spells control tokens out instead of leaving them away. Default false. */
  keepSpecial?: boolean
}

/** Options of {@link Tokenizer.applyChatTemplate}. */
export interface ChatTemplateOptions {
  /** Functions the model may call. */
  tools?: readonly Tool[]
  /** Ends with what makes the model answer. Default true. */
  addGenerationPrompt?: boolean
  /** Leaves the last message, the assistant's, open to be continued. Default false. */
  continueFinalMessage?: boolean
}

const ENCODE_CHECKS: Checks<EncodeOptions> = { addBos: boolean, parseSpecial: boolean }
const DECODE_CHECKS: Checks<DecodeOptions> = { keepSpecial: boolean }
export const TEMPLATE_CHECKS: Checks<ChatTemplateOptions> = {
  tools: (value, name) => {
    if (!Array.isArray(value)) wrongType(name, 'an array of tools', value)
  },
  addGenerationPrompt: boolean,
  continueFinalMessage: boolean,
}

/**
 * Tokens to text one at a time, for tokens that arrive one at a time. Text comes out as soon as it is
 * certain; a character whose bytes are spread over tokens comes out whole.
 *
 * @example
 * const decoder = tokenizer.streamDecoder()
 * for (const token of tokens) process.stdout.write(decoder.push(token))
 * process.stdout.write(decoder.end())
 */
export interface StreamDecoder {
  /** The text that this token makes certain, often a word, sometimes nothing. */
  push(token: number): string
  /** What was still held back; broken bytes become U+FFFD. */
  end(): string
}

/**
 * The tokenizer of a model: SentencePiece BPE with byte fallback (Kudo & Richardson 2018), token for
 * token what the published Mistral vocabularies give. All calls run on the calling thread and take time
 * proportional to the input, about a second for 10 MB.
 */
export class Tokenizer {
  readonly #native: NativeTokenizer
  readonly #vocabulary: NativeVocabulary
  #formatter: ChatFormatter | undefined

  /** @internal Comes from {@link loadTokenizer} or {@link Model.tokenizer}. */
  constructor(native: NativeTokenizer) {
    this.#native = native
    this.#vocabulary = native.vocabulary()
  }

  /** Number of tokens; ids are 0 to `vocabSize - 1`. */
  get vocabSize(): number {
    return this.#vocabulary.size
  }

  /** Begin-of-sequence token. */
  get bosId(): number {
    return this.#vocabulary.bosId
  }

  /** End-of-sequence token; generation stops at it. */
  get eosId(): number {
    return this.#vocabulary.eosId
  }

  get unkId(): number {
    return this.#vocabulary.unkId
  }

  /** Control tokens by their spelling, e.g. `{ '<s>': 1, '</s>': 2, '[INST]': 3 }`. */
  get specialTokens(): Readonly<Record<string, number>> {
    return { ...this.#vocabulary.specialTokens }
  }

  /** How conversations are rendered, e.g. `'mistral-v3'`. */
  get chatFormat(): string {
    return this.#chatFormatter().name
  }

  /**
   * The tokens of a text.
   *
   * @param input any string; broken surrogates read as U+FFFD
   * @returns ids, shape [n]
   * @throws TypeError with ERR_INVALID_ARG
   * @example
   * tokenizer.encode('Hello', { addBos: false }) // Uint32Array [ 22557 ]
   */
  encode(input: string, options: EncodeOptions = {}): Uint32Array {
    text(input, 'text')
    checkOptions(options, ENCODE_CHECKS)
    const { addBos = this.#vocabulary.addBos, parseSpecial = false } = options
    return unsigned(callNative(this.encode, () => this.#native.encode(input, addBos, parseSpecial)))
  }

  /**
   * The text of tokens; bytes that are no UTF-8 become U+FFFD.
   *
   * @param tokens ids, shape [n]
   * @throws TypeError or RangeError with ERR_INVALID_ARG
   * @example
   * tokenizer.decode(tokenizer.encode('Hello')) // 'Hello'
   */
  decode(tokens: TokenIds, options: DecodeOptions = {}): string {
    checkOptions(options, DECODE_CHECKS)
    const ids = tokenIds(tokens, 'tokens', this.vocabSize, 0)
    return callNative(this.decode, () => this.#native.decode(ids, options.keepSpecial ?? false))
  }

  /** A decoder for tokens that arrive one by one. */
  streamDecoder(): StreamDecoder {
    const native = callNative(this.streamDecoder, () => this.#native.streamDecoder())
    const check = integer(0, this.vocabSize - 1)
    return {
      push: (token) => {
        check(token, 'token')
        return native.push(token)
      },
      end: () => native.end(),
    }
  }

  /**
   * The tokens of a conversation as the model was trained on it: Mistral's v1, v2 and v3 formats token by
   * token, else the file's own Jinja template. Texts of messages never become control tokens.
   *
   * @returns ids, shape [n], with the begin-of-sequence token
   * @throws TypeError or RangeError with ERR_INVALID_ARG for a conversation that the format cannot express
   * @example
   * const tokens = await tokenizer.applyChatTemplate([{ role: 'user', content: 'Hello' }])
   */
  async applyChatTemplate(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
  ): Promise<Uint32Array> {
    checkOptions(options, TEMPLATE_CHECKS)
    const segments = await this.renderChat(messages, options)
    return unsigned(callNative(this.applyChatTemplate, () => this.#native.encodeSegments(segments)))
  }

  /** @internal The prompt of a conversation: token ids and raw texts. */
  async renderChat(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions,
  ): Promise<(number | string)[]> {
    const { tools, addGenerationPrompt = true, continueFinalMessage = false } = options
    const segments = await this.#chatFormatter().render(messages, {
      ...(tools ? { tools } : {}),
      addGenerationPrompt: addGenerationPrompt && !continueFinalMessage,
      continueFinalMessage,
    })
    return segments.map((segment) => ('token' in segment ? segment.token : segment.text))
  }

  #chatFormatter(): ChatFormatter {
    this.#formatter ??= createChatFormatter(this.#vocabulary)
    return this.#formatter
  }
}

function unsigned(ids: Int32Array): Uint32Array {
  return new Uint32Array(ids.buffer as ArrayBuffer, ids.byteOffset, ids.length)
}

/**
 * Loads the tokenizer of a model, alone; a file that holds nothing but a vocabulary is enough.
 *
 * @param path of a GGUF file or a directory with tokenizer.model or tokenizer.json, or `'hf:org/repo'`
 * @throws MaestraleError ERR_MODEL_FORMAT, ERR_MODEL_UNSUPPORTED, ERR_DOWNLOAD, ERR_NATIVE_LOAD
 * @example
 * const tokenizer = await loadTokenizer('mistral-7b-instruct-v0.3.Q4_K_M.gguf')
 * console.log(tokenizer.encode('How many tokens is this?').length)
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  nonEmptyText(path, 'path')
  const site = captureCallSite(loadTokenizer)
  try {
    return new Tokenizer(await loadBinding().loadTokenizer(await resolveModel(path)))
  } catch (error) {
    throw fromNative(error, site)
  }
}
