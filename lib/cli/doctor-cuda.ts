// SPDX-License-Identifier: Apache-2.0
// What maestrale doctor says of NVIDIA GPUs: the driver, each GPU with what it would hold, and whether its
// kernels compute what the CPU does.
import { type Device, loadModel } from '../index.js'
import type { NativeGpu } from '../native/binding.js'
import { type Context, type Finding, USUAL_MODEL } from './doctor.js'
import { DEFAULT_PROMPT, modelPath } from './options.js'
import { bytes } from './terminal.js'

/** What a 7B model needs on a GPU beside its layers: output matrix, activations, what the driver keeps. */
const GPU_EXTRA = 0.5e9
const USUAL_LAYERS = 32

/** Layers of a 7B model in Q4_K_M that a GPU holds together with their KV cache of one window. */
function usualLayers(memory: number): number {
  const layer = USUAL_MODEL / USUAL_LAYERS + 21e6
  return Math.max(0, Math.min(USUAL_LAYERS, Math.floor((0.95 * memory - GPU_EXTRA) / layer)))
}

function describeGpu({ name, capability, memory, usable }: NativeGpu, ordinal: number): string {
  const known = `cuda:${ordinal} is ${name}, compute capability ${(capability / 10).toFixed(1)}, ${bytes(memory)}`
  if (!usable) return `${known}, but compute capability 7.5 is needed`
  const layers = usualLayers(memory)
  const share = layers < USUAL_LAYERS ? `about ${layers} of the ${USUAL_LAYERS}` : `all`
  return `${known}, holds ${share} layers of a 7B model in Q4_K_M`
}

export function checkCuda({ machine }: Context): Finding {
  const { cudaProblem, cudaVersion = 0, gpus = [] } = machine ?? {}
  if (cudaProblem !== undefined) return { status: 'none', text: cudaProblem }
  const version = `${Math.floor(cudaVersion / 1000)}.${Math.floor((cudaVersion % 1000) / 10)}`
  const text = [`driver for CUDA ${version}`, ...gpus.map(describeGpu)].join('; ')
  const usable = gpus.some((gpu) => gpu.usable)
  return { status: usable ? 'ok' : 'warn', text, version, devices: gpus }
}

/** The small model on every GPU: the logits of the CPU but for what rounding makes of them. */
export async function checkGpuModel({ machine }: Context): Promise<Finding> {
  const path = await modelPath(undefined)
  const devices = (machine?.gpus ?? []).flatMap(({ usable }, i) => (usable ? [`cuda:${i}`] : []))
  if (devices.length === 0) return { status: 'none', text: 'there is no GPU to check' }
  const logitsOn = async (device: Device) => {
    await using model = await loadModel(path, { device, contextLength: 512, maxSequences: 1 })
    return await model.logits(model.tokenizer.encode(DEFAULT_PROMPT))
  }
  const expected = await logitsOn('cpu')
  const errors: Record<string, number> = {}
  for (const device of devices) {
    const error = relativeError(await logitsOn(device as Device), expected)
    if (!(error < MOST_GPU_ERROR)) {
      throw new Error(
        `the kernels of ${device} are wrong: relative error ${error.toExponential(1)}`,
      )
    }
    errors[device] = error
  }
  const text = `the small model gives the logits of the CPU on ${devices.join(', ')}`
  return { status: 'ok', text, errors }
}

/** Attention in halves and other orders of sums change little, a wrong kernel changes everything. */
const MOST_GPU_ERROR = 1e-2

/** |got - want|^2 / |want|^2 */
function relativeError(got: Float32Array, want: Float32Array): number {
  let error = 0
  let power = 0
  want.forEach((value, i) => {
    error += ((got[i] ?? Number.NaN) - value) ** 2
    power += value ** 2
  })
  return error / power
}
