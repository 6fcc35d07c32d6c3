// SPDX-License-Identifier: Apache-2.0
// What `maestrale serve` refuses: the status, the field that is wrong, and that it goes on serving afterwards.
import { once } from 'node:events'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

import { loadModel, type Model } from '../../lib/index.js'
import { MAX_BODY_BYTES } from '../../lib/server/body.js'
import { TestServer } from './serve-client.js'

const path = fileURLToPath(new URL('../../models/mini-q4_k_m.gguf', import.meta.url))
const CHAT = '/v1/chat/completions'
const TEXT = '/v1/completions'
const messages = [{ role: 'user', content: 'Translate to French: the dog' }]
const valid = { prompt: 'And', max_tokens: 1, seed: 1 }

let model: Model
let server: TestServer

beforeAll(async () => {
  model = await loadModel(path, { maxSequences: 1, maxQueue: 1, contextLength: 2000 })
  server = await TestServer.start(model)
})
afterEach(async () => {
  expect((await server.ask(TEXT, valid)).status).toBe(200)
})
afterAll(async () => {
  await server.server.close(0)
  await model.dispose()
})

function refusal(status: number, message: unknown, param: string | null, code: unknown) {
  const type = status === 429 ? 'rate_limit_error' : 'invalid_request_error'
  return { status, body: { error: { message, type, param, code } } }
}

