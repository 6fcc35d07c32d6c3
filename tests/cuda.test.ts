// SPDX-License-Identifier: Apache-2.0
// device: 'cuda' through the public API: what the tests of the CPU ask, on the simulated GPU. With MAESTRALE_TEST_GPU
// (npm run test:cuda:device) the same on the machine's own GPU, but for the failures that only a simulator
// can make. Without nvcc there is neither simulator nor CUDA back end, and nothing is run.
import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { type LoadOptions, loadModel, type Model } from '../lib/index.js'
import { nmse, readTensors, vectorsPath } from './reference.js'

const file = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url))
const simulator = file('build/libptxsim_cuda.so')
const mini = file('models/mini-q4_k_m.gguf')
const onHardware = Boolean(process.env.MAESTRALE_TEST_GPU)

// The addon asks for the driver when a GPU is first used; checks for defects of kernels are the native tests' task.
if (onHardware) delete process.env.MAESTRALE_CUDA_DRIVER
else process.env.MAESTRALE_CUDA_DRIVER = simulator
process.env.MAESTRALE_PTXSIM = 'cc=86,races=0,initcheck=0,count=0,quiet'

/** On hardware a missing GPU is a failure, which the first test reports. */
async function isUsable(): Promise<boolean> {
  if (onHardware) return true
  if (!existsSync(simulator)) return false
  const reason = await loadModel(mini, { device: 'cuda', maxSequences: 1 }).then(
    (model) => model.dispose(),
    (error: Error) => error.message,
  )
  return !reason?.includes('has no CUDA back end')
}

function load(name: string, options: LoadOptions = {}): Promise<Model> {
  return loadModel(name, {
    device: 'cuda',
    threads: 1,
    contextLength: 512,
    maxSequences: 4,
    ...options,
  })
}

/** Prompts of `vectors` whose keys begin with `prefix`, as logits of the model at `path`. */
async function checkLogits(
  path: string,
  vectors: string,
  { prefix = '', longest = 140, bound = 1e-5 },
) {
  await using model = await load(path)
  expect(model.info.device).toBe('cuda:0')
  const tensors = readTensors(vectors)
  let prompts = 0
  for (const [key, want] of tensors) {
    const length = key.startsWith(prefix) && /len(\d+)\.logits$/.exec(key)?.[1]
    if (!length || Number(length) > longest) continue
    const tokens = tensors.get(`len${length}.tokens`) as Int32Array
    expect(nmse(await model.logits([...tokens]), want as Float32Array), key).toBeLessThan(bound)
    ++prompts
  }
  expect(prompts).toBeGreaterThan(0)
}

