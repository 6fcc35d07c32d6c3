// SPDX-License-Identifier: Apache-2.0
// What only a GPU has, beside what tests/contract asks of every device: which one is taken and how much of the model,
// and failures that only a simulator can make.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { type LoadOptions, loadModel, type Model } from '../lib/index.js'
import { file, hasCuda, mini, onHardware, simulator } from './contract/device.js'
import { nmse } from './reference.js'

function load(options: LoadOptions = {}): Promise<Model> {
  return loadModel(mini, { device: 'cuda', threads: 1, contextLength: 512, ...options })
}

describe.skipIf(!hasCuda)('cuda', { timeout: 120_000 }, () => {
  const prompt = 'And it came to pass, when the ship had sailed,'
  const greedy = { maxNewTokens: 8, temperature: 0 }
  let model: Model
  beforeAll(async () => {
    model = await load()
  })
  afterAll(() => model?.dispose())

  test("device 'auto' is the GPU", async () => {
    await using other = await load({ device: 'auto' })
    expect(other.info).toMatchObject({ device: 'cuda:0', gpuLayers: model.info.nLayers })
    expect(other.info.deviceReason).toBeUndefined()
  })

  test('the greedy text is that of the CPU', async () => {
    await using cpu = await load({ device: 'cpu' })
    const { text } = await cpu.generate(prompt, greedy)
    expect((await model.generate(prompt, greedy)).text).toBe(text)
  })

  test('some layers on the GPU, the others on the CPU', async () => {
    const { text } = await model.generate(prompt, greedy)
    await using split = await load({ gpuLayers: 2 })
    expect(split.info).toMatchObject({ device: 'cuda:0', gpuLayers: 2 })
    expect((await split.generate(prompt, greedy)).text).toBe(text)
    await using none = await load({ gpuLayers: 0 })
    expect(none.info).toMatchObject({ device: 'cpu', gpuLayers: 0 })
    await using more = await load({ gpuLayers: 99 })
    expect(more.info).toMatchObject({ device: 'cuda:0', gpuLayers: model.info.nLayers })
    await expect(load({ device: 'cpu', gpuLayers: 2 })).rejects.toThrow(
      "gpuLayers is 2, but the device is 'cpu'; only 'cuda' has GPU layers",
    )
  })

  test('an adapter on a part of the model is that of the CPU', async () => {
    const midjourney = file('models/adapter-midjourney')
    await using cpu = await load({ device: 'cpu' })
    await using split = await load({ gpuLayers: 3 })
    for (const side of [cpu, split]) await side.loadAdapter(midjourney, { name: 'a' })
    const tokens = cpu.tokenizer.encode('generate a midjourney prompt for A whale on fire')
    const want = await cpu.logits(tokens, { adapter: 'a' })
    expect(nmse(await cpu.logits(tokens), want)).toBeGreaterThan(0.05)
    expect(nmse(await split.logits(tokens, { adapter: 'a' }), want)).toBeLessThan(2e-3)
  })

  test('a device that does not exist is named', async () => {
    await expect(load({ device: 'cuda:99' })).rejects.toThrow(/device 'cuda:99' does not exist/)
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

describe.skipIf(onHardware || !hasCuda)('cuda that fails', { timeout: 120_000 }, () => {
  test('a lost device fails its requests, not the process, and a new model works', async () => {
    const { runs } = await run('cuda', 'fail_launch=200:719')
    const lost = ['ERR_DEVICE', 'ERR_DEVICE']
    expect(runs).toEqual([lost, lost, (await run('cuda', '')).runs[0]])
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
