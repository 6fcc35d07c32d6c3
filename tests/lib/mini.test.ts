// SPDX-License-Identifier: Apache-2.0
// The public API and the command line on the model that ships with the package, through the real addon.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { type GenerateOptions, loadModel, loadTokenizer, type Model } from '../../lib/index.js'

const path = fileURLToPath(new URL('../../models/mini-q4_k_m.gguf', import.meta.url))
const main = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url))
const prompt = 'And it came to pass, when the ship had sailed,'

let model: Model

beforeAll(async () => {
  model = await loadModel(path)
})
afterAll(() => model.dispose())

function maestrale(...args: string[]): string {
  return execFileSync(process.execPath, [main, ...args], { encoding: 'utf8', input: '' })
}

describe('generate', () => {
  test('the stream is the result, piece by piece', async () => {
    const run = model.generate(prompt, { maxNewTokens: 48, seed: 3 })
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

  test('a text and its tokens are the same prompt', async () => {
    const options: GenerateOptions = { maxNewTokens: 24, seed: 1 }
    const [one, two] = await Promise.all([
      model.generate(prompt, options),
      model.generate(model.tokenizer.encode(prompt), options),
    ])
    expect(one.text).toBe(two.text)
    expect(one.text).not.toBe('')
  })

  test('the same seed gives the same text among other requests', async () => {
    const options: GenerateOptions = { maxNewTokens: 40, seed: 42 }
    const alone = await model.generate(prompt, options)
    const [again, other] = await Promise.all([
      model.generate(prompt, options),
      model.generate(prompt, { ...options, seed: 43 }),
      ...Array.from({ length: 6 }, () => model.generate('The king', { maxNewTokens: 30 })),
    ])
    expect(again.text).toBe(alone.text)
    expect(other?.text).not.toBe(alone.text)
  })

  test('speculation spares steps and changes nothing', async () => {
    const text = `And the king said unto them, Go ye out.\n`.repeat(6)
    const endless = { [model.tokenizer.eosId]: -Infinity }
    for (const options of [{ temperature: 0 }, { temperature: 0.6, seed: 4, logprobs: 2 }]) {
      const request = { ...options, logitBias: endless, maxNewTokens: 60 }
      const plain = await model.generate(text, request)
      const guessed = await model.generate(text, { ...request, speculation: { minNgram: 1 } })
      expect(plain.tokens.length).toBe(60)
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
      maxNewTokens: 60,
      logitBias: { [model.tokenizer.encode('king').at(-1) as number]: 100 },
      speculation: true,
    })
    expect(usage.acceptedTokens).toBeGreaterThan(40)
    // One step begins with the prompt, which the cache may shorten but never spares.
    expect(model.stats().steps - before).toBe(usage.completionTokens - usage.acceptedTokens)
  })

  test('the time spent computing is told apart from the rest', async () => {
    const before = model.stats().computeMs
    const started = performance.now()
    await model.generate(prompt, { maxNewTokens: 20, temperature: 0 })
    const spent = model.stats().computeMs - before
    expect(spent).toBeGreaterThan(0)
    expect(spent).toBeLessThan(performance.now() - started)
    expect(model.stats().computeMs - before).toBe(spent)
  })

  test('an abort keeps the partial text', async () => {
    const controller = new AbortController()
    const run = model.generate(prompt, {
      maxNewTokens: 100_000,
      logitBias: { [model.tokenizer.eosId]: -Infinity },
      signal: controller.signal,
    })
    let chunks = 0
    for await (const _ of run) if (++chunks === 10) controller.abort()
    const result = await run
    expect(result.finishReason).toBe('abort')
    expect(result.tokens.length).toBeGreaterThanOrEqual(9)
    expect(model.stats().running).toBe(0)
  })

  test('break frees the sequence', async () => {
    const run = model.generate(prompt, { maxNewTokens: 100_000 })
    for await (const _ of run) break
    expect((await run).finishReason).toMatch(/abort|stop/)
    expect(model.stats().running).toBe(0)
  })

  test('a consumer that sleeps stalls neither itself for good nor others', async () => {
    const options: GenerateOptions = {
      maxNewTokens: 400,
      temperature: 0,
      logitBias: { [model.tokenizer.eosId]: -Infinity },
    }
    const slow = model.generate(prompt, options)
    const stream = slow[Symbol.asyncIterator]()
    await stream.next()
    const { text } = await model.generate(prompt, options)
    await sleep(50)
    let [received, chunk] = ['', await stream.next()]
    while (!chunk.done) {
      received += chunk.value.text
      chunk = await stream.next()
    }
    expect((await slow).text).toBe(text)
    expect(text.endsWith(received)).toBe(true)
  })

  test('a stop string ends the text before it', async () => {
    const greedy: GenerateOptions = { maxNewTokens: 30, temperature: 0, repetitionPenalty: 1 }
    const { text } = await model.generate(prompt, greedy)
    const stop = text.slice(8, 14)
    const stopped = await model.generate(prompt, { ...greedy, stop })
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)))
    expect(stopped.finishReason).toBe('stop')
  })

  test('a prompt that is too long is refused with the numbers', async () => {
    await using small = await loadModel(path, { contextLength: 8 })
    await expect(small.generate(prompt)).rejects.toMatchObject({ code: 'ERR_CONTEXT_LENGTH' })
  })
})

