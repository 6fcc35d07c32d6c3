// SPDX-License-Identifier: Apache-2.0
// Where nvcc is missing the build leaves CUDA out and says so in one line. Configures only, nothing is compiled.
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const work = realpathSync(mkdtempSync(join(tmpdir(), 'maestrale-build-')))
const bin = join(work, 'bin')

/** The first program of that name on the PATH of the tests. */
function find(program: string): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter)
  return folders.map((folder) => join(folder, program)).find((path) => existsSync(path))
}

beforeAll(() => {
  mkdirSync(bin)
  for (const tool of ['cmake', 'make', 'ninja', 'c++', 'g++', 'as', 'ld', 'ar', 'ranlib']) {
    const path = find(tool)
    if (path !== undefined) symlinkSync(path, join(bin, tool))
  }
})
afterAll(() => rmSync(work, { recursive: true }))

/** Configures build folder `name` with the tools of `bin`, where CMake would look into /usr/local/bin too. */
function configure(name: string, ...options: string[]) {
  const build = join(work, name)
  const generator = find('ninja') === undefined ? 'Unix Makefiles' : 'Ninja'
  const { stdout, stderr, status } = spawnSync(
    join(bin, 'cmake'),
    [
      ...['-S', root, '-B', build, '-G', generator, '-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF'],
      ...options,
    ],
    { encoding: 'utf8', env: { PATH: bin } },
  )
  const cache = readFileSync(join(build, 'CMakeCache.txt'), 'utf8')
  const cached = (variable: string) => new RegExp(`^${variable}:\\w+=(.*)$`, 'm').exec(cache)?.[1]
  const lines = stdout.split('\n').filter((line) => /nvcc|cuda/i.test(line))
  return { lines, stderr, status, cached }
}

const LINE = '-- nvcc was not found: maestrale is built without CUDA'

test('without nvcc CUDA is left out with one line, and comes when nvcc does', () => {
  for (const time of ['first', 'again']) {
    const { lines, stderr, status, cached } = configure('auto')
    expect([time, lines, stderr, status]).toEqual([time, [LINE], '', 0])
    expect(cached('MAESTRALE_NVCC')).toBe('MAESTRALE_NVCC-NOTFOUND')
    expect(cached('MAESTRALE_CUDA')).toBeUndefined()
  }
  symlinkSync(process.execPath, join(bin, 'nvcc')) // only looked for
  const { lines, status, cached } = configure('auto')
  rmSync(join(bin, 'nvcc'))
  expect([lines, status]).toEqual([[], 0])
  expect(cached('MAESTRALE_CUDA')).toBe('ON')
})

test('without nvcc CUDA that was asked for is an error', () => {
  const { lines, stderr, status } = configure('asked', '-DMAESTRALE_CUDA=ON')
  expect([lines, status]).toEqual([[], 1])
  expect(stderr).toContain('MAESTRALE_CUDA is ON, but nvcc was not found')
})
