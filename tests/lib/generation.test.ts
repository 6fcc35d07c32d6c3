// SPDX-License-Identifier: Apache-2.0
// The run object: iterating and awaiting in every order, aborts in every phase, backpressure, failures.
import { getEventListeners } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { beforeEach, describe, expect, test, vi } from 'vitest'

import type { Chunk, Generation, Model } from '../../lib/index.js'
import { loadModelFrom } from '../../lib/model.js'
import { DONE, FakeEngine } from './fake-binding.js'

let engine: FakeEngine
let model: Model

beforeEach(async () => {
  engine = new FakeEngine()
  const loading = loadModelFrom(() => engine.binding, 'model.gguf', {}, {})
  engine.finishLoading()
  model = await loading
})

async function collect(run: Generation): Promise<Chunk[]> {
  const chunks: Chunk[] = []
  for await (const chunk of run) chunks.push(chunk)
  return chunks
}

async function failure(run: Generation): Promise<Error> {
  return run.then(
    () => expect.fail('the run must fail'),
    (error) => error as Error,
  )
}

function speak(id = 1): void {
  engine.say(id, 'Hel', 10, 11)
  engine.say(id, 'lo', 12)
  engine.emit({ id, text: '!', tokens: Int32Array.of(13, 14), done: DONE })
}

describe('streaming and awaiting', () => {
  test('the run starts without being looked at', () => {
    model.generate('x')
    expect(engine.requests.map((request) => request.prompt)).toEqual(['x'])
  })

  test('chunks arrive in order, the last one says why', async () => {
    const run = model.generate('x')
    const chunks = collect(run)
    await turn()
    speak()
    expect(await chunks).toEqual([
      { text: 'Hel', tokens: Uint32Array.of(10, 11), index: 0 },
      { text: 'lo', tokens: Uint32Array.of(12), index: 1 },
      { text: '!', tokens: Uint32Array.of(13, 14), index: 2, finishReason: 'stop' },
    ])
  })

  test('awaiting gives the whole result', async () => {
    const run = model.generate('x')
    speak()
    expect(await run).toEqual({
      text: 'Hello!',
      tokens: Uint32Array.of(10, 11, 12, 13, 14),
      finishReason: 'stop',
      usage: {
        promptTokens: 3,
        cachedTokens: 1,
        completionTokens: 5,
        guessedTokens: 3,
        acceptedTokens: 2,
      },
      timings: { queueMs: 1, prefillMs: 2, ttftMs: 3, decodeMs: 400, tokensPerSecond: 10 },
      seed: 7,
    })
  })

  test('iterating and awaiting together', async () => {
    const run = model.generate('x')
    const both = Promise.all([collect(run), run])
    await turn()
    speak()
    const [chunks, result] = await both
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(result.text)
  })

  test('awaiting first and iterating afterwards replays the text as one chunk', async () => {
    const run = model.generate('x')
    speak()
    await run
    expect(await collect(run)).toEqual([
      {
        text: 'Hello!',
        tokens: Uint32Array.of(10, 11, 12, 13, 14),
        index: 0,
        finishReason: 'stop',
      },
    ])
  })

  test('iterating late replays what was said and then streams', async () => {
    const run = model.generate('x')
    engine.say(1, 'a', 4)
    engine.say(1, 'b', 5)
    const chunks = collect(run)
    await turn()
    engine.emit({ id: 1, text: 'c', tokens: Int32Array.of(6), done: DONE })
    expect((await chunks).map(({ text, index }) => [text, index])).toEqual([
      ['ab', 0],
      ['c', 1],
    ])
  })

  test('two streams each see everything', async () => {
    const run = model.generate('x')
    const streams = Promise.all([collect(run), collect(run)])
    await turn()
    speak()
    const [one, two] = await streams
    expect(one).toEqual(two)
    expect(one).toHaveLength(3)
  })

  test('events that carry nothing make no chunk', async () => {
    const run = model.generate('x')
    const chunks = collect(run)
    await turn()
    engine.emit({ id: 1 }, { id: 1, text: '', tokens: new Int32Array(0) })
    speak()
    expect(await chunks).toHaveLength(3)
  })

  test('log-probabilities follow their tokens', async () => {
    const run = model.generate('x', { logprobs: 1 })
    const entry = (token: number) => ({ token, logprob: -0.5, top: [{ token, logprob: -0.5 }] })
    engine.emit({ id: 1, text: 'a', tokens: Int32Array.of(4), logprobs: [entry(4)] })
    engine.emit({ id: 1, text: 'b', tokens: Int32Array.of(5), logprobs: [entry(5)], done: DONE })
    expect((await run).logprobs).toEqual([entry(4), entry(5)])
    expect((await collect(run))[0]?.logprobs).toEqual([entry(4), entry(5)])
  })

  test('events of one step reach their own runs', async () => {
    const [one, two] = [model.generate('x'), model.generate('y')]
    engine.emit(
      { id: 1, text: 'one', tokens: Int32Array.of(4), done: DONE },
      { id: 2, text: 'two', tokens: Int32Array.of(5), done: DONE },
    )
    expect([(await one).text, (await two).text]).toEqual(['one', 'two'])
  })

  test('a rate needs two tokens', async () => {
    const run = model.generate('x')
    engine.emit({ id: 1, done: { ...DONE, completionTokens: 1, decodeMs: 0 } })
    expect((await run).timings.tokensPerSecond).toBe(0)
  })
})

