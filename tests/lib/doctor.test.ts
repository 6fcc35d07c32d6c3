// SPDX-License-Identifier: Apache-2.0
// maestrale doctor on this machine, on one with fewer CPUs, with a driver and without the addon.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test, vi } from 'vitest'

import { describeReading, type GpuReading } from '../../lib/cli/doctor-cuda.js'

const root = fileURLToPath(new URL('../..', import.meta.url))

// Each runs a program that measures and loads models, on a machine that may be busy.
vi.setConfig({ testTimeout: 120_000 })

interface Check {
  name: string
  status: string
  text: string
  [figure: string]: unknown
}

function doctor(env: Record<string, string> = {}, command: string[] = [], base = root) {
  const [file = '', ...args] = [...command, process.execPath, join(base, 'dist/esm/cli/main.js')]
  const { stdout, stderr, status } = spawnSync(file, [...args, 'doctor', '--json'], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  const { ok, checks }: { ok: boolean; checks: Check[] } = JSON.parse(stdout)
  const find = (name: string) => checks.find((check) => check.name === name)
  return { ok, checks, find, stderr, status }
}

test('finds this machine in order', () => {
  const { ok, checks, find, stderr, status } = doctor()
  expect([ok, status, stderr]).toEqual([true, 0, ''])
  expect(checks.map((check) => check.name)).toEqual([
    'package',
    'machine',
    'addon',
    'threads',
    'memory',
    'bandwidth',
    'kernels',
    'self-check',
    'cuda',
    'cuda-check',
    'cuda-memory',
  ])
  expect(checks.filter((check) => check.status === 'fail')).toEqual([])
  expect(find('self-check')?.isas).toEqual(find('kernels')?.isas)
  expect(find('kernels')?.isas).toContain('scalar')
  expect(find('self-check')?.generated).toMatch(/\w{3}/)
  // Slower than any machine of this century, faster than any there is.
  expect(find('bandwidth')?.bytesPerSecond).toBeGreaterThan(1e8)
  expect(find('bandwidth')?.bytesPerSecond).toBeLessThan(1e13)
  expect(find('threads')?.threads).toBeLessThanOrEqual(availableParallelism())
})

test('sees the CPUs that it may use', () => {
  const { find } = doctor({}, ['taskset', '-c', '0'])
  expect(find('threads')).toMatchObject({ threads: 1, affinity: 1 })
})

test('says when a kernel table is forced that cannot run', () => {
  const { ok, status, find } = doctor({ MAESTRALE_ISA: 'neon' })
  expect([ok, status]).toEqual([false, 1])
  expect(find('kernels')?.text).toContain('neon, which this machine does not run')
  expect(doctor({ MAESTRALE_ISA: 'scalar' }).find('kernels')?.status).toBe('warn')
})

test('knows a kernel table that is taken only when named', () => {
  const { find } = doctor({ MAESTRALE_ISA: 'avx512bf16' })
  const runs = readFileSync('/proc/cpuinfo', 'utf8').includes('avx512_bf16')
  expect(find('kernels')?.status).toBe(runs ? 'ok' : 'fail')
  expect(find('kernels')?.isas).not.toContain('avx512bf16')
  expect(find('self-check')?.status).toBe('ok')
})

test('says why there is no CUDA', () => {
  const { ok, find } = doctor({ MAESTRALE_CUDA_DRIVER: '/no/such/driver.so' })
  expect(ok).toBe(true)
  expect(find('cuda')).toMatchObject({ status: 'none', text: expect.stringMatching(/CUDA/) })
})

const simulator = join(root, 'build/libptxsim_cuda.so')

describe.skipIf(!existsSync(simulator))('on a simulated GPU', () => {
  const withGpu = (settings: string) =>
    doctor({
      MAESTRALE_CUDA_DRIVER: simulator,
      MAESTRALE_PTXSIM: `quiet,races=0,initcheck=0,count=0,${settings}`,
    })

  test('names driver and GPUs, what they hold, and checks their kernels', () => {
    const { ok, find } = withGpu('cc=86,memory=24g,devices=2,driver=12040')
    expect(ok).toBe(true)
    const gpu = { name: 'ptxsim sm_86', capability: 86, memory: 24 * 2 ** 30, usable: true }
    expect(find('cuda')).toMatchObject({ status: 'ok', version: '12.4', devices: [gpu, gpu] })
    expect(find('cuda')?.text).toBe(
      'driver for CUDA 12.4; ' +
        'cuda:0 is ptxsim sm_86, compute capability 8.6, 25.8 GB, holds all layers of a 7B model in Q4_K_M; ' +
        'cuda:1 is ptxsim sm_86, compute capability 8.6, 25.8 GB, holds all layers of a 7B model in Q4_K_M',
    )
    const { status, errors } = find('cuda-check') as Check & { errors: Record<string, number> }
    expect(status).toBe('ok')
    expect(Object.keys(errors)).toEqual(['cuda:0', 'cuda:1'])
    for (const error of Object.values(errors)) expect(error).toBeGreaterThan(0)
  })

  test('reads its memory, and says that this is no speed of a GPU', () => {
    const { find } = withGpu('memclock=9751000,buswidth=384')
    expect(find('cuda')?.devices).toMatchObject([{ memoryBandwidth: 936.096e9 }])
    const { status, text, readings } = find('cuda-memory') as Check & { readings: GpuReading[] }
    expect(status).toBe('ok')
    expect(text).toMatch(
      /^cuda:0 is simulated, so its speed says nothing: [\d.]+ MB read by matmul_row \(Q4_K\)$/,
    )
    expect(readings).toEqual([{ device: 'cuda:0', bytes: expect.any(Number), simulated: true }])
    expect(readings[0]?.bytes).toBeGreaterThanOrEqual(2 ** 20)
  })

  test('says in one line why its memory could not be read', () => {
    const { ok, find } = withGpu('memory=100m,l2=64m,devices=2')
    expect(ok).toBe(true)
    const problem = (device: string) =>
      new RegExp(
        `${device}: the GPU has \\d+ MiB free, but reading past its cache of 64 MiB takes 512`,
      )
    expect(find('cuda-check')?.status).toBe('ok')
    expect(find('cuda-memory')).toMatchObject({
      status: 'warn',
      text: expect.stringMatching(problem('cuda:0')),
    })
    expect(find('cuda-memory')?.text).toMatch(problem('cuda:1'))
  })

  test('says how many layers a small GPU holds', () => {
    expect(withGpu('memory=3g').find('cuda')?.text).toContain(
      'holds about 16 of the 32 layers of a 7B model in Q4_K_M',
    )
  })

  test.each([
    [
      'driver=10020',
      'none',
      /^CUDA is not available: the driver supports CUDA 10\.2, but 11\.0 is needed$/,
    ],
    ['devices=0', 'none', /^CUDA is not available: the driver finds no GPU$/],
    ['cc=70', 'warn', /compute capability 7\.0, .* but compute capability 7\.5 is needed$/],
  ])('%s: says in one sentence why it is of no use', (settings, status, text) => {
    const { ok, find } = withGpu(settings)
    expect(ok).toBe(true)
    expect(find('cuda')).toMatchObject({ status, text: expect.stringMatching(text) })
    expect(find('cuda-check')?.status).toBe('none')
    expect(find('cuda-memory')?.status).toBe('none')
  })

  test('a GPU that fails is a failure', () => {
    const { ok, status, find } = withGpu('fail_launch=100:719')
    expect([ok, status]).toEqual([false, 1])
    expect(find('cuda-check')).toMatchObject({ status: 'fail', code: 'ERR_DEVICE' })
  })
})

test('a GPU is held to the limit of its card where the driver tells it', () => {
  const reading: GpuReading = { device: 'cuda:0', bytes: 2.5e8, bytesPerSecond: 812e9 }
  const read = 'cuda:0: 812 GB/s read by matmul_row (Q4_K)'
  expect(describeReading({ ...reading, limit: 936.096e9 })).toBe(
    `${read}, 87 % of the card's 936 GB/s`,
  )
  expect(describeReading(reading)).toBe(`${read}, the limit of the card is unknown`)
})

test('says why the addon does not load', () => {
  const copy = mkdtempSync(join(tmpdir(), 'maestrale-doctor-'))
  cpSync(join(root, 'package.json'), join(copy, 'package.json'))
  cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true })
  cpSync(join(root, 'lib/native'), join(copy, 'lib/native'), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const { ok, status, checks } = doctor({}, [], copy)
  rmSync(copy, { recursive: true })
  expect([ok, status]).toEqual([false, 1])
  expect(checks.at(-1)).toMatchObject({ name: 'addon', status: 'fail', code: 'ERR_NATIVE_LOAD' })
})
