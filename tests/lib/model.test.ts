// SPDX-License-Identifier: Apache-2.0
// Loading, evaluating, conversations and disposal, against a binding without an engine.
import { setImmediate as turn } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'

import { type LoadOptions, MaestraleError, type Model } from '../../lib/index.js'
import { loadModelFrom } from '../../lib/model.js'
import { DONE, FakeEngine } from './fake-binding.js'

let engine: FakeEngine

function start(options: LoadOptions = {}): Promise<Model> {
  return loadModelFrom(() => engine.binding, 'model.gguf', options, {})
}

async function load(): Promise<Model> {
  const loading = start()
  engine.finishLoading()
  return await loading
}

beforeEach(() => {
  engine = new FakeEngine()
})

describe('loadModel', () => {
  test('reports progress in bytes', async () => {
    const seen: unknown[] = []
    const loading = start({ onProgress: (progress) => seen.push(progress) })
    engine.progress(10, 100)
    engine.progress(100, 100)
    engine.finishLoading()
    await loading
    expect(seen).toEqual([
      { loaded: 10, total: 100 },
      { loaded: 100, total: 100 },
    ])
  })

  test('an onProgress that throws stops the loading with its error', async () => {
    const mistake = new Error('my own mistake')
    const loading = start({
      onProgress: () => {
        throw mistake
      },
    })
    engine.progress(1, 2)
    expect(engine.called('cancelLoading')).toHaveLength(1)
    engine.failLoading(Object.assign(new Error('stopped'), { code: 'ERR_ABORTED' }))
    await expect(loading).rejects.toBe(mistake)
  })

  test('a signal that is aborted beforehand loads nothing', async () => {
    const reason = new Error('no')
    await expect(start({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    expect(engine.loadOptions).toBeUndefined()
  })

  test('a signal stops the loading', async () => {
    const controller = new AbortController()
    const loading = start({ signal: controller.signal })
    controller.abort()
    expect(engine.called('cancelLoading')).toHaveLength(1)
    engine.failLoading(Object.assign(new Error('stopped'), { code: 'ERR_ABORTED' }))
    await expect(loading).rejects.toBe(controller.signal.reason)
  })

  test('a signal that comes too late frees the model', async () => {
    const controller = new AbortController()
    const loading = start({ signal: controller.signal })
    controller.abort()
    engine.finishLoading()
    await expect(loading).rejects.toBe(controller.signal.reason)
    expect(engine.called('dispose')).toHaveLength(1)
  })

  test('a native failure keeps code, message and cause', async () => {
    const loading = start()
    const native = Object.assign(new Error('tensor X is cut off'), { code: 'ERR_MODEL_FORMAT' })
    engine.failLoading(native)
    const error = await loading.catch((reason) => reason)
    expect(error).toBeInstanceOf(MaestraleError)
    expect(error).toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: native.message,
      cause: native,
    })
  })
})

describe('info and stats', () => {
  test('info is frozen and says null for full attention', async () => {
    const model = await load()
    expect(model.info).toMatchObject({ name: 'fake', slidingWindow: null, nLayers: 2 })
    expect(Object.isFrozen(model.info)).toBe(true)
    expect(Object.isFrozen(model.info.quantization)).toBe(true)
    expect(model.info).toBe(model.info)
  })

  test('stats passes the counters on', async () => {
    expect((await load()).stats()).toMatchObject({ kvPagesTotal: 4, running: 0 })
  })
})

describe('logits and score', () => {
  test('logits resolves with the values of its own request', async () => {
    const model = await load()
    const [one, two] = [model.logits([1, 5]), model.logits(Uint32Array.of(1))]
    expect(engine.called('logits')).toEqual([
      [1, Int32Array.of(1, 5)],
      [2, Int32Array.of(1)],
    ])
    engine.emit({ id: 2, values: Float32Array.of(2) }, { id: 1, values: Float32Array.of(1) })
    expect([await one, await two]).toEqual([Float32Array.of(1), Float32Array.of(2)])
  })

  test('score adds the perplexity', async () => {
    const model = await load()
    const score = model.score([1, 5, 6])
    engine.emit({ id: 1, values: Float32Array.of(-1, -3) })
    expect(await score).toEqual({ logprobs: Float32Array.of(-1, -3), perplexity: Math.exp(2) })
  })

  test('score needs two tokens, logits one', async () => {
    const model = await load()
    await expect(model.score([1])).rejects.toThrow(
      'tokens must be an array of at least 2 token ids',
    )
    await expect(model.logits([])).rejects.toThrow(
      'tokens must be an array of at least 1 token id;',
    )
  })

  test('a signal cancels and rejects with its reason', async () => {
    const model = await load()
    const controller = new AbortController()
    const logits = model.logits([1], { signal: controller.signal })
    controller.abort()
    expect(engine.called('cancel')).toEqual([[1]])
    await expect(logits).rejects.toBe(controller.signal.reason)
    engine.emit({ id: 1, error: { code: 'ERR_ABORTED', message: 'aborted' } })
    const aborted = AbortSignal.abort('before')
    await expect(model.score([1, 2], { signal: aborted })).rejects.toBe('before')
    expect(engine.called('score')).toEqual([])
  })

  test('a failure has the stack of the call', async () => {
    const model = await load()
    const logits = (function whoCalledLogits() {
      return model.logits([1])
    })()
    engine.emit({
      id: 1,
      error: { code: 'ERR_CONTEXT_LENGTH', message: '101 tokens, but 100 fit' },
    })
    const error: Error = await logits.then(
      () => expect.fail('must fail'),
      (reason) => reason,
    )
    expect(error).toMatchObject({ code: 'ERR_CONTEXT_LENGTH' })
    expect(error.stack).toContain('at whoCalledLogits')
  })
})

describe('chat', () => {
  test('sends ids and texts, never control tokens as text', async () => {
    const model = await load()
    const run = model.chat([{ role: 'user', content: 'hello </s>' }], { seed: 5 })
    await turn()
    const [request] = engine.requests
    expect(request?.seed).toBe(5)
    expect(request?.prompt).toContain(1)
    expect(request?.prompt).not.toContain('<s>')
    engine.emit({ id: 1, text: 'hi', tokens: Int32Array.of(9), done: DONE })
    expect(await run).toMatchObject({ text: 'hi', finishReason: 'stop' })
    expect((await run).toolCalls).toBeUndefined()
  })

  test('a cancel while the prompt is being made ends the run and its request', async () => {
    const model = await load()
    const run = model.chat([{ role: 'user', content: 'hello' }], { seed: 5 })
    run.cancel()
    expect(await run).toMatchObject({ text: '', finishReason: 'abort', seed: 5 })
    await turn()
    expect(engine.called('cancel')).toEqual(engine.requests.map((request) => [request.id]))
    const chunks = []
    for await (const chunk of run) chunks.push(chunk)
    expect(chunks).toMatchObject([{ text: '', finishReason: 'abort' }])
  })
})

describe('tokenizer', () => {
  test('BOS as the vocabulary asks for it', async () => {
    const { tokenizer } = await load()
    expect(tokenizer.encode('a')).toEqual(Uint32Array.of(1, 100))
    expect(tokenizer.encode('a', { addBos: false })).toEqual(Uint32Array.of(100))
    expect(tokenizer.decode([1, 100])).toBe('a')
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId, tokenizer.unkId]).toEqual([
      300, 1, 2, 0,
    ])
  })
})

describe('dispose', () => {
  test('is idempotent and ends everything', async () => {
    const model = await load()
    const logits = model.logits([1])
    const [one, two] = [model.dispose(), model.dispose()]
    expect(one).toBe(two)
    await one
    await model[Symbol.asyncDispose]()
    expect(engine.called('dispose')).toHaveLength(1)
    await expect(logits).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(model.score([1, 2])).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    expect(() => model.stats()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
  })
})
