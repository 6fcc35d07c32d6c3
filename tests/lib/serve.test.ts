// SPDX-License-Identifier: Apache-2.0
// The endpoints of `maestrale serve` over the small model: what they answer is what the library gives, in OpenAI's shape,
// in one piece and as a stream, alone and together with others.
import { fileURLToPath } from 'node:url'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { loadModel, type Model } from '../../lib/index.js'
import { TestServer } from './serve-client.js'

const models = (name: string) => fileURLToPath(new URL(`../../models/${name}`, import.meta.url))
const CHAT = '/v1/chat/completions'
const TEXT = '/v1/completions'
const prompt = 'And it came to pass, when the ship had sailed,'
const messages = [{ role: 'user' as const, content: 'Tell me a story about a whale.' }]
const whale = {
  role: 'user' as const,
  content: 'generate a midjourney prompt for A whale on fire',
}

let model: Model
let server: TestServer

beforeAll(async () => {
  model = await loadModel(models('mini-q4_k_m.gguf'))
  await model.loadAdapter(models('adapter-midjourney'), { name: 'midjourney' })
  server = await TestServer.start(model)
})
afterAll(async () => {
  await server.server.close(0)
  await model.dispose()
})

test('/health, also for HEAD', async () => {
  expect(await server.ask('/health')).toMatchObject({ status: 200, body: { status: 'ok' } })
  const head = await server.fetch('/health?probe=1', { method: 'HEAD' })
  expect([head.status, await head.text()]).toEqual([200, ''])
})

test('/v1/models lists the model and its adapters, which can be looked up', async () => {
  const { body } = await server.ask('/v1/models')
  const about = { object: 'model', max_model_len: model.info.contextLength }
  expect(body).toMatchObject({
    object: 'list',
    data: [
      { id: 'maestrale-mini', ...about },
      { id: 'midjourney', parent: 'maestrale-mini', ...about },
    ],
  })
  for (const entry of body.data) {
    expect((await server.ask(`/v1/models/${entry.id}`)).body).toEqual(entry)
  }
  expect((await server.ask('/v1/models/nobody')).status).toBe(404)
})

describe('completions of texts', () => {
  test('are those of model.generate()', async () => {
    const own = await model.generate(prompt, { maxNewTokens: 24, seed: 5 })
    const { status, body } = await server.ask(TEXT, { prompt, max_tokens: 24, seed: 5 })
    expect(status).toBe(200)
    expect(body).toEqual({
      id: expect.stringMatching(/^cmpl-\w+$/),
      object: 'text_completion',
      created: expect.any(Number),
      model: 'maestrale-mini',
      choices: [{ index: 0, text: own.text, logprobs: null, finish_reason: 'length' }],
      usage: {
        prompt_tokens: own.usage.promptTokens,
        completion_tokens: 24,
        total_tokens: own.usage.promptTokens + 24,
        prompt_tokens_details: { cached_tokens: expect.any(Number) },
      },
    })
  })

  test('take token ids, and a list of one prompt', async () => {
    const text = async (given: unknown) =>
      (await server.ask(TEXT, { prompt: given, max_tokens: 8, seed: 1 })).body.choices[0].text
    const tokens = [...model.tokenizer.encode(prompt)]
    const expected = await text(prompt)
    expect(expected).not.toBe('')
    for (const given of [tokens, [prompt], [tokens]]) expect(await text(given)).toBe(expected)
  })

  test('stream the same text', async () => {
    const body = { prompt, max_tokens: 40, seed: 9 }
    const whole = (await server.ask(TEXT, body)).body
    const events = await server.events(TEXT, body)
    expect(events.length).toBeGreaterThan(10)
    expect(events.map((event) => event.choices[0].text).join('')).toBe(whole.choices[0].text)
    const reasons = events.map((event) => event.choices[0].finish_reason)
    expect(reasons.at(-1)).toBe(whole.choices[0].finish_reason)
    expect(reasons.slice(0, -1).every((reason) => reason === null)).toBe(true)
    expect(new Set(events.map((event) => event.id)).size).toBe(1)
    expect(events.some((event) => 'usage' in event)).toBe(false)
  })

  test('report log-probabilities, in pieces the same', async () => {
    const own = await model.generate(prompt, { maxNewTokens: 12, seed: 2, logprobs: 3 })
    const body = { prompt, max_tokens: 12, seed: 2, logprobs: 3 }
    const { logprobs, text } = (await server.ask(TEXT, body)).body.choices[0]
    expect(logprobs.token_logprobs).toEqual(own.logprobs?.map(({ logprob }) => logprob))
    expect(logprobs.tokens.join('')).toBe(text)
    expect(logprobs.top_logprobs.map((top: object) => Object.values(top))).toEqual(
      own.logprobs?.map(({ top }) => top.map(({ logprob }) => logprob)),
    )
    logprobs.text_offset.forEach((start: number, i: number) => {
      expect(text.slice(start).startsWith(logprobs.tokens[i])).toBe(true)
    })
    const pieces = (await server.events(TEXT, body)).flatMap(
      (event) => event.choices[0].logprobs ?? [],
    )
    for (const key of ['tokens', 'token_logprobs', 'text_offset', 'top_logprobs']) {
      expect(pieces.flatMap((piece) => piece[key])).toEqual(logprobs[key])
    }
  })
})