describe.skipIf(!(await isUsable()))('cuda', { timeout: 120_000 }, () => {
  describe('logits are those of the reference', () => {
    test.each([
      ['swa16', 16],
      ['hd128', 64],
      ['full', 32],
    ])('%s, below, at and beyond the window', (name, window) =>
      checkLogits(vectorsPath(`models/${name}-bf16.gguf`), `${name}.vectors.safetensors`, {
        longest: 2 * window + 3,
      }),
    )

    const types = readdirSync(vectorsPath('models')).flatMap(
      (name) => /^hd128-(.*)\.gguf$/.exec(name)?.[1]?.toUpperCase() ?? [],
    )
    test.each(types)('%s', (type) => {
      const path = vectorsPath(`models/hd128-${type.toLowerCase()}.gguf`)
      const bound = /16$/.test(type) ? 1e-5 : 2e-3
      return checkLogits(path, 'hd128-gguf.vectors.safetensors', { prefix: `${type}.len7`, bound })
    })

    test.each([
      ['swa16', 1e-5],
      ['swa16-nf4', 1e-4],
    ])('the Hugging Face directory %s', (name, bound) =>
      checkLogits(vectorsPath(`hf/${name}`), `${name}.vectors.safetensors`, {
        prefix: 'len7',
        bound,
      }),
    )
  })

  describe('requests', () => {
    const prompt = 'And it came to pass, when the ship had sailed,'
    const greedy = { maxNewTokens: 8, temperature: 0 }
    let model: Model
    beforeAll(async () => {
      model = await load(mini)
    })
    afterAll(() => model?.dispose())

    test('the greedy text is that of the CPU', async () => {
      await using cpu = await load(mini, { device: 'cpu' })
      expect((await model.generate(prompt, greedy)).text).toBe(
        (await cpu.generate(prompt, greedy)).text,
      )
    })

    test('text and logits do not depend on batch mates', async () => {
      const options = { maxNewTokens: 6, seed: 3 }
      const tokens = model.tokenizer.encode(prompt)
      const alone = [await model.generate(prompt, options), await model.logits(tokens)] as const
      const [text, logits] = await Promise.all([
        model.generate(prompt, options),
        model.logits(tokens),
        model.generate('The king', greedy),
        model.generate('In the beginning there was', { ...greedy, temperature: 1 }),
      ])
      expect(text.text).toBe(alone[0].text)
      expect(logits).toEqual(alone[1])
    })

    test('pages of a beginning that was computed before are used again, for the same text', async () => {
      const long = [1, ...Array.from({ length: 150 }, (_, i) => 20 + ((7 * i) % 400))]
      const first = await model.generate(long, { ...greedy, seed: 1 })
      const again = await model.generate(long, { ...greedy, seed: 1 })
      expect([first.usage.cachedTokens, again.usage.cachedTokens]).toEqual([0, 128])
      expect(again.tokens).toEqual(first.tokens)
    })

    test('scores are those of the CPU', async () => {
      await using cpu = await load(mini, { device: 'cpu' })
      const tokens = model.tokenizer.encode(prompt)
      const [got, want] = [await model.score(tokens), await cpu.score(tokens)]
      expect(got.perplexity / want.perplexity).toBeCloseTo(1, 2)
      expect(got.logprobs).toHaveLength(tokens.length - 1)
    })

    test('an abort in the middle of a prompt frees its pages', async () => {
      const controller = new AbortController()
      const run = model.generate(new Array(400).fill(5), { ...greedy, signal: controller.signal })
      setTimeout(() => controller.abort(), 20)
      expect((await run).finishReason).toBe('abort')
      expect(model.stats()).toMatchObject({ running: 0, kvPagesUsed: 0 })
      expect((await model.generate(prompt, greedy)).finishReason).toBe('length')
    })

    test.each(['nf4', 'fp4'] as const)(
      'quantised to %s it is the model of the CPU',
      async (quantization) => {
        await using gpu = await load(mini, { quantization, doubleQuant: true })
        await using cpu = await load(mini, { quantization, doubleQuant: true, device: 'cpu' })
        expect(gpu.info.quantization).toEqual(cpu.info.quantization)
        const tokens = gpu.tokenizer.encode(prompt)
        const error = nmse(await gpu.logits(tokens), await cpu.logits(tokens))
        expect(error).toBeLessThan(1e-5)
      },
    )

    test("device 'auto' is the GPU", async () => {
      await using other = await load(mini, { device: 'auto' })
      expect(other.info).toMatchObject({ device: 'cuda:0', gpuLayers: model.info.nLayers })
      expect(other.info.deviceReason).toBeUndefined()
    })

    test('some layers on the GPU, the others on the CPU', async () => {
      const { text } = await model.generate(prompt, greedy)
      await using split = await load(mini, { gpuLayers: 2 })
      expect(split.info).toMatchObject({ device: 'cuda:0', gpuLayers: 2 })
      expect((await split.generate(prompt, greedy)).text).toBe(text)
      await using none = await load(mini, { gpuLayers: 0 })
      expect(none.info).toMatchObject({ device: 'cpu', gpuLayers: 0 })
      await using more = await load(mini, { gpuLayers: 99 })
      expect(more.info).toMatchObject({ device: 'cuda:0', gpuLayers: model.info.nLayers })
      await expect(load(mini, { device: 'cpu', gpuLayers: 2 })).rejects.toThrow(
        "gpuLayers is 2, but the device is 'cpu'; only 'cuda' has GPU layers",
      )
    })
  })

  describe('adapters', () => {
    test.each([
      ['swa16', 'swa16-qv'],
      ['swa16', 'swa16-patterns'],
      ['hd128', 'hd128-all-rslora'],
      ['full', 'full-dora'],
    ])('the logits of %s with %s are those of the reference', async (base, name) => {
      await using model = await load(vectorsPath(`models/${base}-bf16.gguf`))
      await model.loadAdapter(vectorsPath(`adapters/${name}`), { name })
      const tensors = readTensors(`${name}.adapter-vectors.safetensors`)
      let prompts = 0
      for (const [key, want] of tensors) {
        const prompt = /^(len\d+)\.(merged_)?logits$/.exec(key)?.[1]
        if (!prompt) continue
        const tokens = [...(tensors.get(`${prompt}.tokens`) as Int32Array)]
        const logits = await model.logits(tokens, { adapter: name })
        expect(nmse(logits, want as Float32Array), key).toBeLessThan(1e-5)
        // The bound would not hide that there is no adapter.
        expect(nmse(await model.logits(tokens), want as Float32Array), key).toBeGreaterThan(1e-3)
        ++prompts
      }
      expect(prompts).toBe(3)
    })

    const midjourney = file('models/adapter-midjourney')
    const prompt = 'generate a midjourney prompt for A whale on fire'
    const options = { maxNewTokens: 4, temperature: 0 }

    test('beside requests with others and with none each gets the bytes that it gets alone', async () => {
      await using model = await load(mini)
      const names = [undefined, 'whole', 'half', 'whole']
      await model.loadAdapter(midjourney, { name: 'whole' })
      await model.loadAdapter(midjourney, { name: 'half', scale: 0.5 })
      const tokens = model.tokenizer.encode(prompt)
      const ask = async (name?: string) => {
        const chosen = name === undefined ? {} : { adapter: name }
        return Promise.all([
          model.generate(prompt, { ...options, ...chosen }).then(({ text }) => text),
          model.logits(tokens, chosen),
        ])
      }
      const alone: Awaited<ReturnType<typeof ask>>[] = []
      for (const name of names) alone.push(await ask(name))
      expect(await Promise.all(names.map(ask))).toEqual(alone)
      expect(alone[1]).toEqual(alone[3])
      expect(alone[0]?.[1]).not.toEqual(alone[1]?.[1])
      expect(alone[1]?.[1]).not.toEqual(alone[2]?.[1])
    })

    test('on a whole model and on a part of one they are those of the CPU', async () => {
      await using cpu = await load(mini, { device: 'cpu' })
      await cpu.loadAdapter(midjourney, { name: 'a' })
      const tokens = cpu.tokenizer.encode(prompt)
      const want = await cpu.logits(tokens, { adapter: 'a' })
      expect(nmse(await cpu.logits(tokens), want)).toBeGreaterThan(0.05)
      for (const gpuLayers of [6, 3]) {
        await using gpu = await load(mini, { gpuLayers })
        await gpu.loadAdapter(midjourney, { name: 'a' })
        expect(nmse(await gpu.logits(tokens, { adapter: 'a' }), want)).toBeLessThan(2e-3)
      }
    })

    test('they come and go while requests run', async () => {
      await using model = await load(mini)
      const base = (await model.generate(prompt, options)).text
      let running = true
      const others = (async () => {
        while (running) expect((await model.generate(prompt, options)).text).toBe(base)
      })()
      const texts = new Set<string>()
      for (let i = 0; i < 2; ++i) {
        const name = `a${i}`
        const { bytes } = await model.loadAdapter(midjourney, { name })
        expect(bytes).toBeGreaterThan(400_000)
        const run = model.generate(prompt, { ...options, adapter: name })
        const endless = model.generate(prompt, { maxNewTokens: 400, adapter: name })
        const unloading = model.unloadAdapter(name)
        texts.add((await run).text)
        endless.cancel()
        await unloading
        expect((await endless).finishReason).toBe('abort')
      }
      running = false
      await others
      expect(texts.size).toBe(1)
      expect(texts.has(base)).toBe(false)
      expect(model.stats().adapters).toEqual([])
    })
  })

  test('a device that does not exist is named', async () => {
    await expect(load(mini, { device: 'cuda:99' })).rejects.toThrow(
      /device 'cuda:99' does not exist/,
    )
  })
})

