// SPDX-License-Identifier: Apache-2.0
// How requests and the server of `maestrale serve` end: clients that leave, signals, and the command itself.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

import { loadModel, type Model } from '../../lib/index.js'
import { parseEvents, TestServer } from './serve-client.js'

const path = fileURLToPath(new URL('../../models/mini-q4_k_m.gguf', import.meta.url))
const main = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url))
const adapter = fileURLToPath(new URL('../../models/adapter-midjourney', import.meta.url))
const CHAT = '/v1/chat/completions'
const TEXT = '/v1/completions'
// Its end-of-text token is banned, so that it runs for many seconds.
const endless = { prompt: 'And it came to pass,', max_tokens: 30_000, logit_bias: { 2: -100 } }

let model: Model

beforeAll(async () => {
  model = await loadModel(path)
})
afterAll(() => model.dispose())

const working = () => model.stats().running + model.stats().queued

describe('a client that leaves', () => {
  test.each([true, false])('ends its run at once, stream: %s', async (stream) => {
    await using server = await TestServer.start(model)
    const controller = new AbortController()
    const asked = server.post(TEXT, { ...endless, stream }, { signal: controller.signal })
    asked.catch(() => {})
    if (stream) await (await asked).body?.getReader().read()
    await expect.poll(working).toBe(1)
    const { completionTokens } = model.stats()
    controller.abort()
    await expect.poll(working, { timeout: 2000, interval: 5 }).toBe(0)
    expect(model.stats().completionTokens - completionTokens).toBeLessThan(3000)
    expect((await server.ask('/health')).status).toBe(200)
  })

  test('in the middle of its body leaves nothing behind', async () => {
    await using server = await TestServer.start(model)
    const controller = new AbortController()
    const body = new ReadableStream({
      start: (stream) => stream.enqueue(Buffer.from('{"prompt": ')),
    })
    const init = { body, duplex: 'half', signal: controller.signal } as RequestInit
    const asked = server.post(TEXT, '', init).catch((error: Error) => error.name)
    await sleep(50)
    controller.abort()
    expect(await asked).toBe('AbortError')
    expect((await server.ask('/health')).status).toBe(200)
  })
})

describe('close()', () => {
  test('lets what runs end, and takes nothing more', async () => {
    const server = await TestServer.start(model)
    const body = { prompt: 'And', max_tokens: 400, seed: 1, logit_bias: { 2: -100 } }
    const running = await server.post(TEXT, { ...body, stream: true })
    const closed = server.server.close(60_000)
    await expect(server.ask('/health')).rejects.toThrow('fetch failed')
    const events = parseEvents(await running.text()) as { choices: [{ text: string }] }[]
    expect(events.pop()).toBe('[DONE]')
    const text = events.map(({ choices }) => choices[0].text).join('')
    const whole = model.generate('And', { maxNewTokens: 400, seed: 1, logitBias: { 2: -100 } })
    expect(text).toBe((await whole).text)
    await closed
  })

  test('waits for no connection that is kept for a next request', async () => {
    const server = await TestServer.start(model)
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
    const body = JSON.stringify({ prompt: 'And', max_tokens: 1500, logit_bias: { 2: -100 } })
    const head = `host: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`
    socket.write(`POST ${TEXT} HTTP/1.1\r\n${head}\r\n\r\n${body}`)
    socket.resume()
    await expect.poll(working, { interval: 5 }).toBe(1)
    const closed = server.server.close(60_000)
    await expect.poll(working, { timeout: 10_000 }).toBe(0)
    // Well before an idle connection ends by itself, after five seconds.
    const waiting = performance.now()
    await closed
    expect(performance.now() - waiting).toBeLessThan(3000)
  })

  test('aborts what is still running after the grace period', async () => {
    const server = await TestServer.start(model)
    const stream = await server.post(TEXT, { ...endless, stream: true })
    const whole = server.ask(TEXT, endless)
    await expect.poll(working).toBe(2)
    await server.server.close(200)
    expect(working()).toBe(0)
    const error = { error: { code: 'shutting_down', type: 'server_error' } }
    expect(parseEvents(await stream.text()).at(-1)).toMatchObject(error)
    const answer = await whole
    expect(answer).toMatchObject({ status: 503, body: error })
    expect(answer.headers.get('retry-after')).toBe('5')
  })

  test('answers a request that was still arriving then', async () => {
    const server = await TestServer.start(model)
    let finish = () => {}
    const body = new ReadableStream({
      start: (stream) => {
        stream.enqueue(Buffer.from('{"prompt": '))
        finish = () => {
          stream.enqueue(Buffer.from('"And"}'))
          stream.close()
        }
      },
    })
    const asked = server.ask(TEXT, '', { body, duplex: 'half' } as RequestInit)
    await sleep(50)
    const closed = server.server.close(0)
    await sleep(50)
    finish()
    expect(await asked).toMatchObject({ status: 503, body: { error: { code: 'shutting_down' } } })
    await closed
  })
})

