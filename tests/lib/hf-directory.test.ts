// SPDX-License-Identifier: Apache-2.0
// A Hugging Face directory through the public API: its sampling defaults, its chat templates, tokenizer.json.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { readGenerationDefaults } from '../../lib/generation-config.js'
import { loadModel, loadTokenizer } from '../../lib/index.js'

const HD128 = fileURLToPath(new URL('../vectors/hf/hd128/', import.meta.url))

let directory: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'maestrale-hf-'))
  for (const name of ['config.json', 'model.safetensors', 'tokenizer.model']) {
    symlinkSync(join(HD128, name), join(directory, name))
  }
})
afterEach(() => rmSync(directory, { recursive: true }))

function write(name: string, value: unknown): void {
  writeFileSync(join(directory, name), typeof value === 'string' ? value : JSON.stringify(value))
}

describe('generation_config.json', () => {
  const read = (config: unknown) => {
    write('generation_config.json', config)
    return readGenerationDefaults(directory)
  }

  test('sets what it says, in our names', async () => {
    expect(await readGenerationDefaults(directory)).toEqual({})
    expect(await readGenerationDefaults(join(directory, 'config.json'))).toEqual({})
    expect(await read({ bos_token_id: 1, eos_token_id: [2, 3], max_length: 20 })).toEqual({})
    expect(
      await read({
        do_sample: true,
        temperature: 0.6,
        top_k: 0,
        top_p: 0.9,
        min_p: 0.1,
        max_new_tokens: 7,
      }),
    ).toEqual({ temperature: 0.6, topK: 0, topP: 0.9, minP: 0.1, maxNewTokens: 7 })
    expect(await read({ do_sample: false, temperature: 0.6 })).toEqual({ temperature: 0 })
    expect(await read({ temperature: null, repetition_penalty: 1.05 })).toEqual({
      repetitionPenalty: 1.05,
      lastNTokens: -1,
    })
  })

  test.each([
    ['{', /no JSON/],
    ['[]', /no JSON object/],
    [{ top_p: 2 }, /'top_p' must be a number from 0 to 1; received 2/],
    [{ temperature: 'hot' }, /'temperature' must be a number/],
    [{ max_new_tokens: -1 }, /'max_new_tokens'/],
  ])('%j is refused', async (config, message) => {
    await expect(read(config)).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringMatching(message),
    })
    await expect(loadModel(directory)).rejects.toMatchObject({ code: 'ERR_MODEL_FORMAT' })
  })

  test('stands in for options that a request leaves out', async () => {
    write('generation_config.json', { do_sample: false, max_new_tokens: 6 })
    await using model = await loadModel(directory)
    expect(model.info.generationDefaults).toEqual({ temperature: 0, maxNewTokens: 6 })
    const prompt = [1, 300, 301]
    const logitBias = { [model.tokenizer.eosId]: -Infinity }
    const greedy = await model.generate(prompt, {
      temperature: 0,
      maxNewTokens: 6,
      logitBias,
      seed: 1,
    })
    const plain = await model.generate(prompt, {
      temperature: undefined as never,
      logitBias,
      seed: 2,
    })
    expect(plain.tokens).toEqual(greedy.tokens)
    expect(plain.tokens).toHaveLength(6)
    const own = await model.generate(prompt, { maxNewTokens: 3, logitBias })
    expect(own.tokens).toHaveLength(3)
  })
})

describe('chat templates', () => {
  const render = async (options: object = {}) => {
    const tokenizer = await loadTokenizer(directory)
    const tokens = await tokenizer.applyChatTemplate([{ role: 'user', content: 'hi' }], options)
    return tokenizer.decode(tokens)
  }
  const tools = [{ type: 'function', function: { name: 'f', description: '', parameters: {} } }]

  test('one of several, by name, another one for tools', async () => {
    write('tokenizer_config.json', {
      chat_template: [
        { name: 'default', template: 'plain {{ messages[0].content }}' },
        { name: 'tool_use', template: 'tools {{ messages[0].content }}' },
      ],
    })
    expect(await render()).toBe('plain hi')
    expect(await render({ tools })).toBe('tools hi')
  })

  test('newer files go before older ones', async () => {
    write('tokenizer_config.json', { chat_template: 'config {{ messages[0].content }}' })
    expect(await render()).toBe('config hi')
    write('chat_template.json', { chat_template: 'json {{ messages[0].content }}' })
    expect(await render()).toBe('json hi')
    write('chat_template.jinja', 'jinja {{ messages[0].content }}')
    expect(await render()).toBe('jinja hi')
    expect(await render({ tools })).toBe('jinja hi')
  })

  test('a damaged list is refused', async () => {
    write('tokenizer_config.json', { chat_template: [{ name: 'default' }] })
    await expect(loadTokenizer(directory)).rejects.toMatchObject({
      code: 'ERR_MODEL_FORMAT',
      message: expect.stringContaining('chat template'),
    })
  })
})

test('inspect shows the config and the tensors', () => {
  const main = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url))
  const inspect = (...args: string[]) =>
    execFileSync(process.execPath, [main, 'inspect', directory, ...args], { encoding: 'utf8' })
  const found = JSON.parse(inspect('--json'))
  expect(found.format).toBe('Hugging Face checkpoint')
  expect(found.config).toMatchObject({ dim: 256, headDim: 128, slidingWindow: 64 })
  expect(found.metadata).toContainEqual({ key: 'model_type', type: 'string', value: 'mistral' })
  expect(found.tensors).toContainEqual(
    expect.objectContaining({ name: 'model.norm.weight', type: 'BF16', shape: [256], bytes: 512 }),
  )
  expect(inspect()).toMatch(/Hugging Face checkpoint, 3\.67 MB[\s\S]*sliding window +64 keys/)
})

test('a tokenizer.json of another kind is refused by name', async () => {
  rmSync(join(directory, 'tokenizer.model'))
  write('tokenizer.json', {
    pre_tokenizer: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: {}, merges: [] },
  })
  for (const load of [loadTokenizer, loadModel]) {
    await expect(load(directory)).rejects.toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringContaining('tekken'),
    })
  }
})