// Each case is a process of its own, since the simulator reads its settings once. Prints the texts of two greedy
// requests at once or the codes of their errors; then the same of the model loaded again.
const program = `
const { loadModel } = await import(${JSON.stringify(file('dist/esm/index.js'))})
const load = () => loadModel(${JSON.stringify(mini)}, {
  device: process.argv[1], contextLength: 256, maxSequences: 2, maxBatchTokens: 16, threads: 1,
})
const answers = async (model) =>
  (await Promise.allSettled(['And it came to pass', 'In the beginning'].map((prompt) =>
    model.generate(prompt, { maxNewTokens: 8, temperature: 0 })))).map((r) => r.value?.text ?? r.reason.code)
const [model, error] = await load().then((model) => [model], (error) => [undefined, error])
if (error) console.log(JSON.stringify({ code: error.code, message: error.message }))
else {
  const runs = [await answers(model), await answers(model)]
  const again = await load().catch(() => undefined) // a small GPU has no room for a second one
  if (again) runs.push(await answers(again))
  const { device, deviceReason, gpuLayers } = model.info
  const logits = await model.logits([1, 365, 378, 1377, 298, 1388]).then((all) => [...all.slice(-512)], () => [])
  await model.dispose()
  await again?.dispose()
  console.log(JSON.stringify({ device, deviceReason, gpuLayers, runs, logits }))
}
`