describe('aborting', () => {
  test('an aborted signal rejects before anything is queued', async () => {
    const reason = new Error('too late')
    const run = model.generate('x', { signal: AbortSignal.abort(reason) })
    await expect(run).rejects.toBe(reason)
    await expect(collect(run)).rejects.toBe(reason)
    expect(engine.requests).toEqual([])
  })

  test('a signal during the run keeps the partial text', async () => {
    const controller = new AbortController()
    const run = model.generate('x', { signal: controller.signal })
    const chunks = collect(run)
    await turn()
    engine.say(1, 'par', 4)
    controller.abort()
    expect(engine.called('cancel')).toEqual([[1]])
    engine.emit({ id: 1, done: { ...DONE, finishReason: 'abort' } })
    expect(await run).toMatchObject({ text: 'par', finishReason: 'abort' })
    expect((await chunks).map((chunk) => [chunk.text, chunk.finishReason])).toEqual([
      ['par', undefined],
      ['', 'abort'],
    ])
  })

  test('break cancels and the result resolves', async () => {
    const run = model.generate('x')
    const loop = (async () => {
      for await (const _ of run) break
    })()
    await turn()
    engine.say(1, 'par', 4)
    await loop
    expect(engine.called('cancel')).toEqual([[1]])
    engine.emit({ id: 1, done: { ...DONE, finishReason: 'abort' } })
    expect(await run).toMatchObject({ text: 'par', finishReason: 'abort' })
  })

  test('break after the end cancels nothing', async () => {
    const run = model.generate('x')
    speak()
    await run
    for await (const _ of run) break
    expect(engine.called('cancel')).toEqual([])
    expect((await run).finishReason).toBe('stop')
  })

  test('cancel() is idempotent', async () => {
    const run = model.generate('x')
    run.cancel()
    run.cancel()
    expect(engine.called('cancel')).toEqual([[1]])
    engine.emit({ id: 1, done: { ...DONE, finishReason: 'abort' } })
    await run
    run.cancel()
    expect(engine.called('cancel')).toEqual([[1]])
  })

  test('a run that has ended lets go of its signal', async () => {
    const controller = new AbortController()
    const run = model.generate('x', { signal: controller.signal })
    speak()
    await run
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    controller.abort()
    expect(engine.called('cancel')).toEqual([])
  })

  test('asyncDispose cancels and waits', async () => {
    const run = model.generate('x')
    const disposal = run[Symbol.asyncDispose]()
    expect(engine.called('cancel')).toEqual([[1]])
    engine.emit({ id: 1, done: { ...DONE, finishReason: 'abort' } })
    await disposal
  })
})