describe('a wrong field is 400 and named', () => {
  test.each<[string, object]>([
    ['temperature', { temperature: -1 }],
    ['temperature', { temperature: 'warm' }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_completion_tokens', { max_completion_tokens: 1.5 }],
    ['top_p', { top_p: 2 }],
    ['top_k', { top_k: -3 }],
    ['min_p', { min_p: 2 }],
    ['seed', { seed: -1 }],
    ['stop', { stop: [''] }],
    ['stop', { stop: 5 }],
    ['frequency_penalty', { frequency_penalty: [] }],
    ['presence_penalty', { presence_penalty: 1000 }],
    ['repetition_penalty', { repetition_penalty: 0 }],
    ['logit_bias', { logit_bias: { the: 1 } }],
    ['logit_bias', { logit_bias: { 99999: 1 } }],
    ['logit_bias', { logit_bias: [1] }],
    ['logprobs', { logprobs: 21 }],
    ['stream', { stream: 'yes' }],
    ['model', { model: 5 }],
    ['prompt', { prompt: [1, -5] }],
    ['prompt', { prompt: [1, 99999] }],
    ['prompt', { prompt: [] }],
    ['prompt', { prompt: {} }],
    ['prompt', { prompt: ['one', 'two'] }],
  ])('%s: %j', async (param, wrong) => {
    const answer = await server.ask(TEXT, { ...valid, ...wrong })
    expect(answer).toMatchObject(
      refusal(400, expect.stringContaining(param), param, 'invalid_value'),
    )
  })

  test.each<[string, object]>([
    ['messages', { messages: 'hello' }],
    ['messages', { messages: [] }],
    ['messages', { messages: [{ role: 'nobody', content: '' }] }],
    ['messages', { messages: [null] }],
    ['messages', { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] }],
    ['messages', { messages: [{ role: 'assistant', content: 'me' }] }],
    ['top_logprobs', { top_logprobs: 3 }],
    ['logprobs', { logprobs: 3 }],
    ['tools', { tools: {} }],
    ['tool_choice', { tool_choice: 'required' }],
  ])('%s of a conversation: %j', async (param, wrong) => {
    for (const stream of [false, true]) {
      const answer = await server.ask(CHAT, { messages, max_tokens: 1, stream, ...wrong })
      expect(answer).toMatchObject(refusal(400, expect.any(String), param, 'invalid_value'))
    }
  })

  test.each<[string, object]>([
    ['n', { n: 2 }],
    ['best_of', { best_of: 2 }],
    ['echo', { echo: true }],
    ['suffix', { suffix: '.' }],
    ['min_tokens', { min_tokens: 4 }],
    ['ignore_eos', { ignore_eos: true }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['modalities', { modalities: ['audio'] }],
    ['functions', { functions: [] }],
    ['guided_json', { guided_json: {} }],
  ])('what is not supported: %s', async (param, wrong) => {
    const answer = await server.ask(TEXT, { ...valid, ...wrong })
    expect(answer).toMatchObject(
      refusal(400, expect.stringContaining(param), param, 'unsupported_parameter'),
    )
  })

  test.each([
    [TEXT, 'prompt'],
    [CHAT, 'messages'],
  ])('%s without %s', async (endpoint, param) => {
    expect(await server.ask(endpoint, { max_tokens: 1 })).toMatchObject(
      refusal(400, `${param} is missing.`, param, 'missing_required_parameter'),
    )
  })
})

test('tools are refused for a model without a format for them', async () => {
  const tools = [{ type: 'function', function: { name: 'f' } }]
  expect(await server.ask(CHAT, { messages, tools })).toMatchObject({ status: 400 })
  const answer = await server.ask(CHAT, { messages, tools, tool_choice: 'none', max_tokens: 1 })
  expect(answer.status).toBe(200)
})

test('a prompt that does not fit is 400', async () => {
  const long = Array(2000).fill(5)
  const content = 'word '.repeat(3000)
  const whole = (param: string) =>
    refusal(400, expect.stringMatching(/\d+/), param, 'context_length_exceeded')
  for (const stream of [false, true]) {
    const more = { stream, max_tokens: 1 }
    expect(await server.ask(TEXT, { prompt: [...long, 5], ...more })).toMatchObject(whole('prompt'))
    expect(await server.ask(TEXT, { prompt: Array(9000).fill(5), ...more })).toMatchObject(
      whole('prompt'),
    )
    expect(
      await server.ask(CHAT, { messages: [{ role: 'user', content }], ...more }),
    ).toMatchObject(whole('messages'))
  }
  expect((await server.ask(TEXT, { prompt: long, max_tokens: 1 })).status).toBe(200)
})

test('a full queue is 429 and says when to come again', async () => {
  const controller = new AbortController()
  const { signal } = controller
  const endless = { prompt: 'And', max_tokens: 1900, logit_bias: { 2: -100 }, stream: true }
  const first = await server.post(TEXT, endless, { signal })
  const second = server.post(TEXT, endless, { signal }).catch(() => {})
  await expect.poll(() => model.stats().queued).toBe(1)
  for (const stream of [false, true]) {
    const answer = await server.ask(TEXT, { ...valid, stream })
    expect(answer).toMatchObject(refusal(429, expect.any(String), null, 'queue_full'))
    expect(answer.headers.get('retry-after')).toBe('1')
  }
  controller.abort()
  await Promise.all([first.text().catch(() => {}), second])
  await expect.poll(() => model.stats().running + model.stats().queued).toBe(0)
})

test.each([
  ['no JSON', '{"prompt": ', /^The body is not JSON: /],
  ['nothing', '', /^The body is not JSON: /],
  ['a list', '[1]', /^The body must be a JSON object/],
  ['null', 'null', /^The body must be a JSON object/],
  ['far too deep', `{"x":${'['.repeat(9e5)}${']'.repeat(9e5)}}`, /nested more than 64 levels/],
])('a body that is %s is 400', async (_, body, message) => {
  expect(await server.ask(TEXT, body)).toMatchObject(
    refusal(400, expect.stringMatching(message), null, null),
  )
})

test('a body that is not UTF-8 is 400, and UTF-8 arrives', async () => {
  const bytes = Buffer.from('{"prompt": "caf\u00e9", "max_tokens": 1, "seed": 1}', 'latin1')
  const refused = await server.post(TEXT, '', { body: bytes })
  expect([refused.status, await refused.json()]).toEqual([
    400,
    { error: expect.objectContaining({ message: 'The body is not UTF-8.' }) },
  ])
  const text = 'caf\u00e9 \u{1f600}'
  const { usage } = (await server.ask(TEXT, { ...valid, prompt: text })).body
  expect(usage.prompt_tokens).toBe(model.tokenizer.encode(text).length)
})

test('a body that is not said to be JSON, or is compressed, is 415', async () => {
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp']) {
    const answer = await server.ask(TEXT, valid, { headers: { 'content-type': type } })
    expect(answer).toMatchObject(refusal(415, expect.any(String), null, null))
  }
  const answer = await server.ask(TEXT, valid, { headers: { 'content-encoding': 'gzip' } })
  expect(answer.status).toBe(415)
  const headers = { 'content-type': 'application/json;charset=utf-8' }
  expect((await server.ask(TEXT, valid, { headers })).status).toBe(200)
})

