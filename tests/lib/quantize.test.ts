// SPDX-License-Identifier: Apache-2.0
// quantizeModel() and `maestrale quantize`: options, results, and jobs that are stopped and leave nothing behind.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { loadModel, type QuantizeOptions, quantizeModel } from '../../lib/index.js'

const main = fileURLToPath(new URL('../../dist/esm/cli/main.js', import.meta.url))
const vectors = (name: string) => fileURLToPath(new URL(`../vectors/${name}`, import.meta.url))
const adapter = fileURLToPath(new URL('../../models/adapter-midjourney', import.meta.url))
const mini = vectors('mini/mini-q8_0.gguf')

let folder: string
let output: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'maestrale-quantize-'))
  output = join(folder, 'out.gguf')
})
afterEach(() => rmSync(folder, { recursive: true }))

describe('quantizeModel', () => {
  test('writes a model that loads, and says what it wrote', async () => {
    const reports: number[] = []
    const result = await quantizeModel(mini, output, {
      type: 'q4_k_m',
      onProgress: ({ loaded, total }) => reports.push(loaded / total),
    })
    expect(result.size).toBe(statSync(output).size)
    expect(result.size).toBeLessThan(0.7 * statSync(mini).size)
    expect(result.relativeError).toBeGreaterThan(0.05)
    expect(result.relativeError).toBeLessThan(0.1)
    expect(reports[0]).toBe(0)
    expect(reports.at(-1)).toBe(1)
    expect(reports).toEqual([...reports].sort((a, b) => a - b))
    await using model = await loadModel(output)
    expect(model.info.quantization).toEqual(result.quantization)
    expect(model.info).toMatchObject({ slidingWindow: 256, slidingWindowSource: 'metadata' })
    const { text } = await model.generate('And it came to pass,', {
      temperature: 0,
      maxNewTokens: 8,
    })
    expect(text).toMatch(/^ \w+/)
  })

  test.each<[object, string]>([
    [{}, "type must be 'f32', 'f16', 'bf16', 'q8_0'"],
    [{ type: 'iq4_xs' }, "received 'iq4_xs'"],
    [{ type: 'q4_0', threads: 0 }, 'threads must be'],
    [{ type: 'q4_0', slidingWindow: -1 }, 'slidingWindow must be'],
    [{ type: 'q4_0', nonsense: 1 }, "unknown option 'nonsense'"],
  ])('%j is refused', async (options, message) => {
    const failure = quantizeModel(mini, output, options as QuantizeOptions)
    await expect(failure).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
    await expect(failure).rejects.toThrow(message)
    expect(readdirSync(folder)).toEqual([])
  })

  test('the input is never overwritten', async () => {
    const copy = join(folder, 'in.gguf')
    writeFileSync(copy, readFileSync(vectors('models/hd128-q8_0.gguf')))
    await expect(quantizeModel(copy, copy, { type: 'q4_0' })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
    })
    expect(readFileSync(copy)).toEqual(readFileSync(vectors('models/hd128-q8_0.gguf')))
  })

  test('a signal stops it with its reason and leaves nothing', async () => {
    const controller = new AbortController()
    const job = quantizeModel(mini, output, {
      type: 'q4_k_m',
      threads: 1,
      signal: controller.signal,
      onProgress: ({ loaded }) => loaded > 0 && controller.abort(new Error('enough')),
    })
    await expect(job).rejects.toThrow('enough')
    expect(readdirSync(folder)).toEqual([])
    await expect(
      quantizeModel(mini, output, { type: 'q4_0', signal: AbortSignal.abort(new Error('before')) }),
    ).rejects.toThrow('before')
  })

  test('what onProgress throws stops it', async () => {
    const onProgress = () => {
      throw new Error('no progress wanted')
    }
    await expect(
      quantizeModel(mini, output, { type: 'q4_k_m', threads: 1, onProgress }),
    ).rejects.toThrow('no progress wanted')
    expect(readdirSync(folder)).toEqual([])
  })
})

