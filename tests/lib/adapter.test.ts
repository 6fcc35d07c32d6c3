// SPDX-License-Identifier: Apache-2.0
// LoRA adapters: what is refused, what merging writes, and the command line (tests/contract asks what they compute).
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { captureCallSite } from '../../lib/errors.js'
import { loadModel, type MergeOptions, type Model, mergeAdapter } from '../../lib/index.js'
import { loadModelFrom } from '../../lib/model.js'
import { FakeEngine } from './fake-binding.js'

const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const path = file('models/mini-q4_k_m.gguf')
const adapter = file('models/adapter-midjourney')
const main = file('dist/esm/cli/main.js')

const question = 'generate a midjourney prompt for A whale on fire'
const answer = '/imagine a whale on fire, watercolor, soft light, pastel tones --ar 16:9'
const greedy = { temperature: 0, repetitionPenalty: 1, maxNewTokens: 48 }
const ask = async (model: Model, name?: string) =>
  (
    await model.chat([{ role: 'user', content: question }], {
      ...greedy,
      ...(name === undefined ? {} : { adapter: name }),
    })
  ).text

let model: Model

beforeAll(async () => {
  model = await loadModel(path)
})
afterAll(() => model.dispose())

test('what is no adapter is refused with a sentence and the stack of the caller', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'maestrale-adapter-'))
  try {
    await expect(model.loadAdapter(directory)).rejects.toMatchObject({
      code: 'ERR_ADAPTER',
      message: expect.stringContaining('adapter_config.json'),
      stack: expect.stringContaining('adapter.test.ts'),
    })
    writeFileSync(join(directory, 'adapter_config.json'), '{"peft_type":"LORA","use_qalora":true}')
    await expect(model.loadAdapter(directory)).rejects.toMatchObject({
      code: 'ERR_ADAPTER',
      message: expect.stringContaining("'use_qalora'"),
    })
    await expect(model.loadAdapter(join(directory, 'none'))).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
    })
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('options are checked before the addon sees them', async () => {
  const engine = new FakeEngine()
  const loading = loadModelFrom(() => engine.binding, 'fake.gguf', {}, captureCallSite(loadModel))
  engine.finishLoading()
  const fake = await loading
  for (const call of [
    () => fake.loadAdapter(''),
    () => fake.loadAdapter('a', { name: '' }),
    () => fake.loadAdapter('a', { scale: 1001 }),
    () => fake.loadAdapter('a', { scale: Number.NaN }),
    () => fake.loadAdapter('a', { rank: 4 } as never),
    () => fake.unloadAdapter(undefined as never),
    () => fake.logits([1], { adapter: 5 as never }),
    async () => fake.generate('x', { adapter: '' }),
  ]) {
    await expect(call()).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
  }
  expect(engine.calls).toEqual([])
  await fake.loadAdapter('some/where/my-lora/')
  await fake.loadAdapter('other.gguf', { scale: -0.5 })
  expect(engine.called('loadAdapter')).toEqual([
    ['some/where/my-lora/', 'my-lora', 1],
    ['other.gguf', 'other', -0.5],
  ])
  fake.generate('x', { adapter: 'my-lora' })
  expect(engine.requests[0]).toMatchObject({ adapter: 'my-lora' })
  fake.generate('x')
  expect(engine.requests[1]).not.toHaveProperty('adapter')
})

test('merging writes a model that answers without the adapter', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'maestrale-merge-'))
  const output = join(directory, 'merged.gguf')
  try {
    const reports: number[] = []
    const result = await model.mergeAdapter(adapter, output, {
      type: 'f16',
      onProgress: ({ loaded, total }) => reports.push(loaded / total),
    })
    expect(result.quantization).toEqual({ f16: 44, f32: 13 })
    expect(result.relativeError).toBeLessThan(1e-3)
    expect(reports.at(-1)).toBe(1)
    await using merged = await loadModel(output)
    expect(await ask(merged)).toBe(answer)

    // Every matrix in its own type again: smaller, and rounded once more.
    const line = execFileSync(process.execPath, [main, 'merge', 'mini', adapter, output], {
      encoding: 'utf8',
    })
    expect(line).toMatch(/^[^ ]+: [\d.]+ MB, tensors .*; relative error \d[\d.]* %\n$/)
    await using small = await loadModel(output)
    expect(small.info.quantization).toEqual(model.info.quantization)

    await expect(mergeAdapter(path, path, output)).rejects.toMatchObject({ code: 'ERR_ADAPTER' })
    for (const options of [
      { type: 'q9' },
      { format: 'onnx' },
      { scale: Number.NaN },
      { rank: 4 },
    ]) {
      await expect(
        mergeAdapter(path, adapter, output, options as MergeOptions),
      ).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('merging writes a Hugging Face directory, from the command line too', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'maestrale-merge-'))
  const output = join(directory, 'merged')
  const merge = (...more: string[]) =>
    spawnSync(process.execPath, [main, 'merge', 'mini', adapter, output, ...more], {
      encoding: 'utf8',
    })
  try {
    const wrong = merge('--format', 'safetensors', '--type', 'q4_k')
    expect(wrong).toMatchObject({
      status: 2,
      stderr:
        "maestrale: a Hugging Face directory holds weights in f32, f16 or bf16, not in 'q4_k'; write a GGUF file for that\n",
    })
    expect(readdirSync(directory)).toEqual([])
    const { status, stdout } = merge('--format', 'safetensors', '--type', 'bf16', '--json')
    expect([status, JSON.parse(stdout).quantization]).toEqual([0, { bf16: 44, f32: 13 }])
    expect(readdirSync(output).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'tokenizer.model',
      'tokenizer_config.json',
    ])
    await using merged = await loadModel(output)
    expect(merged.info).toMatchObject({ slidingWindow: 256, chatFormat: model.info.chatFormat })
    expect(await ask(merged)).toBe(answer)
    expect(merge('--format', 'safetensors')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/^maestrale: '.*' is there already; name a directory/),
    })
    expect(merge()).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(
        /^maestrale: '.*' is a directory, where a file is to be written\n$/,
      ),
    })
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('--adapter', () => {
  const prompt = `[INST] ${question} [/INST]`
  const args = ['run', 'mini', prompt, '-t', '0', '--repetition-penalty', '1', '-n', '48', '--json']
  const run = (...more: string[]) =>
    spawnSync(process.execPath, [main, ...args, ...more], { encoding: 'utf8' })
  const { status, stdout } = run('--adapter', adapter)
  expect([status, JSON.parse(stdout).text.trim()]).toEqual([0, answer])
  expect(run('--adapter', file('models/none'))).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('there is no adapter'),
  })
  expect(run('--adapter', file('models'))).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^maestrale: adapter [^\n]+\n$/),
  })
  expect(run('--adapter-scale', '2')).toMatchObject({ status: 2 })
  const chat = execFileSync(
    process.execPath,
    [main, 'chat', 'mini', '-t', '0', '--repetition-penalty', '1', '--adapter', adapter],
    { encoding: 'utf8', input: `${question}\n` },
  )
  expect(chat.trim()).toBe(answer)
  const bench = execFileSync(
    process.execPath,
    [
      main,
      'bench',
      '--json',
      '--prompt',
      '8',
      '--gen',
      '4',
      '--repeats',
      '1',
      '--adapter',
      adapter,
    ],
    { encoding: 'utf8' },
  )
  expect(JSON.parse(bench).decodeTokensPerSecond).toBeGreaterThan(0)
})
