// SPDX-License-Identifier: Apache-2.0
// device: 'cuda' through the public API, on the simulated GPU. Each case is a process of its own, whose
// environment names the driver; without nvcc there is neither simulator nor CUDA back end, and nothing is run.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const file = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url))
const driver = file('build/libptxsim_cuda.so')

// Prints what two greedy requests at once give: their texts, or the codes of their errors.
const program = `
const { loadModel } = await import(${JSON.stringify(file('dist/esm/index.js'))})
const model = await loadModel(${JSON.stringify(file('models/mini-q4_k_m.gguf'))}, {
  device: process.argv[1], contextLength: 256, maxSequences: 2, threads: 1,
})
const device = model.info.device
const runs = await Promise.allSettled(['And it came to pass', 'In the beginning'].map((prompt) =>
  model.generate(prompt, { maxNewTokens: 8, temperature: 0 })))
await model.dispose()
console.log(JSON.stringify({ device, runs: runs.map((r) => r.value?.text ?? r.reason.code) }))
`

async function run(device: string, settings = '') {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '-e', program, device],
    { env: { ...process.env, MAESTRALE_CUDA_DRIVER: driver, MAESTRALE_PTXSIM: settings } },
  )
  return JSON.parse(stdout)
}

describe.skipIf(!existsSync(driver))('cuda', () => {
  test('the greedy text is that of the CPU', async () => {
    const [cpu, cuda] = await Promise.all([run('cpu'), run('cuda', 'cc=86,races=0')])
    expect(cuda.device).toBe('cuda:0')
    expect(cuda.runs).toEqual(cpu.runs)
  })

  test('a lost device fails its requests, not the process', async () => {
    const { runs } = await run('cuda', 'fail_launch=200:719,quiet')
    expect(runs).toEqual(['ERR_DEVICE', 'ERR_DEVICE'])
  })

  test('a device that does not exist is named', async () => {
    await expect(run('cuda:3')).rejects.toThrow(/device 'cuda:3' does not exist/)
  })
})