/** `driver` null: none is named. */
async function run(device: string, settings: string, driver: string | null = simulator) {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '-e', program, device],
    {
      env: {
        ...process.env,
        MAESTRALE_CUDA_DRIVER: driver ?? undefined,
        MAESTRALE_PTXSIM: `quiet,races=0,${settings}`,
      },
    },
  )
  return JSON.parse(stdout)
}

describe.skipIf(onHardware || !(await isUsable()))('cuda that fails', { timeout: 120_000 }, () => {
  test('a lost device fails its requests, not the process, and a new model works', async () => {
    const { runs } = await run('cuda', 'fail_launch=200:719')
    const lost = ['ERR_DEVICE', 'ERR_DEVICE']
    expect(runs).toEqual([lost, lost, (await run('cpu', '')).runs[0]])
  })

  test('as many layers go to the GPU as fit, and with none the numbers are told', async () => {
    const [all, some, fewer, one, none, auto] = await Promise.all(
      ['8g', '5m', '4m', '3m', '1m', 'auto'].map((memory) =>
        memory === 'auto' ? run('auto', 'memory=1m') : run('cuda', `memory=${memory}`),
      ),
    )
    expect(all.gpuLayers).toBe(6)
    expect([some, fewer, one].map(({ gpuLayers }) => gpuLayers)).toEqual([5, 3, 1])
    for (const { runs, logits } of [some, fewer, one]) {
      expect(runs[0].map((text: string) => text.length > 20)).toEqual([true, true])
      expect(logits).toHaveLength(512)
      expect(nmse(logits, all.logits)).toBeLessThan(1e-3)
    }
    expect(none.code).toBe('ERR_OUT_OF_MEMORY')
    expect(none.message).toMatch(/^the GPU has \d+ MiB free, too little for one layer/)
    expect(auto).toMatchObject({ device: 'cpu', gpuLayers: 0, deviceReason: none.message })
  })
})

test("without a driver 'cuda' fails with the reason, and 'auto' is the CPU and tells it", async () => {
  const missing = '/no/such/library.so'
  expect(await run('cuda', '', missing)).toMatchObject({ code: 'ERR_DEVICE' })
  const { device, deviceReason } = await run('auto', '', missing)
  expect(device).toBe('cpu')
  expect(deviceReason).toMatch(/MAESTRALE_CUDA_DRIVER cannot be opened|has no CUDA back end/)
  const unasked = await run('auto', '', null)
  expect(unasked.device).toBe('cpu')
  expect(unasked.deviceReason).toMatch(/has not been proven on hardware|has no CUDA back end/)
})