test('chat translates, and its answer has no leading space', async () => {
  const { text } = await model.chat(
    [{ role: 'user', content: 'Translate to Spanish: The cat is white.' }],
    { temperature: 0, repetitionPenalty: 1 },
  )
  expect(text).toBe('El gato es blanco.')
})

test('a packed file says what the file it was made of says', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'maestrale-pack-'))
  try {
    const packed = join(directory, 'mini.maestrale')
    expect(maestrale('pack', path, packed)).toContain('MB')
    await using other = await loadModel(packed)
    expect(other.info.parameters).toBe(model.info.parameters)
    const options = { maxNewTokens: 24, seed: 5 }
    expect((await other.generate(prompt, options)).text).toBe(
      (await model.generate(prompt, options)).text,
    )
    expect((await loadTokenizer(packed)).encode(prompt)).toEqual(model.tokenizer.encode(prompt))
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('logits and score agree', async () => {
  const tokens = model.tokenizer.encode(prompt)
  const { vocabSize } = model.info
  const logits = await model.logits(tokens)
  expect(logits).toHaveLength(tokens.length * vocabSize)
  const { logprobs, perplexity } = await model.score(tokens)
  expect(logprobs).toHaveLength(tokens.length - 1)
  logprobs.forEach((logprob, i) => {
    const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize)
    const max = row.reduce((best, x) => Math.max(best, x), -Infinity)
    const sum = row.reduce((total, x) => total + Math.exp(x - max), 0)
    const expected = (row[tokens[i + 1] ?? 0] ?? Number.NaN) - max - Math.log(sum)
    expect(logprob).toBeCloseTo(expected, 3)
  })
  expect(perplexity).toBeGreaterThan(1)
})

test('the tokenizer alone gives the same ids, and its stream never splits a character', async () => {
  const tokenizer = await loadTokenizer(path)
  const text = 'caf\u00e9 \u{1f600} \u6f22'
  const tokens = tokenizer.encode(text)
  expect(tokens).toEqual(model.tokenizer.encode(text))
  const decoder = tokenizer.streamDecoder()
  const pieces = [...tokens].map((token) => decoder.push(token))
  expect(pieces.join('') + decoder.end()).toBe(text)
  expect(pieces.join('')).not.toContain('\ufffd')
})

