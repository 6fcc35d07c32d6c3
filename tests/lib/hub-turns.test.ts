// SPDX-License-Identifier: Apache-2.0
// One file that several want at a time, processes and callers within one: it is downloaded once, whoever ends first and
// however that happens.
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { type LoadProgress, pullModel } from '../../lib/index.js'
import type { FakeHub, Fault } from './fake-hub.js'
import { HubSetup } from './hub-setup.js'

const BIG = randomBytes(300_000)

let setup: HubSetup
let hub: FakeHub

beforeEach(async () => {
  setup = await HubSetup.open({ 'model.Q4_K_M.gguf': BIG })
  hub = setup.hub
})
afterEach(() => setup.close())

const repoFolder = () => setup.repoFolder
const blobs = () => setup.blobs()

describe('several processes that download the same file', () => {
  const sha256 = createHash('sha256').update(BIG).digest('hex')
  const pull = () => setup.maestrale('pull', 'org/repo:Q4_K_M', '--json')
  const partials = async () => {
    // The first third has arrived.
    while (!existsSync(join(repoFolder(), 'blobs')) || blobs().length === 0) await sleep(5)
    for (const name of blobs()) {
      while (statSync(join(repoFolder(), 'blobs', name)).size < BIG.length / 3) await sleep(5)
    }
  }

  /** The first request is held after a third of its answer, until release() is called. */
  function holdFirst(fault: Fault = {}): () => void {
    let release = () => {}
    const hold = new Promise<void>((resolve) => {
      release = resolve
    })
    hub.fault = (_path, n) => (n === 0 ? { ...fault, hold } : undefined)
    return () => release()
  }

  test.each([
    ['', {}, 1],
    [' also when it has to come twice', { corrupt: 10 }, 2],
  ])('share one download,%s', async (_, fault, downloads) => {
    const release = holdFirst(fault)
    const first = pull()
    await partials()
    const others = [pull(), pull()]
    await sleep(1000)
    expect(hub.downloads).toHaveLength(1)
    release()
    const reports = await Promise.all([first, ...others].map(({ ended }) => ended))
    expect(reports.map(({ status, stderr }) => [status, stderr])).toEqual(Array(3).fill([0, '']))
    const pulled = reports.map(({ stdout }) => JSON.parse(stdout))
    expect(pulled.map(({ downloadedBytes }) => downloadedBytes)).toEqual([BIG.length, 0, 0])
    for (const { path } of pulled) expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(hub.downloads).toHaveLength(downloads)
    expect(blobs()).toEqual([sha256])
  })

  test('one that waits goes on when the other is killed', async () => {
    holdFirst()
    const first = pull()
    await partials()
    const second = pull()
    await sleep(1000)
    first.child.kill('SIGKILL')
    expect(await second.ended).toMatchObject({ status: 0, stderr: '' })
    expect(hub.downloads).toHaveLength(2)
    expect(hub.downloads[1]).toMatch(/ bytes=[1-9]\d*-299999$/)
    expect(blobs()).toEqual([sha256])
  })

  test('one that stands still is not waited for, nor touched', async () => {
    const release = holdFirst()
    const first = pull()
    await partials()
    first.child.kill('SIGSTOP')
    const second = await pull().ended
    expect([second.status, second.stderr]).toEqual([0, ''])
    const { path } = JSON.parse(second.stdout)
    expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(hub.downloads[1]).toBe('model.Q4_K_M.gguf all')
    release()
    first.child.kill('SIGCONT')
    expect(await first.ended).toMatchObject({ status: 0, stderr: '' })
    expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(blobs()).toEqual([sha256])
  })

  test('what one of them leaves when it is killed, the next goes on with', async () => {
    hub.fault = (_path, n) => (n === 0 ? { hold: new Promise(() => {}) } : undefined)
    const first = pull()
    await partials()
    first.child.kill('SIGKILL')
    await first.ended
    const { status, stdout } = await pull().ended
    expect(status).toBe(0)
    expect(readFileSync(JSON.parse(stdout).path).equals(BIG)).toBe(true)
    expect(hub.downloads.at(-1)).toMatch(/ bytes=[1-9]\d*-299999$/)
    expect(blobs()).toEqual([sha256])
  })

  test('of several leftovers the largest counts, and none stays', async () => {
    mkdirSync(join(repoFolder(), 'blobs'), { recursive: true })
    const leave = (name: string, size: number) =>
      writeFileSync(join(repoFolder(), 'blobs', `${sha256}${name}`), BIG.subarray(0, size))
    const host = hostname().replace(/[^\w]/g, '_')
    leave('.incomplete', 1000)
    leave(`.${host}-${2 ** 30}-0.incomplete`, 200_000) // no process has such a number
    leave('.elsewhere-1-0.incomplete', 250_000) // somebody may work on it
    const { path } = await pullModel('org/repo:Q4_K_M')
    expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(hub.downloads).toEqual(['model.Q4_K_M.gguf bytes=200000-299999'])
    expect(blobs().sort()).toEqual([sha256, `${sha256}.elsewhere-1-0.incomplete`])
  })

  test('within one process too', async () => {
    const started = performance.now()
    const pulled = await Promise.all([1, 2, 3].map(() => pullModel('org/repo:Q4_K_M')))
    for (const { path } of pulled) expect(readFileSync(path).equals(BIG)).toBe(true)
    expect(performance.now() - started).toBeLessThan(5000) // the end is heard of, not waited out
    expect(hub.downloads).toHaveLength(1)
    expect(blobs()).toEqual([sha256])
    expect(readdirSync(join(repoFolder(), 'refs'))).toEqual(['main'])
  })

  test('who waits sees the bytes that come, and can leave', async () => {
    const release = holdFirst()
    const first = pullModel('org/repo:Q4_K_M')
    await partials()
    const controller = new AbortController()
    const reason = new Error('enough')
    const seen: number[] = []
    const onProgress = ({ loaded }: LoadProgress) => {
      if (seen.push(loaded) === 1) release()
    }
    const watching = pullModel('org/repo:Q4_K_M', { onProgress })
    const leaving = pullModel('org/repo:Q4_K_M', {
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    })
    await expect(leaving).rejects.toBe(reason)
    await Promise.all([first, watching])
    expect(seen[0]).toBeGreaterThanOrEqual(BIG.length / 3)
    expect(seen.at(-1)).toBe(BIG.length)
    expect(seen).toEqual([...seen].sort((a, b) => a - b))
    expect(hub.downloads).toHaveLength(1)
  })

  test('when the one that downloads is stopped, one that waits goes on', async () => {
    holdFirst()
    const controller = new AbortController()
    const reason = new Error('enough')
    const first = pullModel('org/repo:Q4_K_M', { signal: controller.signal })
    await partials()
    let last = 0
    const onProgress = ({ loaded }: LoadProgress) => {
      last = loaded
      controller.abort(reason)
    }
    const second = pullModel('org/repo:Q4_K_M', { onProgress })
    await expect(first).rejects.toBe(reason)
    expect(readFileSync((await second).path).equals(BIG)).toBe(true)
    expect(last).toBe(BIG.length)
    expect(hub.downloads[1]).toMatch(/ bytes=[1-9]\d*-299999$/)
    expect(blobs()).toEqual([sha256])
  })
})