describe('the command', () => {
  const children: ChildProcess[] = []
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
  })

  /** `maestrale serve` on a free port, when it listens. */
  async function serve(args: string[] = [], env: Record<string, string> = {}) {
    const child = spawn(process.execPath, [main, 'serve', '--port', '0', '--json', ...args], {
      env: { ...process.env, ...env },
    })
    children.push(child)
    let errors = ''
    child.stderr.on('data', (data) => {
      errors += data
    })
    const [line] = await once(child.stdout, 'data')
    const report = JSON.parse(String(line))
    return {
      child,
      report,
      ended: once(child, 'exit'),
      errors: () => errors,
      post: (at: string, body: object, headers = {}) =>
        fetch(report.url + at, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...headers },
          body: JSON.stringify(body),
        }),
    }
  }

  test('serves the small model with adapters and options, and ends with 0', async () => {
    const args = ['--adapter', `mj=${adapter}`, '--adapter', adapter, '-n', '3', '--seed', '4']
    const { child, report, ended, errors, post } = await serve(args)
    expect(report).toEqual({
      url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
      model: 'maestrale-mini',
    })
    const { data } = (await (await fetch(`${report.url}/v1/models`)).json()) as {
      data: { id: string }[]
    }
    expect(data.map(({ id }) => id)).toEqual(['maestrale-mini', 'adapter-midjourney', 'mj'])
    const answer = await post(TEXT, { prompt: 'And', model: 'mj' })
    const own = await model.generate('And', { maxNewTokens: 3, seed: 4 })
    expect(((await answer.json()) as { usage: object }).usage).toMatchObject({
      completion_tokens: own.usage.completionTokens,
    })
    child.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
    expect(errors()).toBe('')
  })

  test.each(['SIGINT', 'SIGTERM'] as const)(
    '%s lets running streams end, a second one aborts them; exit status 0',
    async (signal) => {
      const { child, ended, post } = await serve()
      const long = await post(TEXT, { ...endless, stream: true })
      const short = await post(TEXT, { ...endless, max_tokens: 300, stream: true })
      child.kill(signal)
      expect(parseEvents(await short.text()).at(-1)).toBe('[DONE]')
      expect(child.exitCode).toBeNull()
      child.kill(signal)
      expect(parseEvents(await long.text()).at(-1)).toMatchObject({ error: expect.anything() })
      expect(await ended).toEqual([0, null])
    },
  )

  test('--grace 0 waits for nothing', async () => {
    const { child, ended, post } = await serve(['--grace', '0'])
    const answer = await post(CHAT, {
      ...endless,
      messages: [{ role: 'user', content: 'Hi' }],
      stream: true,
    })
    child.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
    expect(parseEvents(await answer.text()).at(-1)).toMatchObject({ error: expect.anything() })
  })

  test.each([
    ['--api-key', ['--api-key', 'secret'], {}],
    ['MAESTRALE_API_KEY', [], { MAESTRALE_API_KEY: 'secret' }],
  ])('%s is asked for', async (_, args, env) => {
    const { post } = await serve(args, env)
    const body = { prompt: 'And', max_tokens: 1 }
    expect((await post(TEXT, body)).status).toBe(401)
    expect((await post(TEXT, body, { authorization: 'Bearer secret' })).status).toBe(200)
  })

  test('warns when everybody can reach it without a key', async () => {
    const open = await serve(['--host', '0.0.0.0'])
    await expect.poll(open.errors).toContain('no --api-key')
  })

  test('says where it listens in words too', async () => {
    const child = spawn(process.execPath, [main, 'serve', '--port', '0', '--model-name', 'small'])
    children.push(child)
    const [line] = await once(child.stdout, 'data')
    expect(String(line)).toMatch(/^small at http:\/\/127\.0\.0\.1:\d+, Ctrl-C ends it\n$/)
  })

  test('a port in use is one sentence and 1', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const child = spawn(process.execPath, [main, 'serve', '--port', String(port)])
    let errors = ''
    child.stderr.on('data', (data) => {
      errors += data
    })
    expect(await once(child, 'exit')).toEqual([1, null])
    expect(errors).toMatch(/^maestrale: [^\n]*address already in use[^\n]*\n$/)
    other.close()
  })

  test.each([
    [['--port', '70000'], '--port must be an integer from 0 to 65535; received 70000'],
    [['--grace', '-1'], '--grace must be a number from 0 to 86400; received -1'],
    [['--api-key', ''], "--api-key must be a non-empty string; received ''"],
    [['--max-queue', '-1'], '--max-queue must be an integer from 0 to 1000000; received -1'],
    [['--adapter', 'mj=nowhere'], "there is no adapter 'nowhere'"],
    [['--adapter', `maestrale-mini=${adapter}`], "the adapter is called 'maestrale-mini'"],
  ])('wrong use: %j', (args, message) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'serve', ...args], {
      timeout: 20_000, // it would serve
      encoding: 'utf8',
    })
    expect(stderr).toContain(message)
    expect([status, stdout]).toEqual([2, ''])
  })
})
