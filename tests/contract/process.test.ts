// SPDX-License-Identifier: Apache-2.0
// Processes and workers that end while the engine runs: no crash, no hang. Each case is a child process.
import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'

import { contract, mini } from './device.js'

const index = new URL('../../dist/esm/index.js', import.meta.url).href
const preludeOn = (device: string) => `
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker, isMainThread, parentPort } from 'node:worker_threads'
import { loadModel } from ${JSON.stringify(index)}
const load = () => loadModel(${JSON.stringify(mini)}, { device: '${device}' })
const long = { maxNewTokens: 30000, temperature: 0, logitBias: { 2: -Infinity } }
`

contract(({ name }) => {
  const prelude = preludeOn(name)

  /** Runs a module; returns its output. Fails unless it ends by itself with `code`. */
  function run(code: number, source: string): string {
    const args = ['--input-type=module', '--eval', prelude + source]
    const child = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 25_000 })
    expect({ status: child.status, signal: child.signal, stderr: child.stderr }).toEqual({
      status: code,
      signal: null,
      stderr: '',
    })
    return child.stdout
  }

  describe('process', () => {
    test.each([0, 1, 4, 15, 40])('exit in mid-generation, after %i ms', (ms) => {
      run(
        3,
        `const model = await load()
         for (let i = 0; i < 8; i++) model.generate('Once', long)
         await sleep(${ms})
         process.exit(3)`,
      )
    })

    test('exit while a model loads', () => {
      run(4, 'load(); setImmediate(() => process.exit(4))')
    })

    test('an idle model does not keep the process alive, a running one does', () => {
      const out = run(
        0,
        `const model = await load()
         const run = model.generate('Once', { maxNewTokens: 50, temperature: 0 })
         run.then(({ tokens }) => console.log('tokens', tokens.length > 0))`,
      )
      expect(out).toBe('tokens true\n')
    })

    test('a model that nobody holds is collected with its threads', () => {
      run(
        0,
        `const { setFlagsFromString } = await import('node:v8')
         const { runInNewContext } = await import('node:vm')
         const { readdirSync } = await import('node:fs')
         setFlagsFromString('--expose-gc')
         const gc = runInNewContext('gc')
         const threads = () => readdirSync('/proc/self/task').length
         await (await load()).dispose() // a driver keeps threads
         const before = threads()
         for (let i = 0; i < 5; i++) await load()
         for (let i = 0; i < 50 && threads() > before; i++) { gc(); await sleep(20) }
         if (threads() > before) throw new Error('threads are left')`,
      )
    })
  })

  describe('worker', () => {
    const worker = `
    const model = await load()
    for (let i = 0; i < 8; i++) model.generate('Once', long)
    parentPort.postMessage('running')
  `
    const spawn = `
    const source = ${JSON.stringify(prelude)} + ${JSON.stringify(worker)}
    const url = new URL('data:text/javascript,' + encodeURIComponent(source))
  `

    test('terminated in mid-generation, ten times', () => {
      const out = run(
        0,
        `${spawn}
         const model = await load()
         for (let i = 0; i < 10; i++) {
           const worker = new Worker(url)
           await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
           await sleep(i * 2)
           await worker.terminate()
         }
         const { tokens } = await model.generate('Still here', { ...long, maxNewTokens: 20 })
         console.log(tokens.length)`,
      )
      expect(out).toBe('20\n')
    })

    test('terminated while it loads', () => {
      run(
        0,
        `${spawn}
         for (let i = 0; i < 8; i++) {
           const worker = new Worker(url)
           await sleep(20 + i * 8)
           await worker.terminate()
         }`,
      )
    })

    test('the process exits while workers generate', () => {
      run(
        5,
        `${spawn}
         const workers = [new Worker(url), new Worker(url)]
         await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
         process.exit(5)`,
      )
    })
  })
})
