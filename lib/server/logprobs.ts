// SPDX-License-Identifier: Apache-2.0
// Log-probabilities in the two forms that OpenAI's API has for them. They come with tokens as texts, each with the space
// before it, as in the middle of a text.
import type { Logprob, Tokenizer, TokenLogprob } from '../index.js'

/** The texts of single tokens, which are looked up again and again. */
export class TokenTexts {
  readonly #tokenizer: Tokenizer
  readonly #before: readonly number[]
  readonly #texts = new Map<number, string>()

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
    this.#before = [...tokenizer.encode('a', { addBos: false })]
  }

  /** U+FFFD for a token that is a part of a character. */
  get(token: number): string {
    let text = this.#texts.get(token)
    if (text === undefined) {
      text = this.#tokenizer.decode([...this.#before, token], { keepSpecial: true }).slice(1)
      this.#texts.set(token, text)
    }
    return text
  }
}

function described(texts: TokenTexts, { token, logprob }: Logprob) {
  const text = texts.get(token)
  return { token: text, logprob, bytes: text.includes('\ufffd') ? null : [...Buffer.from(text)] }
}

/** As chat completions have them. */
export function chatLogprobs(
  logprobs: readonly TokenLogprob[],
  alternatives: number,
  texts: TokenTexts,
): object {
  const content = logprobs.map((item) => ({
    ...described(texts, item),
    top_logprobs: item.top.slice(0, alternatives).map((other) => described(texts, other)),
  }))
  return { content, refusal: null }
}

/** As completions of texts have them; `offset` is where in the text the first token begins. */
export function textLogprobs(
  logprobs: readonly TokenLogprob[],
  alternatives: number,
  texts: TokenTexts,
  offset: number,
): object {
  const tokens = logprobs.map(({ token }) => texts.get(token))
  let next = offset
  return {
    tokens,
    token_logprobs: logprobs.map(({ logprob }) => logprob),
    top_logprobs: logprobs.map(({ top }) =>
      Object.fromEntries(
        top.slice(0, alternatives).map(({ token, logprob }) => [texts.get(token), logprob]),
      ),
    ),
    text_offset: tokens.map((text) => {
      const start = next
      next += text.length
      return start
    }),
  }
}