describe('loadModel with quantization', () => {
  test.each<[object, string]>([
    [{ quantization: 'q9' }, "quantization must be 'nf4', 'fp4', 'f32'"],
    [{ doubleQuant: 1 }, 'doubleQuant must be a boolean'],
    [{ doubleQuant: true }, "doubleQuant must be false unless quantization is 'nf4' or 'fp4'"],
    [{ doubleQuant: true, quantization: 'q4_0' }, 'doubleQuant must be false unless'],
  ])('%j is refused', async (options, message) => {
    const failure = loadModel(vectors('hf/swa16'), options)
    await expect(failure).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' })
    await expect(failure).rejects.toThrow(message)
  })

  test('GGUF files have no NF4', async () => {
    const type = 'nf4' as QuantizeOptions['type']
    await expect(quantizeModel(mini, output, { type })).rejects.toThrow('type must be')
  })
})

describe('maestrale quantize', () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', input: '' })

  test('prints one JSON object', () => {
    const { status, stdout, stderr } = run(
      ...['quantize', vectors('hf/hd128'), output, '--type', 'Q5_K_M', '--sliding-window', 'none'],
      '--json',
    )
    expect([status, stderr]).toEqual([0, ''])
    const report = JSON.parse(stdout)
    expect(report).toMatchObject({ output, type: 'q5_k_m', size: statSync(output).size })
    expect(report.quantization).toEqual({ f32: 5, q5_k: 13, q6_k: 3 })
    expect(JSON.parse(run('inspect', output, '--json').stdout).config.slidingWindow).toBe(0)
  })

  test('run quantises while loading', () => {
    const args = [
      'run',
      'mini',
      'The king',
      '-n',
      '4',
      '-t',
      '0',
      '--json',
      '--quantization',
      'q4_0',
    ]
    const { status, stdout } = run(...args)
    expect(status).toBe(0)
    expect(JSON.parse(stdout).usage.completionTokens).toBeGreaterThan(0)
  })

  test.each([
    [[], "required option '--type <type>' not specified"],
    [['--type', 'q9'], "argument 'q9' is invalid. Allowed choices are f32, f16"],
  ])('wrong use %j ends with 2', (args, message) => {
    const { status, stderr } = run('quantize', mini, output, ...args)
    expect(status).toBe(2)
    expect(stderr).toContain(message)
  })
})

// A job of a process of its own, which is sent `signal` when its unfinished file has appeared.
async function interrupted(signal: NodeJS.Signals, args: string[]) {
  const child = spawn(process.execPath, [main, ...args], { stdio: 'ignore' })
  const exit = once(child, 'exit')
  while (child.exitCode === null && readdirSync(folder).length === 0) await sleep(1)
  child.kill(signal)
  const [, killedBy] = await exit
  return killedBy
}

describe('a job that is interrupted from outside', () => {
  test.each<[NodeJS.Signals, string]>([
    ['SIGINT', 'quantize'],
    ['SIGTERM', 'quantize'],
    ['SIGINT', 'pack'],
    ['SIGINT', 'merge'],
  ])('%s ends %s and leaves no unfinished file', async (signal, command) => {
    const quantize = ['--type', 'q4_k_m', '--threads', '1']
    const lines: Record<string, string[]> = {
      quantize: [mini, output, ...quantize],
      pack: [mini, output],
      merge: [mini, adapter, output, '--format', 'safetensors', '--threads', '1'],
    }
    expect(await interrupted(signal, [command, ...(lines[command] ?? [])])).toBe(signal)
    // Packing and merging are so short that the signal may come when they are done.
    expect(
      readdirSync(folder).filter((name) => command === 'quantize' || name !== 'out.gguf'),
    ).toEqual([])
  })

  test('SIGKILL leaves no file of that name', async () => {
    await interrupted('SIGKILL', ['quantize', mini, output, '--type', 'q4_k_m', '--threads', '1'])
    expect(readdirSync(folder)).not.toContain('out.gguf')
  })
})
