// SPDX-License-Identifier: Apache-2.0
// The devices that the contract holds for: each file of this folder runs on the CPU and on 'cuda', a simulated
// GPU or, with MAESTRALE_TEST_GPU (npm run test:cuda:device), the machine's own. Without nvcc there is neither
// simulator nor CUDA back end, and the CPU is all.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe } from 'vitest'

import { type LoadOptions, loadModel, type Model } from '../../lib/index.js'

export const file = (path: string): string =>
  fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** The model that ships with the package: 6 layers, window 256. */
export const mini: string = file('models/mini-q4_k_m.gguf')

export const simulator: string = file('build/libptxsim_cuda.so')
export const onHardware: boolean = Boolean(process.env.MAESTRALE_TEST_GPU)

export interface TestDevice {
  readonly name: 'cpu' | 'cuda'
  load(path: string, options?: LoadOptions): Promise<Model>
  /** How much a test does: `all`, or `some` where each instruction is simulated. */
  size(all: number, some: number): number
}

function device(name: 'cpu' | 'cuda'): TestDevice {
  const simulated = name === 'cuda' && !onHardware
  return {
    name,
    load: (path, options) => loadModel(path, { device: name, ...options }),
    size: (all, some) => (simulated ? some : all),
  }
}

// A driver that is named by nothing fails before any GPU is looked for, with another reason than a build without CUDA.
process.env.MAESTRALE_CUDA_DRIVER = ''
const reason = await loadModel(mini, { device: 'cuda' }).catch((error: Error) => error.message)
const isBuilt = !String(reason).includes('has no CUDA back end')

/** Whether there is a GPU to test. On hardware a missing one is a failure, which the tests report. */
export const hasCuda: boolean = isBuilt && (onHardware || existsSync(simulator))

// The addon asks for the driver, and that for its settings, when a GPU is first used. Looking for defects of kernels
// is the native tests' task.
process.env.MAESTRALE_PTXSIM = 'cc=86,races=0,initcheck=0,count=0,quiet'
process.env.MAESTRALE_CUDA_DRIVER = onHardware ? 'libcuda.so.1' : simulator

/** Defines the tests of a file for each device. `settings` are more of tests/ptxsim's, for the whole file. */
export function contract(define: (device: TestDevice) => void, settings = ''): void {
  process.env.MAESTRALE_PTXSIM += `,${settings}`
  describe('cpu', { timeout: 60_000 }, () => define(device('cpu')))
  describe.skipIf(!hasCuda)('cuda', { timeout: 120_000 }, () => define(device('cuda')))
}
