// SPDX-License-Identifier: Apache-2.0
// What maestrale doctor says of NVIDIA GPUs: the driver, each GPU with what it would hold, whether its
// kernels compute what the CPU does, and how fast they read its memory.
import { type Device, loadModel } from '../index.js'
import type { NativeGpu, NativeMachine } from '../native/binding.js'
import { loadBinding } from '../native/load.js'
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

function usableGpus(machine: NativeMachine | undefined) {
  return (machine?.gpus ?? []).flatMap((gpu, ordinal) =>
    gpu.usable ? [{ ...gpu, ordinal, device: `cuda:${ordinal}` as Device }] : [],
  )
}

const NO_GPU: Finding = { status: 'none', text: 'there is no GPU to check' }

/** The small model on every GPU: the logits of the CPU but for what rounding makes of them. */
export async function checkGpuModel({ machine }: Context): Promise<Finding> {
  const path = await modelPath(undefined)
  const devices = usableGpus(machine).map(({ device }) => device)
  if (devices.length === 0) return NO_GPU
  const logitsOn = async (device: Device) => {
    await using model = await loadModel(path, { device, contextLength: 512, maxSequences: 1 })
    return await model.logits(model.tokenizer.encode(DEFAULT_PROMPT))
  }
  const expected = await logitsOn('cpu')
  const errors: Record<string, number> = {}
  for (const device of devices) {
    const error = relativeError(await logitsOn(device), expected)
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

/** What the kernel that decoding reads weights with makes of the memory of a GPU. */
export interface GpuReading {
  device: Device
  /** Bytes of weights, read again and again: more than the cache of the GPU holds, unless it is simulated. */
  bytes?: number
  /** The GPU is the tests' own, which takes its time: there are no rates. */
  simulated?: true
  /** Bytes of weights a second. */
  bytesPerSecond?: number
  /** Bytes a second that the memory can give, by its clock and width. Absent where the driver does not tell. */
  limit?: number
  /** Why there are no figures: the memory that is free did not do. */
  problem?: string
}

/** As tests/ptxsim calls its GPUs. */
const SIMULATED = /^ptxsim /

export async function checkGpuMemory({ machine }: Context): Promise<Finding> {
  const readings: GpuReading[] = []
  for (const gpu of usableGpus(machine)) readings.push(await readGpu(gpu))
  if (readings.length === 0) return NO_GPU
  const status = readings.some(({ problem }) => problem) ? 'warn' : 'ok'
  return { status, text: readings.map(describeReading).join('; '), readings }
}

async function readGpu(gpu: ReturnType<typeof usableGpus>[number]): Promise<GpuReading> {
  const { device, ordinal, name, memoryBandwidth } = gpu
  try {
    const { bytes, seconds } = await loadBinding().measureGpu(ordinal)
    if (SIMULATED.test(name)) return { device, bytes, simulated: true }
    const limit = memoryBandwidth > 0 ? { limit: memoryBandwidth } : {}
    return { device, bytes, bytesPerSecond: bytes / seconds, ...limit }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ERR_OUT_OF_MEMORY'))
      throw error
    return { device, problem: error.message }
  }
}

export function describeReading(reading: GpuReading): string {
  const { device, simulated, bytesPerSecond = 0, limit, problem } = reading
  if (problem !== undefined) return `${device}: ${problem}`
  const by = `read by matmul_row (Q4_K)`
  if (simulated) {
    return `${device} is simulated, so its speed says nothing: ${bytes(reading.bytes ?? 0)} ${by}`
  }
  const share = limit
    ? `${Math.round((100 * bytesPerSecond) / limit)} % of the card's ${bytes(limit)}/s`
    : 'the limit of the card is unknown'
  return `${device}: ${bytes(bytesPerSecond)}/s ${by}, ${share}`
}
