// SPDX-License-Identifier: Apache-2.0
// maestrale doctor on this machine, on one with fewer CPUs, with a driver and without the addon.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test, vi } from 'vitest'

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

test('says why there is no CUDA', () => {
  const { ok, find } = doctor({ MAESTRALE_CUDA_DRIVER: '/no/such/driver.so' })
  expect(ok).toBe(true)
  expect(find('cuda')).toMatchObject({ status: 'none', text: expect.stringMatching(/CUDA/) })
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
