// SPDX-License-Identifier: Apache-2.0
// The command line on the model that ships with the package, and what no device changes, through the real addon.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { loadModel, loadTokenizer, type Model } from '../../lib/index.js'

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

test('dispose ends the tokenizer too, but for decoders in use', async () => {
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
