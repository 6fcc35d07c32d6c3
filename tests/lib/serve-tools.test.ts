// SPDX-License-Identifier: Apache-2.0
// What the small model cannot show of lib/server, against a binding without an engine: calls of functions, a reader that
// is slow, and a run that fails when its stream has begun.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { Model } from '../../lib/index.js'
import { loadModelFrom } from '../../lib/model.js'
import { DONE, FakeEngine } from './fake-binding.js'
import { parseEvents, TestServer } from './serve-client.js'

const CHAT = '/v1/chat/completions'
const TEXT = '/v1/completions'
const CALLS = 5
const SPECIAL = ['<s>', '</s>', '[INST]', '[/INST]', '[TOOL_CALLS]', '[TOOL_RESULTS]', '[PREFIX]']

let engine: FakeEngine
let model: Model
let server: TestServer

beforeEach(async () => {
  engine = new FakeEngine()
  const vocabulary = engine.model.vocabulary()
  const specialTokens = Object.fromEntries(SPECIAL.map((name, i) => [name, i + 1]))
  for (const name of ['[AVAILABLE_TOOLS]', '[/AVAILABLE_TOOLS]', '[/TOOL_RESULTS]']) {
    specialTokens[name] = Object.keys(specialTokens).length + 1
  }
  engine.model.vocabulary = () => ({ ...vocabulary, specialTokens })
  const loading = loadModelFrom(() => engine.binding, 'model.gguf', {}, {})
  engine.finishLoading()
  model = await loading
  server = await TestServer.start(model)
})
afterEach(() => server.server.close(0))

/** The id of the latest of `count` requests, when it is there. */
async function request(count = 1): Promise<number> {
  await expect.poll(() => engine.requests.length).toBe(count)
  return engine.requests.at(-1)?.id ?? 0
}

describe('calls of functions', () => {
  const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }]
  const body = { messages: [{ role: 'user', content: 'Weather in Genoa?' }], tools }
  const source = '[{"name": "weather", "arguments": {"city": "Genoa"}, "id": "abcdefghi"}]'
  const call = {
    id: 'abcdefghi',
    type: 'function',
    function: { name: 'weather', arguments: '{"city":"Genoa"}' },
  }

  async function answerWith(text: string, announcement: number): Promise<void> {
    const id = await request()
    engine.say(id, '', announcement)
    engine.say(id, text.slice(0, 9), 20)
    engine.say(id, text.slice(9), 21)
    engine.emit({ id, done: DONE })
  }

  test('come as such', async () => {
    const asked = server.ask(CHAT, body)
    await answerWith(source, CALLS)
    const [choice] = (await asked).body.choices
    expect(choice).toMatchObject({
      message: { role: 'assistant', content: null, tool_calls: [call] },
      finish_reason: 'tool_calls',
    })
  })

  test('come in one piece of a stream, none of their source as content', async () => {
    const asked = server.events(CHAT, body)
    await answerWith(source, CALLS)
    const choices = (await asked).map((event) => event.choices[0])
    expect(choices.map(({ delta }) => delta)).toEqual([
      { role: 'assistant', content: '' },
      { tool_calls: [{ index: 0, ...call }] },
      {},
    ])
    expect(choices.at(-1).finish_reason).toBe('tool_calls')
  })

  test('that were cut off, and a text that looks like them, are content', async () => {
    for (const [text, announcement, pieces] of [
      [source.slice(0, 30), CALLS, 1],
      [source, 20, 2],
    ] as const) {
      engine.requests.length = 0
      const asked = server.events(CHAT, body)
      await answerWith(text, announcement)
      const choices = (await asked).map((event) => event.choices[0])
      const contents = choices.flatMap(({ delta }) => delta.content || [])
      expect([contents.join(''), contents.length]).toEqual([text, pieces])
      expect(choices.at(-1).finish_reason).toBe('stop')
    }
  })

  test('can be told what they gave, in the words of clients', async () => {
    const messages = [
      { role: 'developer', content: 'Be brief.' },
      ...body.messages,
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: call.id, content: '{"celsius": 21}' },
    ]
    const asked = server.ask(CHAT, { messages, tools })
    const id = await request()
    expect(JSON.stringify(engine.requests[0]?.prompt)).toContain('celsius')
    engine.emit({ id, done: DONE })
    expect((await asked).status).toBe(200)
  })
})

test('a run that fails in the middle of its stream ends it with an error, without [DONE]', async () => {
  const asked = server.post(TEXT, { prompt: 'x', stream: true })
  const id = await request()
  engine.say(id, 'abc', 10)
  const response = await asked
  engine.emit({ id, error: { code: 'ERR_DEVICE', message: 'The GPU is gone.' } })
  const events = parseEvents(await response.text())
  expect(events).toMatchObject([
    { choices: [{ text: 'abc' }] },
    { error: { message: 'The GPU is gone.', type: 'server_error', code: 'ERR_DEVICE' } },
  ])
})

test.each([
  ['ERR_OUT_OF_MEMORY', 503, 'out_of_memory'],
  ['ERR_ADAPTER', 404, 'model_not_found'],
  ['ERR_INTERNAL', 500, 'ERR_INTERNAL'],
])('%s at the start is a status', async (code, status, word) => {
  const asked = server.ask(TEXT, { prompt: 'x', stream: true })
  engine.emit({ id: await request(), error: { code, message: 'It failed.' } })
  expect(await asked).toMatchObject({ status, body: { error: { code: word } } })
})

describe('a reader that does not read', () => {
  const MEGABYTE = 'x'.repeat(1 << 20)

  function connectPaused({ url }: TestServer): Socket {
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    socket.pause()
    const body = JSON.stringify({ prompt: 'x', stream: true })
    const head = `host: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`
    socket.write(`POST ${TEXT} HTTP/1.1\r\n${head}\r\n\r\n${body}`)
    return socket
  }

  /** Says more and more until the run is paused. */
  async function fill(id: number): Promise<number> {
    let said = 0
    while (engine.called('pause').length === 0) {
      expect(said, 'megabytes nobody has read').toBeLessThan(200)
      engine.say(id, MEGABYTE, 10)
      said++
      await new Promise(setImmediate)
    }
    return said
  }

  test('pauses its own run, which goes on when it reads', async () => {
    const socket = connectPaused(server)
    const id = await request()
    const said = await fill(id)
    expect(engine.called('pause')).toEqual([[id]])
    const other = server.events(TEXT, { prompt: 'y' })
    const otherId = await request(2)
    engine.say(otherId, 'free', 11)
    engine.emit({ id: otherId, done: DONE })
    expect((await other).map((event) => event.choices[0].text)).toEqual(['free', ''])

    let received = 0
    let end = ''
    socket.on('data', (data) => {
      received += data.length
      end = data.toString().slice(-20)
    })
    socket.resume()
    await expect.poll(() => engine.called('resume')).toEqual([[id]])
    engine.emit({ id, done: DONE })
    await expect.poll(() => end).toContain('[DONE]')
    expect(received).toBeGreaterThan(said * MEGABYTE.length)
    expect(engine.called('cancel')).toEqual([])
    socket.destroy()
  })

  test('for too long is taken for gone', async () => {
    await using impatient = await TestServer.start(model, { stallMs: 300 })
    const socket = connectPaused(impatient)
    const id = await request()
    await fill(id)
    await expect.poll(() => engine.called('cancel')).toEqual([[id]])
    socket.on('error', () => {}).resume()
    await once(socket, 'close')
  })
})
