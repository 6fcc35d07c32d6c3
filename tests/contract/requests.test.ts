// SPDX-License-Identifier: Apache-2.0
// Requests on the model that ships with the package: what a run yields, and that nothing around it changes a bit.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { Model } from '../../lib/index.js'
import { sameBits, vectorsPath } from '../reference.js'
import { contract, mini } from './device.js'

const prompt = 'And it came to pass, when the ship had sailed,'

contract(({ load, size }) => {
  let model: Model
  let endless: { temperature: number; logitBias: Record<number, number> }

  beforeAll(async () => {
    model = await load(mini)
    endless = { temperature: 0, logitBias: { [model.tokenizer.eosId]: -Infinity } }
  })
  afterAll(() => model?.dispose())

  describe('a run', () => {
    test('is a stream and its result', async () => {
      const run = model.generate(prompt, { maxNewTokens: size(48, 16), seed: 3 })
      let text = ''
      const tokens: number[] = []
      for await (const chunk of run) {
        text += chunk.text
        tokens.push(...chunk.tokens)
      }
      const result = await run
      expect(result.text).toBe(text)
      expect([...result.tokens]).toEqual(tokens)
      expect(result.usage).toMatchObject({ completionTokens: tokens.length })
      expect(result.usage.promptTokens).toBe(model.tokenizer.encode(prompt).length)
      expect(result.seed).toBe(3)
    })

    test('takes a text or its tokens', async () => {
      const options = { maxNewTokens: size(24, 8), seed: 1 }
      const [one, two] = await Promise.all([
        model.generate(prompt, options),
        model.generate(model.tokenizer.encode(prompt), options),
      ])
      expect(one.text).toBe(two.text)
      expect(one.text).not.toBe('')
    })

    test('ends before its stop string', async () => {
      const greedy = { maxNewTokens: size(30, 12), temperature: 0, repetitionPenalty: 1 }
      const { text } = await model.generate(prompt, greedy)
      const stop = text.slice(8, 14)
      const stopped = await model.generate(prompt, { ...greedy, stop })
      expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)))
      expect(stopped.finishReason).toBe('stop')
    })

    test('gives log-probabilities, those of its logits', async () => {
      const options = { temperature: 0, repetitionPenalty: 1, maxNewTokens: 4, logprobs: 3 }
      const { tokens, logprobs } = await model.generate(prompt, options)
      const { vocabSize } = model.info
      const context = [...model.tokenizer.encode(prompt), ...tokens]
      const logits = await model.logits(context)
      const score = await model.score(context)
      expect(score.logprobs).toHaveLength(context.length - 1)
      for (let i = 1; i < context.length; ++i) {
        const row = logits.subarray((i - 1) * vocabSize, i * vocabSize)
        const max = row.reduce((best, x) => Math.max(best, x), -Infinity)
        const log = max + Math.log(row.reduce((total, x) => total + Math.exp(x - max), 0))
        const expected = (row[context[i] ?? 0] ?? Number.NaN) - log
        expect(score.logprobs[i - 1]).toBeCloseTo(expected, 3)
        const said = logprobs?.[i - context.length + tokens.length]
        if (!said) continue
        expect([said.token, said.top[0]?.token, said.top.length]).toEqual([
          context[i],
          context[i],
          3,
        ])
        expect(said.logprob).toBeCloseTo(expected, 3)
        const best = [...row].sort((a, b) => b - a).slice(0, 3)
        said.top.forEach(({ logprob }, k) => {
          expect(logprob).toBeCloseTo((best[k] as number) - log, 3)
        })
      }
      expect(logprobs).toHaveLength(4)
      expect(score.perplexity).toBeGreaterThan(1)
    })

    test('of a conversation answers it, without a leading space', async () => {
      const { text } = await model.chat(
        [{ role: 'user', content: 'Translate to Spanish: The cat is white.' }],
        { temperature: 0, repetitionPenalty: 1 },
      )
      expect(text).toBe('El gato es blanco.')
    })

    test('may be longer than many windows, in the pages of two', async () => {
      await using small = await load(vectorsPath('models/hd128-q4_0.gguf')) // window 64, pages of 64
      const maxNewTokens = size(640, 200)
      const run = small.generate([1, 300, 301], { ...endless, seed: 1, maxNewTokens })
      let most = 0
      for await (const _ of run) most = Math.max(most, small.stats().kvPagesUsed)
      expect((await run).tokens).toHaveLength(maxNewTokens)
      expect(most).toBe(2)
    })
  })

  describe('the same request has the same bytes', () => {
    test('among others', async () => {
      const options = { maxNewTokens: size(40, 10), seed: 42 }
      const tokens = model.tokenizer.encode(prompt)
      const text = (await model.generate(prompt, options)).text
      const logits = await model.logits(tokens)
      const [again, otherSeed, logitsAgain] = await Promise.all([
        model.generate(prompt, options),
        model.generate(prompt, { ...options, seed: 43 }),
        model.logits(tokens),
        ...Array.from({ length: size(6, 3) }, (_, i) =>
          model.generate('The king', { maxNewTokens: size(30, 8), temperature: i }),
        ),
      ])
      expect(again.text).toBe(text)
      expect(otherSeed.text).not.toBe(text)
      expect(sameBits(logitsAgain, logits)).toBe(true)
    })

    test('whoever draws: the device, or the host, which tells log-probabilities', async () => {
      const draws = [
        { temperature: 0 },
        {},
        { temperature: 1.5, topK: 100, topP: 0.8, minP: 0.01 },
        {
          temperature: 1,
          topK: 0,
          topP: 1,
          minP: 0.05,
          frequencyPenalty: 0.5,
          presencePenalty: 0.5,
        },
        { temperature: 1.2, topK: 300, lastNTokens: -1 }, // more than a device lists
      ].map((options) => ({ ...options, seed: 9, maxNewTokens: size(40, 10) }))
      const together = await Promise.all(draws.map((options) => model.generate(prompt, options)))
      for (const [i, options] of draws.entries()) {
        const { tokens } = await model.generate(prompt, { ...options, logprobs: 1 })
        expect(together[i]?.tokens).toEqual(tokens)
      }
    })

    test('however the prompt is cut', async () => {
      const tokens = Array.from({ length: size(600, 200) }, (_, i) => 100 + ((37 * i) % 3000))
      const want = await model.logits(tokens)
      await using other = await load(mini, { maxBatchTokens: 50 })
      expect(sameBits(await other.logits(tokens), want)).toBe(true)
    })

    test('with a beginning that was computed before', async () => {
      const long = [1, ...Array.from({ length: 150 }, (_, i) => 20 + ((7 * i) % 400))]
      const options = { ...endless, maxNewTokens: size(30, 8) }
      const first = await model.generate(long, options)
      const again = await model.generate(long, options)
      expect([first.usage.cachedTokens, again.usage.cachedTokens]).toEqual([0, 128])
      expect(again.tokens).toEqual(first.tokens)
      const longer = [...long, ...first.tokens, ...long.slice(1, 50)]
      const warm = await model.generate(longer, options)
      await using fresh = await load(mini)
      const cold = await fresh.generate(longer, options)
      expect([warm.usage.cachedTokens, cold.usage.cachedTokens]).toEqual([128, 0])
      expect(warm.tokens).toEqual(cold.tokens)
    })

    test('with tokens guessed, in fewer steps', async () => {
      const text = 'And the king said unto them, Go ye out.\n'.repeat(size(6, 4))
      const { logitBias } = endless
      const maxNewTokens = size(60, 20)
      for (const options of [{ temperature: 0 }, { temperature: 0.6, seed: 4, logprobs: 2 }]) {
        const request = { ...options, logitBias, maxNewTokens }
        const plain = await model.generate(text, request)
        const guessed = await model.generate(text, { ...request, speculation: { minNgram: 1 } })
        expect(plain.tokens.length).toBe(maxNewTokens)
        expect(guessed.text).toBe(plain.text)
        expect(guessed.tokens).toEqual(plain.tokens)
        expect(guessed.logprobs).toEqual(plain.logprobs)
        expect(plain.usage.guessedTokens).toBe(0)
        expect(guessed.usage.guessedTokens).toBeGreaterThan(0)
      }
      const before = model.stats().steps
      const { usage } = await model.generate(text, {
        temperature: 0,
        repetitionPenalty: 1,
        maxNewTokens,
        logitBias: { [model.tokenizer.encode('king').at(-1) as number]: 100 },
        speculation: true,
      })
      expect(usage.acceptedTokens).toBeGreaterThan((2 / 3) * maxNewTokens)
      // One step begins with the prompt, which the cache may shorten but never spares.
      expect(model.stats().steps - before).toBe(usage.completionTokens - usage.acceptedTokens)
    })

    test('for a consumer that sleeps, whose sequence pauses and no other', async () => {
      const options = { ...endless, maxNewTokens: size(800, 90) }
      const slow = model.generate(prompt, options)
      const stream = slow[Symbol.asyncIterator]()
      await stream.next()
      const { text } = await model.generate(prompt, options)
      await sleep(100)
      const { completionTokens } = model.stats()
      await sleep(100)
      expect(model.stats().completionTokens).toBe(completionTokens)
      let [received, chunks, chunk] = ['', 1, await stream.next()]
      for (; !chunk.done; ++chunks, chunk = await stream.next()) received += chunk.value.text
      expect((await slow).text).toBe(text)
      expect(text.endsWith(received)).toBe(true)
      expect(chunks).toBeGreaterThan(64)
    })
  })

  test('the time spent computing is told apart from the rest', async () => {
    const before = model.stats().computeMs
    const started = performance.now()
    await model.generate(prompt, { maxNewTokens: size(20, 5), temperature: 0 })
    const spent = model.stats().computeMs - before
    expect(spent).toBeGreaterThan(0)
    expect(spent).toBeLessThan(performance.now() - started)
    expect(model.stats().computeMs - before).toBe(spent)
  })

  test('limits: a prompt that is too long, a text that fills the context, a queue that is full', async () => {
    await using small = await load(mini, { contextLength: 40, maxSequences: 1, maxQueue: 1 })
    const tokens = (n: number) => Array.from({ length: n }, (_, i) => 100 + i)
    await expect(small.generate(tokens(41))).rejects.toMatchObject({ code: 'ERR_CONTEXT_LENGTH' })
    const full = await small.generate(tokens(36), { ...endless, maxNewTokens: 50 })
    expect([full.tokens.length, full.finishReason]).toEqual([4, 'length'])
    const running = small.generate(tokens(4), endless)
    const waiting = small.generate(tokens(5), { ...endless, maxNewTokens: 2 })
    const refused = small.generate(tokens(6))
    await expect(refused).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' })
    running.cancel()
    expect((await waiting).tokens).toHaveLength(2)
  })
})