describe('a body that is too large is 413', () => {
  const size = MAX_BODY_BYTES + 1

  test('by what it says', async () => {
    const answer = await server.ask(TEXT, 'x'.repeat(size))
    expect(answer).toMatchObject(refusal(413, expect.any(String), null, 'body_too_large'))
  })

  test('by what comes, on a connection that can be used again', async () => {
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
    const head = 'host: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n'
    socket.write(`POST ${TEXT} HTTP/1.1\r\n${head}`)
    socket.write(`${size.toString(16)}\r\n${'x'.repeat(size)}\r\n`)
    let text = ''
    socket.on('data', (data) => {
      text += data
    })
    await expect.poll(() => text).toMatch(/^HTTP\/1\.1 413 .*"body_too_large"/s)
    // More of it, to be thrown away, its end, and another request.
    socket.write(`${size.toString(16)}\r\n${'y'.repeat(size)}\r\n0\r\n\r\n`)
    text = ''
    socket.write('GET /health HTTP/1.1\r\nhost: x\r\n\r\n')
    await expect.poll(() => text).toMatch(/^HTTP\/1\.1 200 /)
    socket.end()
    await once(socket, 'close')
  })
})

test('an unknown path is 404, a wrong method 405', async () => {
  for (const path of ['/', '/v1', '/v1/nothing', '/v1/models/a%ZZ', '/__proto__', '//']) {
    expect((await server.ask(path)).status, path).toBe(404)
  }
  expect(await server.ask('/nothing')).toMatchObject(
    refusal(404, 'There is no /nothing here.', null, 'unknown_url'),
  )
  for (const [path, method, allow] of [
    [TEXT, 'GET', 'POST'],
    [CHAT, 'DELETE', 'POST'],
    ['/health', 'POST', 'GET, HEAD'],
    ['/v1/models', 'OPTIONS', 'GET, HEAD'],
  ] as const) {
    const answer = await server.ask(path, undefined, { method })
    expect(answer).toMatchObject(refusal(405, expect.any(String), null, 'method_not_allowed'))
    expect(answer.headers.get('allow')).toBe(allow)
  }
})

test('an unknown model is 404 and says which there are', async () => {
  const answer = await server.ask(TEXT, { ...valid, model: 'gpt-4' })
  const message = "There is no model 'gpt-4' here; there is maestrale-mini."
  expect(answer).toMatchObject(refusal(404, message, 'model', 'model_not_found'))
})

test('without the key everything but /health is 401', async () => {
  await using locked = await TestServer.start(model, { apiKey: 'open sesame' })
  for (const authorization of ['', 'Bearer', 'Bearer open', 'Basic open sesame', 'open sesame']) {
    const headers = authorization ? { authorization } : {}
    for (const path of ['/v1/models', '/metrics', '/nothing']) {
      const answer = await locked.ask(path, undefined, { headers })
      expect(answer).toMatchObject(refusal(401, expect.any(String), null, 'invalid_api_key'))
    }
    expect((await locked.ask(TEXT, valid, { headers })).status).toBe(401)
    expect((await locked.ask('/health', undefined, { headers })).status).toBe(200)
  }
  const headers = { authorization: 'bearer open sesame' }
  expect((await locked.ask('/v1/models', undefined, { headers })).status).toBe(200)
})