describe('completions of conversations', () => {
  test('are those of model.chat()', async () => {
    const own = await model.chat(messages, { maxNewTokens: 20, seed: 4 })
    const { body } = await server.ask(CHAT, { messages, max_completion_tokens: 20, seed: 4 })
    expect(body).toMatchObject({ object: 'chat.completion', model: 'maestrale-mini' })
    expect(body.choices).toEqual([
      {
        index: 0,
        message: { role: 'assistant', content: own.text, refusal: null },
        logprobs: null,
        finish_reason: own.finishReason,
      },
    ])
  })

  test('stream the same text: the role first, the reason last, usage when asked for', async () => {
    const body = { messages, max_tokens: 200, seed: 4 }
    const whole = (await server.ask(CHAT, body)).body
    const events = await server.events(CHAT, { ...body, stream_options: { include_usage: true } })
    const last = events.pop()
    expect(last.choices).toEqual([])
    expect(last.usage).toMatchObject({ ...whole.usage, prompt_tokens_details: {} })
    expect(events.every(({ object }) => object === 'chat.completion.chunk')).toBe(true)
    expect(events.every(({ usage }) => usage === null)).toBe(true)
    const deltas = events.map((event) => event.choices[0].delta)
    expect(deltas[0]).toEqual({ role: 'assistant', content: '' })
    expect(deltas.at(-1)).toEqual({})
    expect(deltas.map((delta) => delta.content ?? '').join('')).toBe(
      whole.choices[0].message.content,
    )
    expect(events.at(-1)?.choices[0].finish_reason).toBe(whole.choices[0].finish_reason)
  })

  test('report log-probabilities with as many alternatives as asked for', async () => {
    const own = await model.chat(messages, { maxNewTokens: 6, seed: 2, logprobs: 2 })
    const ask = async (more: object) =>
      (await server.ask(CHAT, { messages, max_tokens: 6, seed: 2, ...more })).body.choices[0]
    const { content } = (await ask({ logprobs: true, top_logprobs: 2 })).logprobs
    expect(content.map((item: { logprob: number }) => item.logprob)).toEqual(
      own.logprobs?.map(({ logprob }) => logprob),
    )
    const [first] = content
    expect(first.top_logprobs).toHaveLength(2)
    expect(Buffer.from(first.bytes).toString()).toBe(first.token)
    const alone = (await ask({ logprobs: true })).logprobs.content
    expect(alone.map((item: { top_logprobs: unknown[] }) => item.top_logprobs)).toEqual(
      Array(6).fill([]),
    )
    expect((await ask({})).logprobs).toBeNull()
  })

  test('a part of a character has no bytes', async () => {
    const [first] = model.tokenizer.encode('\u{1f600}', { addBos: false }).slice(-4)
    const bias = { [String(first)]: 100 }
    const body = { messages, max_tokens: 1, logit_bias: bias, temperature: 0, logprobs: true }
    const [item] = (await server.ask(CHAT, body)).body.choices[0].logprobs.content
    expect(item).toMatchObject({ token: '\ufffd', bytes: null })
  })

  test('the name of an adapter as model is that adapter', async () => {
    const options = { temperature: 0, repetition_penalty: 1 }
    const ask = async (name?: string) => {
      const { body } = await server.ask(CHAT, { messages: [whale], model: name, ...options })
      return [body.model, body.choices[0].message.content]
    }
    const [named, text] = await ask('midjourney')
    expect(named).toBe('midjourney')
    expect(text).toMatch(/^\/imagine a whale on fire/)
    expect((await ask('maestrale-mini'))[1]).not.toBe(text)
    expect(await ask('maestrale-mini')).toEqual(await ask())
  })
})