describe('backpressure', () => {
  test('a slow consumer pauses its sequence above 64 chunks and resumes it below 16', async () => {
    const run = model.generate('x')
    const stream = run[Symbol.asyncIterator]()
    const first = stream.next()
    engine.say(1, 'a', 4)
    await first
    for (let i = 0; i < 64; i++) engine.say(1, 'a', 4)
    expect(engine.called('pause')).toEqual([])
    engine.say(1, 'a', 4)
    expect(engine.called('pause')).toEqual([[1]])
    for (let i = 0; i < 49; i++) await stream.next()
    expect(engine.called('resume')).toEqual([])
    await stream.next()
    expect(engine.called('resume')).toEqual([[1]])
    expect(engine.called('pause')).toHaveLength(1)
  })

  test('nobody iterating never pauses, and nothing is lost', async () => {
    const run = model.generate('x')
    const unread = run[Symbol.asyncIterator]()
    for (let i = 0; i < 1000; i++) engine.say(1, 'a', 4)
    expect(engine.called('pause')).toEqual([])
    const first = await unread.next()
    expect(first.value?.text).toHaveLength(1000)
  })
})

describe('failures', () => {
  test('an error event rejects with code and the caller as stack', async () => {
    const run = (function whoCalledGenerate() {
      return model.generate('x')
    })()
    engine.emit({ id: 1, error: { code: 'ERR_OUT_OF_MEMORY', message: 'no pages left' } })
    const error = await failure(run)
    expect(error).toMatchObject({ name: 'MaestraleError', code: 'ERR_OUT_OF_MEMORY' })
    expect(error.stack).toContain('at whoCalledGenerate')
    expect(error.stack).toMatch(/^MaestraleError: no pages left\n/)
    await expect(collect(run)).rejects.toBe(error)
  })

  test('chunks before the failure are delivered, then the stream throws once', async () => {
    const run = model.generate('x')
    const stream = run[Symbol.asyncIterator]()
    const first = stream.next()
    engine.say(1, 'a', 4)
    engine.emit({ id: 1, error: { code: 'ERR_DEVICE', message: 'gone' } })
    expect((await first).value?.text).toBe('a')
    await expect(stream.next()).rejects.toMatchObject({ code: 'ERR_DEVICE' })
    expect(await stream.next()).toEqual({ done: true, value: undefined })
  })

  test('a refusal of the engine rejects the run', async () => {
    engine.refusal = Object.assign(new Error('queue holds 4 requests'), { code: 'ERR_QUEUE_FULL' })
    const error = await failure(model.generate('x'))
    expect(error).toMatchObject({ code: 'ERR_QUEUE_FULL', message: 'queue holds 4 requests' })
    expect(error.cause).toBeInstanceOf(Error)
  })

  test('an unknown native code is an internal error', async () => {
    const run = model.generate('x')
    engine.emit({ id: 1, error: { code: 'ERR_NEWS', message: 'what' } })
    await expect(run).rejects.toMatchObject({ code: 'ERR_INTERNAL' })
  })

  test('a failure that nobody looks at raises no unhandledRejection', async () => {
    const unhandled = vi.fn()
    process.on('unhandledRejection', unhandled)
    model.generate('x')
    engine.emit({ id: 1, error: { code: 'ERR_DEVICE', message: 'gone' } })
    await turn()
    await turn()
    process.off('unhandledRejection', unhandled)
    expect(unhandled).not.toHaveBeenCalled()
  })

  test('events after the end are ignored', async () => {
    const run = model.generate('x')
    speak()
    const before = await run
    engine.say(1, 'more', 9)
    expect(await run).toBe(before)
  })

  test('dispose() fails what is still running', async () => {
    const run = model.generate('x')
    await model.dispose()
    await expect(run).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.generate('y')).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })
})