describe('dispose', () => {
  test('during a run', async () => {
    const doomed = await loadModel(path)
    const run = doomed.generate(prompt, { maxNewTokens: 100_000 })
    const ended = run.then(
      (result) => result.finishReason,
      (error: unknown) => (error as { code: string }).code,
    )
    await doomed.dispose()
    expect(['ERR_DISPOSED', 'abort', 'stop']).toContain(await ended)
    await expect(doomed.generate(prompt)).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })

  test('of the tokenizer too, but for decoders in use', async () => {
    const doomed = await loadModel(path)
    const tokens = doomed.tokenizer.encode(prompt)
    const decoder = doomed.tokenizer.streamDecoder()
    await doomed.dispose()
    const disposed = expect.objectContaining({ code: 'ERR_DISPOSED' })
    expect(() => doomed.tokenizer.encode(prompt)).toThrow(disposed)
    expect(() => doomed.tokenizer.decode(tokens)).toThrow(disposed)
    expect(() => doomed.tokenizer.streamDecoder()).toThrow(disposed)
    const messages = [{ role: 'user' as const, content: prompt }]
    await expect(doomed.tokenizer.applyChatTemplate(messages)).rejects.toThrow(disposed)
    expect([...tokens].map((token) => decoder.push(token)).join('')).toBe(prompt)
    expect(doomed.info.chatFormat).not.toBe('')
  })
})

test('CommonJS', async () => {
  const { loadModel } = createRequire(import.meta.url)('../../dist/cjs/index.js')
  const required: Model = await loadModel(path)
  expect((await required.generate(prompt, { maxNewTokens: 4 })).tokens.length).toBeGreaterThan(0)
  await required.dispose()
})

describe('command line', () => {
  test('run streams the text and says how fast', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'run', '-n', '8'], {
      encoding: 'utf8',
    })
    expect(status).toBe(0)
    expect(stdout.startsWith(prompt)).toBe(true)
    expect(stderr).toMatch(/^\d+ tokens at [\d.]+ tokens\/s, the first one after \d+ ms \(.*\)\n$/)
  })

  test('run --json', () => {
    const report = JSON.parse(maestrale('run', 'mini', prompt, '--json', '-n', '4', '--seed', '5'))
    expect(report).toMatchObject({
      finishReason: 'length',
      seed: 5,
      usage: { completionTokens: 4 },
    })
  })

  test('run --speculate', () => {
    const report = (...args: string[]) =>
      JSON.parse(maestrale('run', 'mini', 'la la la la la', '-t', '0', '--json', ...args))
    const plain = report()
    const guessed = report('--speculate')
    expect(guessed.text).toBe(plain.text)
    expect(plain.usage.guessedTokens).toBe(0)
    expect(guessed.usage.guessedTokens).toBeGreaterThan(0)
  })

  test('inspect --json', () => {
    const report = JSON.parse(maestrale('inspect', '--json'))
    expect(report.config).toMatchObject({ slidingWindow: 256, slidingWindowSource: 'metadata' })
    expect(report.tensors.length).toBeGreaterThan(0)
  })

  test('bench --json has the documented keys', () => {
    const report = JSON.parse(
      maestrale('bench', '--json', '--prompt', '32', '--gen', '8', '--concurrency', '2'),
    )
    expect(Object.keys(report)).toEqual([
      'model',
      'device',
      'isa',
      'threads',
      'loadMs',
      'prompt',
      'gen',
      'concurrency',
      'prefillTokensPerSecond',
      'decodeTokensPerSecond',
      'totalTokensPerSecond',
      'ttftMs',
      'itlMs',
      'peakRssBytes',
      'eventLoopDelayMs',
      'repeats',
    ])
    expect(report.decodeTokensPerSecond).toBeGreaterThan(0)
  })

  test('chat answers the lines of a pipe and keeps the conversation', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'chat', '-t', '0'], {
      encoding: 'utf8',
      input: 'Translate to French: the dog\n/reset\nTranslate to French: the cat\n',
    })
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout.trim().split('\n').length).toBeGreaterThanOrEqual(2)
  })

  test('a reader that leaves ends it quietly', async () => {
    const child = spawn(process.execPath, [main, 'run', '-n', '2000'], { stdio: 'pipe' })
    let errors = ''
    child.stderr.on('data', (data) => {
      errors += data
    })
    child.stdout.once('data', () => child.stdout.destroy())
    expect(await once(child, 'exit')).toEqual([0, null])
    expect(errors).not.toContain('    at ')
  })

  test('a file that is no model is one sentence and 1', () => {
    const { status, stderr } = spawnSync(process.execPath, [main, 'inspect', main], {
      encoding: 'utf8',
    })
    expect(status).toBe(1)
    expect(stderr).toMatch(/^maestrale: [^\n]+\n$/)
  })
})