test('every option arrives', async () => {
  const cases: [object, object][] = [
    [{ temperature: 0 }, { temperature: 0 }],
    [
      { temperature: 2, top_k: 3 },
      { temperature: 2, topK: 3 },
    ],
    [
      { temperature: 2, top_p: 0.2 },
      { temperature: 2, topP: 0.2 },
    ],
    [
      { temperature: 2, min_p: 0.5 },
      { temperature: 2, minP: 0.5 },
    ],
    [{ frequency_penalty: 1 }, { frequencyPenalty: 1 }],
    [{ presence_penalty: 1 }, { presencePenalty: 1 }],
    [{ repetition_penalty: 1.9 }, { repetitionPenalty: 1.9 }],
    [{ logit_bias: { 262: 30 } }, { logitBias: { 262: 30 } }],
    [{ stop: [' the', ','] }, { stop: [' the', ','] }],
    [{ stop: ' were' }, { stop: ' were' }],
  ]
  const plain = (await model.generate(prompt, { seed: 3, maxNewTokens: 32 })).text
  for (const [theirs, ours] of cases) {
    const own = await model.generate(prompt, { seed: 3, maxNewTokens: 32, ...ours })
    const { body } = await server.ask(TEXT, { prompt, seed: 3, max_tokens: 32, ...theirs })
    expect(body.choices[0]).toMatchObject({ text: own.text, finish_reason: own.finishReason })
    expect(own.text, JSON.stringify(ours)).not.toBe(plain)
  }
})

test('what clients send besides is ignored, and null is absent', async () => {
  const body = { prompt, seed: 3, max_tokens: 4 }
  const extra = { user: 'me', store: true, metadata: {}, stop: null, n: 1, temperature: null }
  const { choices } = (await server.ask(TEXT, body)).body
  expect((await server.ask(TEXT, { ...body, ...extra })).body.choices).toEqual(choices)
})

test("a server's own options stand in for what a request leaves out", async () => {
  await using other = await TestServer.start(model, {
    name: 'other',
    defaults: { maxNewTokens: 3, seed: 8 },
  })
  const expected = (await model.generate(prompt, { maxNewTokens: 3, seed: 8 })).text
  const { body } = await other.ask(TEXT, { prompt, model: 'other' })
  expect(body).toMatchObject({ model: 'other', choices: [{ text: expected }] })
  const longer = (await other.ask(TEXT, { prompt, max_tokens: 5 })).body
  expect(longer.usage.completion_tokens).toBe(5)
})

test('eight streams together have the bytes that each has alone', async () => {
  const bodies = Array.from({ length: 8 }, (_, i) => ({
    messages: [{ role: 'user', content: `Tell me story number ${i}.` }],
    seed: i,
    max_tokens: 60,
    ...(i % 2 ? { model: 'midjourney' } : {}),
  }))
  const texts = async (body: object) =>
    (await server.events(CHAT, body)).map((event) => event.choices[0].delta.content ?? '').join('')
  const alone: string[] = []
  for (const body of bodies) alone.push(await texts(body))
  expect(new Set(alone).size).toBe(8)
  expect(await Promise.all(bodies.map(texts))).toEqual(alone)
})

test('/metrics has the counters of the engine and of answers', async () => {
  await server.ask(TEXT, { prompt, max_tokens: 4 })
  await server.ask('/nowhere')
  const response = await server.fetch('/metrics')
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
  const text = await response.text()
  const stats = model.stats()
  const value = (name: string) =>
    Number(new RegExp(`^maestrale_${name} (\\S+)$`, 'm').exec(text)?.[1])
  expect(value('generation_tokens_total')).toBe(stats.completionTokens)
  expect(value('prompt_tokens_total')).toBe(stats.promptTokens)
  expect(value('steps_total')).toBe(stats.steps)
  expect(value('num_requests_running')).toBe(0)
  expect(value('adapter_requests{adapter="midjourney"}')).toBe(0)
  expect(value('http_responses_total{status="404"}')).toBeGreaterThan(0)
  for (const line of text.trimEnd().split('\n')) {
    expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"]*",?)+\})? [\d.e+-]+)$/)
  }
})

describe("OpenAI's own client", () => {
  const client = () => new OpenAI({ apiKey: 'none', baseURL: `${server.url}/v1`, maxRetries: 0 })
  const body = { model: 'maestrale-mini', messages, seed: 4, max_tokens: 20 }

  test('reads an answer and a stream', async () => {
    const { choices } = await client().chat.completions.create(body)
    expect(choices[0]?.message.content).toBeTruthy()
    const stream = client().chat.completions.stream({ ...body, stream: true })
    expect(await stream.finalContent()).toBe(choices[0]?.message.content)
    const pieces: string[] = []
    const request = { model: 'maestrale-mini', prompt, max_tokens: 8, seed: 1 }
    for await (const event of await client().completions.create({ ...request, stream: true })) {
      pieces.push(event.choices[0]?.text ?? '')
    }
    const whole = await client().completions.create(request)
    expect(pieces.join('')).toBe(whole.choices[0]?.text)
  })

  test('lists models and understands errors', async () => {
    const { data } = await client().models.list()
    expect(data.map(({ id }) => id)).toEqual(['maestrale-mini', 'midjourney'])
    const refused = client().chat.completions.create({ ...body, temperature: -1 })
    await expect(refused).rejects.toMatchObject({ status: 400, param: 'temperature' })
  })
})
